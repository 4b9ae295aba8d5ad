package advert

import (
	"encoding/hex"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// vectors are messages as the figures of RFC 4861, RFC 4191, RFC 8106 and RFC
// 8781 have them.
var vectors = []struct {
	name    string
	message Message
	octets  string
}{
	{"nothing", Message{}, "86000000 00000000 00000000 00000000"},
	{"a default router that says there is DHCPv6", Message{Managed: true, Other: true, Lifetime: 30 * time.Minute},
		"86000000 00c00708 00000000 00000000"},
	{"its link-layer address", Message{LinkAddress: net.HardwareAddr{2, 0, 0x5e, 0x10, 0, 1}},
		"86000000 00000000 00000000 00000000 0101 02005e100001"},
	{"a prefix", of(Option{Prefix, netip.MustParsePrefix("2001:db8:77::/64"), 90 * time.Minute, 45 * time.Minute}),
		"86000000 00000000 00000000 00000000 0304 40c0 00001518 00000a8c 00000000 20010db8007700000000000000000000"},
	{"routes", of(
		Option{Kind: Route, Prefix: netip.MustParsePrefix("::/0"), Lifetime: time.Second},
		Option{Kind: Route, Prefix: netip.MustParsePrefix("2001:2::/48"), Lifetime: 10 * time.Minute},
		Option{Kind: Route, Prefix: netip.MustParsePrefix("64:ff9b::/96"), Lifetime: Forever},
	), "86000000 00000000 00000000 00000000 1801 0000 00000001" +
		"1802 3000 00000258 2001000200000000 1803 6000 ffffffff 0064ff9b000000000000000000000000"},
	{"a DNS server", of(Option{Kind: Resolver, Prefix: netip.MustParsePrefix("2001:db8::53/128"), Lifetime: 10 * time.Minute}),
		"86000000 00000000 00000000 00000000 1903 0000 00000258 20010db8000000000000000000000053"},
	{"NAT64s", of(
		Option{Kind: NAT64, Prefix: netip.MustParsePrefix("64:ff9b::/96"), Lifetime: 600 * time.Second},
		Option{Kind: NAT64, Prefix: netip.MustParsePrefix("2001:db8:64::/64")},
		Option{Kind: NAT64, Prefix: netip.MustParsePrefix("2001:db8::/56"), Lifetime: 8 * time.Second},
		Option{Kind: NAT64, Prefix: netip.MustParsePrefix("2001:db8::/48"), Lifetime: 65528 * time.Second},
		Option{Kind: NAT64, Prefix: netip.MustParsePrefix("2001:db8::/40"), Lifetime: 8 * time.Second},
		Option{Kind: NAT64, Prefix: netip.MustParsePrefix("2001:db8::/32"), Lifetime: 8 * time.Second},
	), "86000000 00000000 00000000 00000000" +
		"2602 0258 0064ff9b0000000000000000" +
		"2602 0001 20010db80064000000000000" +
		"2602 000a 20010db80000000000000000" +
		"2602 fffb 20010db80000000000000000" +
		"2602 000c 20010db80000000000000000" +
		"2602 000d 20010db80000000000000000"},
}

func of(options ...Option) Message { return Message{Options: options} }

func octets(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		want := octets(t, v.octets)
		if got := v.message.Marshal(); hex.EncodeToString(got) != hex.EncodeToString(want) {
			t.Errorf("%s is\n%x\nwant\n%x", v.name, got, want)
		}
		if got, err := Parse(want); err != nil || !reflect.DeepEqual(got, v.message) {
			t.Errorf("%s is read as\n%+v, %v\nwant\n%+v", v.name, got, err, v.message)
		}
	}
}

// TestRounded has lifetimes that the message has no room for.
func TestRounded(t *testing.T) {
	pool := netip.MustParsePrefix("64:ff9b::/96")
	for _, c := range []struct{ sent, want Message }{
		{of(Option{Kind: NAT64, Prefix: pool, Lifetime: time.Second}), of(Option{Kind: NAT64, Prefix: pool, Lifetime: 8 * time.Second})},
		{of(Option{Kind: NAT64, Prefix: pool, Lifetime: Forever}), of(Option{Kind: NAT64, Prefix: pool, Lifetime: 65528 * time.Second})},
		{of(Option{Kind: Route, Prefix: pool, Lifetime: 2 * Forever}), of(Option{Kind: Route, Prefix: pool, Lifetime: Forever})},
		{Message{Lifetime: 24 * time.Hour}, Message{Lifetime: 65535 * time.Second}},
	} {
		if got, err := Parse(c.sent.Marshal()); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v arrives as %+v, %v", c.sent, got, err)
		}
	}
}

