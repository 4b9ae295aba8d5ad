package socks

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// stream is a client with nothing more to say than its input.
type stream struct {
	io.Reader
	bytes.Buffer
}

func (s *stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func (s *stream) Close() error                     { return nil }
func (s *stream) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *stream) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// FuzzServer feeds a client's octets to servers with and without passwords. A
// request that they take means the same when it is written again.
func FuzzServer(f *testing.F) {
	for _, tt := range transcripts {
		f.Add(unhex(f, tt.client))
	}
	f.Add(unhex(f, "05 01 02 01 01 75 01 70 05 01 00 03 01 61 0050"))
	users, err := NewUsers(map[string]Password{"u": mustPassword(f, "p")})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, users := range []*Users{nil, users} {
			s := &Server{Access: func() *Access { return &Access{Users: users} }}
			if users != nil {
				users.guesses = guesses{}
			}
			client := &stream{Reader: bytes.NewReader(in)}
			r, err := s.handshake(t.Context(), client)
			said := client.Bytes()
			if err != nil {
				if r != nil {
					t.Fatalf("%v, and a request", err)
				}
				continue
			}
			if (r.user == "u") != (users != nil) {
				t.Fatalf("user %q", r.user)
			}
			if users == nil && len(said) > 0 && !bytes.Equal(said, []byte{version, methodNone}) {
				t.Fatalf("answered % x", said)
			}
			checkRequest(t, r.command, r.dest)
		}
	})
}

func checkRequest(t *testing.T, command Command, dest Addr) {
	if command == CommandUDPAssociate {
		return
	}
	if !dest.IsValid() || dest.IsName() == dest.IP.IsValid() || command == CommandConnect && dest.Port == 0 {
		t.Fatalf("took %s for %+v", command, dest)
	}
	again, err := parseAddr(dest.AppendTo(nil))
	if err != nil || again != dest {
		t.Fatalf("%v became %v, %v", dest, again, err)
	}
}

// FuzzDatagram feeds a UDP header to its parser, from clients and servers.
func FuzzDatagram(f *testing.F) {
	for _, s := range []string{
		"0000 00 01 c0000201 0035 6869", "0000 00 04 20010db8000000000000000000000001 0035", "0000 00 03 01 61 0035 00",
		"0000 01 01 c0000201 0035 6869", "0000 00 03", "0000 00 03 ff 61", "0000 00 09 61", "",
	} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		addr, payload, err := ParseDatagram(in)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(in, payload) || in[2] != 0 || !addr.IsValid() {
			t.Fatalf("took % x for %v, % x", in, addr, payload)
		}
		again, rest, err := ParseDatagram(AppendDatagram(nil, addr, payload))
		if err != nil || again != addr || !bytes.Equal(rest, payload) {
			t.Fatalf("%v became %v, %v", addr, again, err)
		}
	})
}

// FuzzReply feeds a server's octets to the client.
func FuzzReply(f *testing.F) {
	for _, s := range []string{
		"05 00 00 01 c0000207 0007 68656c6c6f", "05 00 00 03 01 62 0007", "05 05", "05 00 00 04 20010db8000000000000000000000001 01bb", "05 00 00 09", "04 5a",
	} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		msg, err := readReply(r)
		if err != nil {
			return
		}
		if !slices.Equal(msg, in[:len(in)-r.Len()]) {
			t.Fatalf("read % x", msg)
		}
		code, bound, err := parseReply(msg)
		if err == nil && code != Succeeded && bound.IsValid() {
			t.Fatalf("refusal with BND %v", bound)
		}
	})
}

// FuzzClient feeds a server's octets to clients of all kinds and commands. They
// read no octet beyond the reply, and no server gets a password out of one that
// has none.
func FuzzClient(f *testing.F) {
	for _, s := range []string{
		"05 00 05 00 00 01 c0000207 0007 68656c6c6f", "05 02 01 00 05 00 00 04 20010db8000000000000000000000001 01bb", "05 02 01 01",
		"05 00 05 00 00 03 01 62 0007", "05 00 05 05", "05 ff", "05 01", "04 5a", "05 02 05 00 05 00 00 01 00000000 0000 05 00",
	} {
		f.Add(unhex(f, s))
	}
	hop := Addr{Name: "hop", Port: 1080}
	clients := []Client{
		{Server: hop}, {Server: hop, Pipeline: true}, {Server: hop, Username: "u", Password: "secret"},
		{Server: hop, Username: "u", Password: "secret", Required: true}, {Server: hop, Username: "u", Password: "secret", Pipeline: true},
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, c := range clients {
			for _, command := range []Command{CommandConnect, CommandBind, CommandUDPAssociate, CommandResolve, CommandResolvePTR} {
				left := bytes.NewReader(in)
				server := &stream{Reader: left}
				_, err := c.ask(server, command, Addr{IP: netip.IPv4Unspecified(), Port: 80})
				said := server.Bytes()
				if c.Username == "" && bytes.Contains(said, []byte("secret")) || c.insists() && !bytes.HasPrefix(said, []byte{version, 1, methodPassword}) {
					t.Fatalf("%+v said % x", c, said)
				}
				if err != nil {
					continue
				}
				// The reply that was taken is the end of what was read.
				read := in[:len(in)-left.Len()]
				start := 2
				if read[1] == methodPassword {
					start = 4
				}
				if code, _, err := parseReply(read[start:]); err != nil || code != Succeeded || c.insists() && start != 4 {
					t.Fatalf("%+v took % x of % x: %v", c, read, in, err)
				}
			}
		}
	})
}

// FuzzHost feeds a name to its parser. What it takes is written so that it is
// taken again, and is nothing that a resolver would take for an address.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"a.test", "A.Test.", "::1", "[::1]", "::ffff:192.0.2.1", "fe80::1%lo", "127.1", "0x7f.1", "2130706433", "a..b", "a\x00b", "xn--a", "_a-b.c", "2001-db8--1.ipv6-literal.net"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		addr, err := ParseHost(in, 80)
		if err != nil {
			return
		}
		if !addr.IsValid() || addr.IsName() == addr.IP.IsValid() || addr.IP.Is4In6() || addr.IP.Zone() != "" || len(addr.Name) > maxName {
			t.Fatalf("%q is %+v", in, addr)
		}
		for _, r := range addr.Name {
			if r <= ' ' || r >= 0x7f {
				t.Fatalf("%q is the name %q", in, addr.Name)
			}
		}
		for _, again := range []string{addr.Host(), strings.ToUpper(addr.Host())} {
			if second, err := ParseHost(again, 80); err != nil || second != addr {
				t.Fatalf("%q became %+v, then %q became %+v, %v", in, addr, again, second, err)
			}
		}
		if fromWire, err := parseAddr(addr.AppendTo(nil)); err != nil || fromWire != addr {
			t.Fatalf("%q became %+v, on the wire %+v, %v", in, addr, fromWire, err)
		}
	})
}
