package appliance

import (
	"net/netip"
	"testing"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
)

var (
	only4 = dnsfake.Families{IPv4: true}
	only6 = dnsfake.Families{IPv6: true}
	dual  = dnsfake.Families{IPv4: true, IPv6: true}
)

// TestLiterals tells what is taken as an IPv4 address where.
func TestLiterals(t *testing.T) {
	for _, c := range []struct {
		what        string
		uplink, lan dnsfake.Families
		nat64       string
		client, ip  string
		want        string
		discovered  string
	}{
		{"well-known", dual, only6, "", "fd00:77::2", "64:ff9b::192.0.2.1", "192.0.2.1", "64:ff9b::c000:aa"},
		{"local", dual, only6, "", "fd00:77::2", "64:ff9b:1::10.0.0.1", "10.0.0.1", "64:ff9b::c000:aa"},
		{"local, with a prefix of one's own", dual, dual, "", "fd00:77::2", "64:ff9b:1:2::10.0.0.1", "10.0.0.1", "64:ff9b::c000:aa"},
		{"neither", dual, only6, "", "fd00:77::2", "2001:db8::1", "", "64:ff9b::c000:aa"},
		{"no IPv6 clients", dual, only4, "", "fd00:77::2", "64:ff9b::192.0.2.1", "", ""},
		{"the well-known one is the network's", only6, only6, "", "fd00:77::2", "64:ff9b::192.0.2.1", "", "64:ff9b:1::c000:aa"},
		{"the well-known one is configured", dual, only6, "64:ff9b::/96", "fd00:77::2", "64:ff9b::192.0.2.1", "", "64:ff9b:1::c000:aa"},
		{"another is configured", only6, only6, "2001:db8:64::/96", "fd00:77::2", "64:ff9b:1::192.0.2.1", "192.0.2.1", "64:ff9b:1::c000:aa"},
		{"a local one is configured", dual, only6, "64:ff9b:1:ffff::/96", "fd00:77::2", "64:ff9b:1::192.0.2.1", "", "64:ff9b::c000:aa"},
		{"IPv4 that the kernel forwards", dual, only4, "64:ff9b::/96", "192.168.77.2", "192.0.2.1", "", ""},
		{"IPv4 that nobody forwards", only6, only4, "64:ff9b::/96", "192.168.77.2", "192.0.2.1", "192.0.2.1", ""},
		{"IPv4 that is not the world's", only6, only4, "64:ff9b::/96", "192.168.77.2", "224.0.0.1", "", ""},
		{"fake IPv4", only6, only4, "64:ff9b::/96", "192.168.77.2", "198.18.4.4", "", ""},
		{"IPv4 without a translator", only6, only4, "", "192.168.77.2", "192.0.2.1", "", ""},
		{"what the gateway dials", only6, only4, "64:ff9b::/96", "198.18.0.1", "192.0.2.1", "", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			conf := config.Default()
			if c.nat64 != "" {
				conf.Direct.NAT64.Prefix = netip.MustParsePrefix(c.nat64)
			}
			m := &machine{ipv6: true, uplink: c.uplink, lan: []lan{{name: "lan0", families: c.lan}}}
			m.translate(conf)
			got, ok := m.literal(conf, netip.MustParseAddr(c.client), netip.MustParseAddr(c.ip))
			if ok != (c.want != "") || ok && got.String() != c.want {
				t.Errorf("%s is %v, %v, want %q", c.ip, got, ok, c.want)
			}
			var discovered string
			if addrs := m.discovery(); len(addrs) > 0 {
				discovered = addrs[0].String()
			}
			if discovered != c.discovered {
				t.Errorf("clients discover %q, want %q", discovered, c.discovered)
			}
		})
	}
}
