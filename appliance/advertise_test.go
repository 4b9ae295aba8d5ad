package appliance

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"sixgate/appliance/advert"
	"sixgate/appliance/config"
	"sixgate/dnsfake"
)

// TestAdvertised tells what hosts are told where.
func TestAdvertised(t *testing.T) {
	const routes = "route to 2001:2::/48, route to 64:ff9b:1::/48, route to 64:ff9b::/96"
	for _, c := range []struct {
		what      string
		settings  string
		uplink    dnsfake.Families
		addresses string
		listen    string
		want      string
	}{
		{what: "services alone", uplink: dual, addresses: "fe80::1/64 fd00:77::1/64 192.168.77.1/24", listen: ":53",
			want: routes + ", DNS fd00:77::1, DNS fe80::1, NAT64 64:ff9b::/96"},
		{what: "everything", settings: "router prefixes", uplink: dual, addresses: "fe80::1/64 fd00:77::1/64 fd00:78::1/56 fd00:79::1/128", listen: ":53",
			want: "default router, addresses from fd00:77::/64, " + routes + ", DNS fd00:77::1, DNS fd00:78::1, DNS fd00:79::1, NAT64 64:ff9b::/96"},
		{what: "the well-known prefix is the network's", uplink: only6, addresses: "fe80::1/64", listen: ":53",
			want: "route to 2001:2::/48, route to 64:ff9b:1::/48, DNS fe80::1, NAT64 64:ff9b:1::/96"},
		{what: "DNS at another port", uplink: dual, addresses: "fe80::1/64 fd00:77::1/64", listen: ":5353",
			want: routes + ", NAT64 64:ff9b::/96"},
		{what: "DNS at one address", uplink: dual, addresses: "fe80::1/64 fd00:77::1/64", listen: "[fe80::1%lan0]:53",
			want: routes + ", DNS fe80::1, NAT64 64:ff9b::/96"},
		{what: "DNS at an address elsewhere", uplink: dual, addresses: "fe80::1/64 fd00:77::1/64", listen: "[fd00:99::1]:53",
			want: routes + ", NAT64 64:ff9b::/96"},
		{what: "DNS at every address", uplink: dual, addresses: "fe80::1/64 fd00:77::1/64", listen: "[::]:53",
			want: routes + ", DNS fd00:77::1, DNS fe80::1, NAT64 64:ff9b::/96"},
	} {
		conf := config.Default()
		conf.Advertise.Router = strings.Contains(c.settings, "router")
		conf.Advertise.Prefixes = strings.Contains(c.settings, "prefixes")
		if port, all := strings.CutPrefix(c.listen, ":"); all {
			c.listen = "0.0.0.0:" + port
		}
		conf.DNS.Listen = []netip.AddrPort{netip.MustParseAddrPort(c.listen)}
		if conf.DNS.Listen[0].Addr().Is4() {
			conf.DNS.Listen[0] = netip.AddrPortFrom(netip.Addr{}, conf.DNS.Listen[0].Port())
		}
		l := lan{name: "lan0", families: only6}
		for _, address := range strings.Fields(c.addresses) {
			l.addresses = append(l.addresses, netip.MustParsePrefix(address))
		}
		m := &machine{ipv6: true, uplink: c.uplink, lan: []lan{l}}
		m.translate(conf)
		if got := telling(m.advertised(conf, l)); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.what, got, c.want)
		}
	}
}

// TestSilent has an interface that cannot be advertised on, yet.
func TestSilent(t *testing.T) {
	conf := config.Default()
	conf.Advertise.Interfaces = []string{"no-such-link"}
	m := &machine{ipv6: true, lan: []lan{{name: "no-such-link"}, {name: "lan1"}}}
	s := &senders{logger: slog.New(slog.DiscardHandler), open: map[advert.Interface]sending{}}
	var tasks errgroup.Group
	if err := s.set(context.Background(), &tasks, conf, m); err != nil {
		t.Error(err)
	}
	if all := s.status(); len(all) != 1 || !strings.HasPrefix(all[0].What, "nothing: finding interface no-such-link: ") {
		t.Errorf("status is %+v", all)
	}
	if found := checkAdvertised(conf, m); len(found) != 1 || found[0].OK {
		t.Errorf("check finds %v", found)
	}
}
