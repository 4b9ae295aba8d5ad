package appliance

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
	"sixgate/socks/nat64"
)

// running waits until flows of datagrams can begin.
func (b *box) running(t *testing.T) *box {
	t.Helper()
	for until := time.Now().Add(time.Minute); !b.parts.tun.packets.Load().BeginDatagrams(
		netip.MustParseAddrPort("192.0.2.99:9"), netip.MustParseAddrPort("198.18.0.9:53")); {
		if time.Now().After(until) {
			t.Fatal("no flow of datagrams begins")
		}
		time.Sleep(time.Millisecond)
	}
	return b
}

func (b *box) met(client, from string) bool {
	return b.parts.tun.meet(netip.MustParseAddrPort(client), netip.MustParseAddrPort(from))
}

// TestMeet has hosts send clients what they have not asked for.
func TestMeet(t *testing.T) {
	const client4, client6 = "192.0.2.2:1000", "[2001:db8::2]:1000"
	rules := func(c *config.Config) {
		c.Direct.Deny = []netip.Prefix{netip.MustParsePrefix("203.0.113.66/32")}
		c.Rules = []config.Rule{{Networks: []netip.Prefix{netip.MustParsePrefix("203.0.113.77/32")}, Outlet: "reject"}}
	}
	for name, c := range map[string]struct {
		client, from string
		change       func(*config.Config)
		want         bool
	}{
		"a host":           {client4, "203.0.113.9:999", rules, true},
		"across families":  {client4, "[2001:db8:9::9]:999", rules, true},
		"to IPv6":          {client6, "203.0.113.9:999", rules, true},
		"as in our DNS":    {client4, "203.0.113.9:53", rules, false},
		"denied":           {client4, "203.0.113.66:999", rules, false},
		"denied to all":    {client4, "169.254.1.1:999", rules, false},
		"rejected":         {client4, "203.0.113.77:999", rules, false},
		"a setting":        {client4, "203.0.113.9:999", func(c *config.Config) { c.Direct.Filtering = config.FilterAddress }, false},
		"by default a NAT": {client4, "203.0.113.9:999", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, newWorld(t), c.change).running(t)
			if got := b.met(c.client, c.from); got != c.want {
				t.Fatalf("met: %v", got)
			}
			from := netip.MustParseAddrPort(c.from).Addr().String()
			if known := b.parts.table.Has(from); known != c.want {
				t.Errorf("%s has an address: %v", from, known)
			}
		})
	}
}

// TestStrangersAreFew has forged sources ask for the whole pool.
func TestStrangersAreFew(t *testing.T) {
	b := newBox(t, newWorld(t), func(c *config.Config) { c.Pool.IPv4 = netip.MustParsePrefix("198.18.0.0/24") }).running(t)
	n := 0
	for i := range 200 {
		if b.met("192.0.2.2:1000", fmt.Sprintf("203.0.113.%d:999", i+1)) {
			n++
		}
	}
	if most := b.parts.table.Cap() / 8; n < 1 || n > most+1 || b.parts.table.Len() > most+1 {
		t.Errorf("%d strangers have addresses, of %d; want at most %d", b.parts.table.Len(), b.parts.table.Cap(), most)
	}
}

func TestWritten(t *testing.T) {
	uplink := netip.MustParsePrefix("2001:db8:64::/96")
	there := netip.MustParseAddr("203.0.113.9")
	for name, c := range map[string]struct {
		m               machine
		client, ip, out string
	}{
		"no translator":            {machine{}, "2001:db8::2", "203.0.113.9", ""},
		"IPv6 of a host for IPv4":  {machine{}, "192.0.2.2", "2001:db8:9::9", ""},
		"behind our prefix":        {machine{literals: []netip.Prefix{nat64.Local()}}, "2001:db8::2", "203.0.113.9", nat64.Embed(netip.MustParsePrefix("64:ff9b:1::/96"), there).String()},
		"IPv6 as it is":            {machine{literals: []netip.Prefix{nat64.Local()}}, "2001:db8::2", "2001:db8:9::9", ""},
		"by the uplink's NAT64":    {machine{translated: true, uplink: dnsfake.Families{IPv6: true}}, "192.0.2.2", nat64.Embed(uplink, there).String(), "203.0.113.9"},
		"not by the uplink's":      {machine{translated: true}, "192.0.2.2", "2001:db8:9::9", ""},
		"IPv6 clients beside that": {machine{translated: true}, "2001:db8::2", nat64.Embed(uplink, there).String(), ""},
	} {
		got, ok := c.m.written(netip.MustParseAddr(c.client), netip.MustParseAddr(c.ip), uplink)
		if ok != (c.out != "") || ok && got.String() != c.out {
			t.Errorf("%s: %v, %v; want %q", name, got, ok, c.out)
		}
	}
}