// TestForeign has what other routers send and we do not.
func TestForeign(t *testing.T) {
	const start = "86000000 40000708 00000000 00000000"
	router := Message{Lifetime: 30 * time.Minute}
	for _, c := range []struct {
		what, octets string
		want         Message
	}{
		{"MTU and an unknown option", start + "0501 0000 000005dc ff01 000000000000", router},
		{"two DNS servers in one option", start + "1905 0000 00000e10 20010db8000000000000000000000053 20010db8000000000000000000000054",
			Message{Lifetime: router.Lifetime, Options: []Option{
				{Kind: Resolver, Prefix: netip.MustParsePrefix("2001:db8::53/128"), Lifetime: time.Hour},
				{Kind: Resolver, Prefix: netip.MustParsePrefix("2001:db8::54/128"), Lifetime: time.Hour},
			}}},
		{"a DNS server cut short", start + "1902 0000 00000e10 20010db800000000", router},
		{"a prefix that is on the link only", start + "0304 4080 00001518 00000a8c 00000000 20010db8007700000000000000000000", router},
		{"a prefix of 129 bits", start + "0304 81c0 00001518 00000a8c 00000000 20010db8007700000000000000000000", router},
		{"bits behind a route's prefix", start + "1802 2000 00000001 20010db8ffffffff",
			Message{Lifetime: router.Lifetime, Options: []Option{{Kind: Route, Prefix: netip.MustParsePrefix("2001:db8::/32"), Lifetime: time.Second}}}},
		{"a route longer than its option", start + "1802 4100 00000001 20010db8ffffffff", router},
		{"a NAT64 of no length", start + "2602 025e 0064ff9b0000000000000000", router},
		{"a NAT64 of two units more", start + "2603 0258 0064ff9b0000000000000000 0000000000000000", router},
	} {
		if got, err := Parse(octets(t, c.octets)); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", c.what, got, err)
		}
	}
}

func TestDiscarded(t *testing.T) {
	for what, text := range map[string]string{
		"nothing":             "",
		"a cut header":        "86000000 00000000 00000000 000000",
		"another type":        "85000000 00000000 00000000 00000000",
		"a code":              "86010000 00000000 00000000 00000000",
		"option of no length": "86000000 00000000 00000000 00000000 0100 000000000000",
		"option cut short":    "86000000 00000000 00000000 00000000 2602 0258 0064ff9b",
		"an octet more":       "86000000 00000000 00000000 00000000 00",
	} {
		if m, err := Parse(octets(t, text)); err != syscall.EPROTO {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
}

func TestSolicits(t *testing.T) {
	host, nobody := netip.MustParseAddr("fe80::2"), netip.IPv6Unspecified()
	for _, c := range []struct {
		what, octets string
		from         netip.Addr
		want         bool
	}{
		{"plain", "85000000 00000000", host, true},
		{"of a host without address", "85000000 00000000", nobody, true},
		{"with a link-layer address", "85000000 00000000 0101 02005e100001", host, true},
		{"with that, and no address", "85000000 00000000 0101 02005e100001", nobody, false},
		{"a code", "85010000 00000000", host, false},
		{"cut short", "85000000 000000", host, false},
		{"option of no length", "85000000 00000000 0000 000000000000", host, false},
		{"another type", "86000000 00000000", host, false},
	} {
		if got := solicits(octets(t, c.octets), c.from); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	if !solicits(solicitation(), host) {
		t.Error("ours is none")
	}
}

// FuzzParse wants what is read to be written such that it is read the same.
func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.message.Marshal())
	}
	f.Add(solicitation())
	f.Fuzz(func(t *testing.T, b []byte) {
		solicits(b, netip.IPv6Unspecified())
		m, err := Parse(b)
		if err != nil {
			return
		}
		m.LinkAddress = nil // any length is padded
		again, err := Parse(m.Marshal())
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("%+v was written as %+v, %v", m, again, err)
		}
	})
}
