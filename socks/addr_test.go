package socks

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

func TestParseHost(t *testing.T) {
	long := strings.Repeat("a.", 126) + "a" // 253 octets
	for _, tt := range []struct{ host, want string }{
		{"example.com", "example.com"},
		{"Example.COM.", "example.com"},
		{"_sip._tcp.example.com", "_sip._tcp.example.com"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"2001-db8--1.ipv6-literal.net", "2001-db8--1.ipv6-literal.net"},
		{"1.example", "1.example"},
		{"localhost", "localhost"},
		{long, long},
		{"192.0.2.1", "192.0.2.1"},
		{"2001:db8::1", "2001:db8::1"},
		{"[2001:DB8::1]", "2001:db8::1"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{"::1", "::1"},

		{"", ""},
		{".", ""},
		{"a..b", ""},
		{".a", ""},
		{"a..", ""},
		{long + "a", ""},
		{strings.Repeat("a", 64), ""},
		{"localhost\x00.evil", ""},
		{"a b", ""},
		{"b\xc3\xbccher.example", ""},
		{"a/b", ""},
		{"0", ""},
		{"127.1", ""},
		{"0x7f.1", ""},
		{"0x7f000001", ""},
		{"2130706433", ""},
		{"192.0.2.1.", ""},
		{"192.0.2.256", ""},
		{"[192.0.2.1]", ""},
		{"[2001:db8::1", ""},
		{"2001:db8::1]", ""},
		{"fe80::1%eth0", ""},
	} {
		a, err := ParseHost(tt.host, 80)
		if (err != nil) != (tt.want == "") {
			t.Errorf("ParseHost(%q) error: %v", tt.host, err)
			continue
		}
		if err == nil && (a.Host() != tt.want || a.Port != 80 || a.IsName() == a.IP.IsValid()) {
			t.Errorf("ParseHost(%q) = %+v, want %s", tt.host, a, tt.want)
		}
	}
}

func TestParseAddr(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"example.com:80", "example.com:80"},
		{"192.0.2.1:0", "192.0.2.1:0"},
		{"[2001:db8::1]:65535", "[2001:db8::1]:65535"},
		{"[::ffff:192.0.2.1]:1", "192.0.2.1:1"},
		{"example.com", ""},
		{"example.com:", ""},
		{"example.com:65536", ""},
		{"example.com:-1", ""},
		{"2001:db8::1:80", ""},
		{":80", ""},
	} {
		a, err := ParseAddr(tt.in)
		if (err != nil) != (tt.want == "") {
			t.Errorf("ParseAddr(%q) error: %v", tt.in, err)
		}
		if err == nil && a.String() != tt.want {
			t.Errorf("ParseAddr(%q) = %s, want %s", tt.in, a, tt.want)
		}
	}
}

func TestAddrFromAddrPort(t *testing.T) {
	for in, want := range map[string]string{
		"[::ffff:192.0.2.1]:5": "192.0.2.1:5",
		"[fe80::1%lo]:5":       "[fe80::1]:5",
	} {
		if got := AddrFromAddrPort(netip.MustParseAddrPort(in)).String(); got != want {
			t.Errorf("AddrFromAddrPort(%s) = %s, want %s", in, got, want)
		}
	}
	if a := AddrFromAddrPort(netip.AddrPort{}); a.IsValid() {
		t.Errorf("an Addr from nothing: %v", a)
	}
}

// unhex decodes octets written for people, with spaces.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// octets hides that its content has no more.
func octets(b []byte) *bytes.Reader {
	return bytes.NewReader(append(b[:len(b):len(b)], "early data"...))
}

var addrVectors = []struct {
	wire string
	addr string // of what goes both ways
}{
	{"01 c0000201 0050", "192.0.2.1:80"},
	{"04 20010db8000000000000000000000001 01bb", "[2001:db8::1]:443"},
	{"03 0b 6578616d706c652e636f6d 0035", "example.com:53"},
	{"03 01 61 ffff", "a:65535"},
}

func TestAddrWire(t *testing.T) {
	for _, tt := range addrVectors {
		want, err := ParseAddr(tt.addr)
		if err != nil {
			t.Fatal(err)
		}
		wire := unhex(t, tt.wire)
		if got := want.AppendTo([]byte{9}); !bytes.Equal(got[1:], wire) {
			t.Errorf("%s goes as % x, want % x", want, got[1:], wire)
		}
		r := octets(wire)
		b, err := readAddr(iotest.OneByteReader(r), nil)
		if err != nil || r.Len() != len("early data") {
			t.Errorf("reading % x: %v, %d octets left", wire, err, r.Len())
		}
		if got, err := parseAddr(b); err != nil || got != want {
			t.Errorf("parsing % x: %v, %v", b, got, err)
		}
		for n := range wire {
			if _, err := readAddr(bytes.NewReader(wire[:n]), nil); err == nil {
				t.Errorf("reading %d octets of % x: no error", n, wire)
			}
			if _, err := parseAddr(wire[:n]); err == nil {
				t.Errorf("parsing %d octets of % x: no error", n, wire)
			}
		}
	}
	if got := (Addr{}).AppendTo(nil); !bytes.Equal(got, unhex(t, "01 00000000 0000")) {
		t.Errorf("the zero Addr goes as % x", got)
	}
}

func TestParseAddrWire(t *testing.T) {
	const v6, v4 = "[2001:db8::1]:80", "192.0.2.1:80"
	for _, tt := range []struct {
		what, wire string
		want       string
		errno      syscall.Errno
	}{
		{"mapped", "04 00000000000000000000ffffc0000201 0050", v4, 0},
		{"name 192.0.2.1", "03 09 3139322e302e322e31 0050", v4, 0},
		{"name ::ffff:192.0.2.1", "03 10 3a3a666666663a3139322e302e322e31 0050", v4, 0},
		{"name 2001:db8::1", "03 0b 323030313a6462383a3a31 0050", v6, 0},
		{"name [::1]", "03 05 5b3a3a315d 0050", "[::1]:80", 0},
		{"name a.A", "03 03 612e41 0050", "a.a:80", 0},
		{"link-local", "04 fe800000000000000000000000000001 0050", "[fe80::1]:80", 0},
		{"no name", "03 00 0050", "", syscall.EHOSTUNREACH},
		{"name 127.1", "03 05 3132372e31 0050", "", syscall.EHOSTUNREACH},
		{"name 0x7f000001", "03 0a 30783766303030303031 0050", "", syscall.EHOSTUNREACH},
		{"name 2130706433", "03 0a 32313330373036343333 0050", "", syscall.EHOSTUNREACH},
		{"name with a NUL", "03 03 610062 0050", "", syscall.EHOSTUNREACH},
		{"name with a zone", "03 0c 666538303a3a312565746830 0050", "", syscall.EACCES},
		{"unknown type", "02", "", syscall.EAFNOSUPPORT},
		{"an octet too many", "01 c000020100 0050", "", syscall.EPROTO},
		{"length beyond the end", "03 02 61 0050", "", syscall.EPROTO},
		{"no port", "04 20010db8000000000000000000000001", "", syscall.EPROTO},
		{"nothing", "", "", syscall.EPROTO},
		{"too short", "03 00", "", syscall.EPROTO},
	} {
		got, err := parseAddr(unhex(t, tt.wire))
		if tt.errno != 0 && !errors.Is(err, tt.errno) || tt.errno == 0 && (err != nil || got.String() != tt.want) {
			t.Errorf("%s: %v, %v; want %s, %v", tt.what, got, err, tt.want, tt.errno)
		}
	}
}
