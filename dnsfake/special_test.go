package dnsfake

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestSpecialNames(t *testing.T) {
	for _, c := range []struct{ clients, always, query, want string }{
		{"4", "4", "localhost. A", "localhost. 10 A 127.0.0.1"},
		{"4", "4", "x.LocalHost. AAAA", "x.LocalHost. 10 AAAA ::1"},
		{"4", "4", "localhost. MX", "localhost. 300 SOA"},
		{"46", "", "a.invalid. A", "NXDOMAIN; invalid. 300 SOA"},
		{"46", "", "a.b.Test. AAAA", "NXDOMAIN; Test. 300 SOA"},
		{"46", "", "a.onion. TXT", "NXDOMAIN; onion. 300 SOA"},
		{"46", "", "a.alt. A", "NXDOMAIN; alt. 300 SOA"},
		{"46", "", "printer.local. A", "NXDOMAIN; local. 300 SOA"},
		{"46", "", "a.home.arpa. A", "NXDOMAIN; home.arpa. 300 SOA"},
		{"46", "", "a.internal. A", "NXDOMAIN; internal. 300 SOA"},
		{"46", "", "a.lan. A", "NXDOMAIN; lan. 300 SOA"},
		{"46", "", "home.arpa. DS", "asked"},
		{"46", "", "dc.corp.local. A", "asked"}, // by bypass
		{"46", "", "a.far.internal. A", "a.far.internal. 300 A fake a.far.internal"},
		{"4", "4", "ipv4only.arpa. A", "ipv4only.arpa. 10 A 192.0.0.170; ipv4only.arpa. 10 A 192.0.0.171"},
		{"6", "6", "ipv4only.arpa. AAAA", "ipv4only.arpa. 300 SOA"},
		{"6", "6", "a.ipv4only.arpa. AAAA", "NXDOMAIN; ipv4only.arpa. 300 SOA"},
		{"6", "6", "170.0.0.192.in-addr.arpa. PTR", "170.0.0.192.in-addr.arpa. 300 PTR ipv4only.arpa."},
		{"46", "", "resolver.arpa. SVCB", "resolver.arpa. 300 SOA"},
		{"46", "", "_dns.resolver.arpa. SVCB", "resolver.arpa. 300 SOA"},
		{"46", "", "use-application-dns.net. A", "NXDOMAIN; use-application-dns.net. 300 SOA"},
		{"46", "", "mask.icloud.com. A", "NXDOMAIN; mask.icloud.com. 300 SOA"},
		{"46", "", "mask-h2.icloud.com. AAAA", "NXDOMAIN; mask-h2.icloud.com. 300 SOA"},
		{"46", "", "www.icloud.com. TXT", "asked"},
		// Names that are this network's own, or nobody's.
		{"46", "", "nas. A", "NXDOMAIN; nas. 300 SOA"},
		{"46", "", "com. AAAA", "NXDOMAIN; com. 300 SOA"},
		{"46", "", "com. NS", "asked"},
		{"46", "", ". NS", "asked"},
		{"46", "", "wpad.corp.example. A", "NXDOMAIN; wpad.corp.example. 300 SOA"},
		{"46", "", "isatap. A", "NXDOMAIN; isatap. 300 SOA"},
		{"46", "", "dns.msftncsi.com. A", "asked"},
		// Reverse zones.
		{"46", "", "4.3.2.10.in-addr.arpa. PTR", "NXDOMAIN; 10.in-addr.arpa. 300 SOA"},
		{"46", "", "3.2.10.in-addr.arpa. PTR", "10.in-addr.arpa. 300 SOA"},
		{"46", "", "10.in-addr.arpa. SOA", "10.in-addr.arpa. 300 SOA"},
		{"46", "", "1.1.20.172.in-addr.arpa. PTR", "NXDOMAIN; 20.172.in-addr.arpa. 300 SOA"},
		{"46", "", "1.1.32.172.in-addr.arpa. PTR", "asked"},
		{"46", "", "1.1.100.100.in-addr.arpa. PTR", "NXDOMAIN; 100.100.in-addr.arpa. 300 SOA"},
		{"46", "", "1.1.128.100.in-addr.arpa. PTR", "asked"},
		{"46", "", "8.8.8.8.in-addr.arpa. PTR", "asked"},
		{"46", "", "1.0.0.127.in-addr.arpa. PTR", "1.0.0.127.in-addr.arpa. 300 PTR localhost."},
		{"46", "", "1.0.0.127.in-addr.arpa. TXT", "127.in-addr.arpa. 300 SOA"},
		{"46", "", "1." + strings.Repeat("0.", 31) + "ip6.arpa. PTR", "1." + strings.Repeat("0.", 31) + "ip6.arpa. 300 PTR localhost."},
		{"46", "", "1.d.f.ip6.arpa. PTR", "d.f.ip6.arpa. 300 SOA"},
		{"46", "", "1.b.e.f.ip6.arpa. PTR", "b.e.f.ip6.arpa. 300 SOA"},
		{"46", "", "1.0.0.2.ip6.arpa. PTR", "asked"},
		// Addresses as names.
		{"4", "", "2001:db8::1. A", "2001:db8::1. 300 A fake 2001:db8::1"},
		{"4", "", "2001:DB8::1.lan.example. A", "2001:DB8::1.lan.example. 300 A fake 2001:db8::1"},
		{"4", "", "2001:db8::1. AAAA", "2001:db8::1. 300 SOA"},
		{"4", "", "2001:db8::1. MX", "2001:db8::1. 300 SOA"},
		{"4", "", "2001-db8--1.ipv6-literal.net. A", "2001-db8--1.ipv6-literal.net. 300 A fake 2001:db8::1"},
		{"4", "", "2001-db8--1.ip6.lan. A", "2001-db8--1.ip6.lan. 300 A fake 2001:db8::1"},
		{"4", "", "fe80--1s4.ipv6-literal.net. A", "NXDOMAIN; ipv6-literal.net. 300 SOA"},
		{"4", "", "fe80::1%eth0. A", "NXDOMAIN; fe80::1%eth0. 300 SOA"},
		{"4", "4", "--1.ipv6-literal.net. A", "--1.ipv6-literal.net. 300 SOA; EDE 15"},
		{"4", "4", "::ffff:192.0.2.1. A", "::ffff:192.0.2.1. 300 A fake 192.0.2.1"},
		{"4", "", "192.0.2.1. A", "192.0.2.1. 10 A 192.0.2.1"},
		{"6", "", "192.0.2.1. AAAA", "192.0.2.1. 300 AAAA fake 192.0.2.1"},
		{"6", "", "192.0.2.1. A", "192.0.2.1. 300 SOA"},
		{"46", "", "2001:db8::1. AAAA", "2001:db8::1. 10 AAAA 2001:db8::1"},
		{"46", "", "2001:db8::1. A", "2001:db8::1. 300 SOA"},
	} {
		t.Run(c.clients+"/"+c.always+"/"+c.query, func(t *testing.T) {
			up := serve(t, "")
			s := server(t, up, Config{
				Clients: clients(c.clients),
				Always:  func() Families { return familiesOf(c.always) },
				Policy:  policy(t, []string{"*.corp.local"}, nil, 0),
				Way:     ways(".far.internal", ".", "-"),
				Vet: func(ip netip.Addr) error {
					if ip.IsLoopback() {
						return errors.New("loopback")
					}
					return nil
				},
			})
			name, qtype, _ := strings.Cut(c.query, " ")
			q := query(name, qtype)
			q.SetEdns0(1232, false)
			got := brief(s, exchange(t, s, q))
			if len(up.queries()) > 0 {
				got = "asked"
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestNAT64Discovery answers as it is: whom the gateway takes IPv4 addresses
// from behind a prefix finds it out, if he has no IPv4 himself.
func TestNAT64Discovery(t *testing.T) {
	prefixed := []netip.Addr{netip.MustParseAddr("64:ff9b::192.0.0.170"), netip.MustParseAddr("64:ff9b::192.0.0.171")}
	for _, c := range []struct {
		clients, query string
		nat64          []netip.Addr
		want           string
	}{
		{"6", "AAAA", prefixed, "ipv4only.arpa. 10 AAAA 64:ff9b::c000:aa; ipv4only.arpa. 10 AAAA 64:ff9b::c000:ab"},
		{"6", "A", prefixed, "ipv4only.arpa. 10 A 192.0.0.170; ipv4only.arpa. 10 A 192.0.0.171"},
		{"46", "AAAA", prefixed, "ipv4only.arpa. 300 SOA"},
		{"6", "AAAA", nil, "ipv4only.arpa. 300 SOA"},
	} {
		s := server(t, serve(t, ""), Config{Clients: clients(c.clients), NAT64: func() []netip.Addr { return c.nat64 }})
		if got := brief(s, exchange(t, s, query("ipv4only.arpa.", c.query))); got != c.want {
			t.Errorf("%s to clients with %s: got %s, want %s", c.query, c.clients, got, c.want)
		}
	}
}

// TestKnownZones asks upstream for a special zone that it serves.
func TestKnownZones(t *testing.T) {
	s := server(t, serve(t, "a.test. 60 A 192.0.2.1"), Config{Policy: policy(t, nil, []string{"test"}, 0)})
	for name, want := range map[string]string{
		"a.test.":    "a.test. 60 A 192.0.2.1",
		"a.invalid.": "NXDOMAIN; invalid. 300 SOA",
	} {
		if got := brief(s, exchange(t, s, query(name, "A"))); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func FuzzLiteral(f *testing.F) {
	for _, name := range []string{"2001:db8::1", "2001-db8--1.ipv6-literal.net", "1.2.3.4", "::ffff:1.2.3.4.lan", "fe80::1%0", "-.ip6.lan"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		ip, ok := literal(name)
		if ok != ip.IsValid() || ip.Zone() != "" || ip.Is4In6() {
			t.Errorf("%v, %v", ip, ok)
		}
		if again, ok2 := literal(ip.String()); ok && (!ok2 || again != ip) {
			t.Error(fmt.Sprint(ip, " is read as ", again))
		}
	})
}
