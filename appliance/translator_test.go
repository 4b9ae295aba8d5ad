package appliance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sixgate/appliance/advert"
	"sixgate/dnsfake"
	"sixgate/socks/outlet"
)

// finding64 is a translator on m that asks resolver. log may be nil.
func finding64(resolver outlet.Resolver, m *machine, log io.Writer) *translator {
	if log == nil {
		log = io.Discard
	}
	return &translator{
		find: true, resolver: resolver, current: func() *machine { return m }, changed: make(chan struct{}, 1),
		own:    func() []netip.Prefix { return m.literals },
		logger: slog.New(slog.NewTextHandler(log, nil)),
	}
}

// answers is a resolver that has them for every name.
type answers struct {
	ips []netip.Addr
	err error
}

func (a *answers) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return a.ips, a.err
}

// TestTranslator follows the NAT64 of a network.
func TestTranslator(t *testing.T) {
	world, m := &answers{}, &machine{uplink: only6}
	r := finding64(world, m, nil)
	for _, c := range []struct {
		what   string
		answer string
		err    error
		uplink dnsfake.Families
		want   string
	}{
		{"nobody answers yet", "", errors.New("nobody"), only6, ""},
		{"one is found", "64:ff9b::192.0.0.170", nil, only6, "64:ff9b::/96"},
		{"nobody answers", "", errors.New("nobody"), only6, "64:ff9b::/96"},
		{"it is another", "2001:db8:64::192.0.0.171", nil, only6, "2001:db8:64::/96"},
		{"the uplink has IPv4", "2001:db8:64::192.0.0.171", nil, dual, ""},
		{"the uplink has nothing", "2001:db8:64::192.0.0.171", nil, dnsfake.Families{}, ""},
		{"a forged one", "2001:db8::1", nil, only6, ""},
		{"it is back", "64:ff9b::192.0.0.170", nil, only6, "64:ff9b::/96"},
		{"it is gone", "", &net.DNSError{IsNotFound: true}, only6, ""},
	} {
		world.ips, world.err, m.uplink = nil, c.err, c.uplink
		if c.answer != "" {
			world.ips = []netip.Addr{netip.MustParseAddr(c.answer)}
		}
		r.ask(t.Context())
		var want netip.Prefix
		if c.want != "" {
			want = netip.MustParsePrefix(c.want)
		}
		if got := r.prefix(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the prefix is %v, want %q", c.what, got, c.want)
		}
	}
	fixed := finding64(nil, m, nil)
	fixed.find, fixed.fixed = false, netip.MustParsePrefix("64:ff9b::/96")
	if got := fixed.prefix(); got != fixed.fixed {
		t.Errorf("the configured prefix is %v", got)
	}
	if err := fixed.run(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAdvertisedNAT64 follows what the routers of uplink 2 say, and others.
func TestAdvertisedNAT64(t *testing.T) {
	const near, other, mine = "2001:db8:64::/96", "2001:db8:65::/64", "64:ff9b:1::/96"
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		m := &machine{uplink: only6, uplinks: []int{2}, literals: []netip.Prefix{netip.MustParsePrefix("64:ff9b:1::/48")}}
		world := &answers{ips: []netip.Addr{netip.MustParseAddr("64:ff9b::192.0.0.170")}}
		r := finding64(world, m, &log)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.run(ctx) }()
		for _, c := range []struct {
			what     string
			wait     time.Duration
			iface    int
			router   string
			prefix   string
			lifetime time.Duration
			want     string
		}{
			{"none yet", 0, 2, "fe80::1", "", 0, "64:ff9b::/96: " + byDNS},
			{"one of the LAN", 0, 3, "fe80::1", other, time.Hour, "64:ff9b::/96: " + byDNS},
			{"the gateway's own", 0, 2, "fe80::1", mine, time.Hour, "64:ff9b::/96: " + byDNS},
			{"one of the uplink", 0, 2, "fe80::1", near, time.Hour, near + ": " + byRouter},
			{"another beside it", 0, 2, "fe80::2", other, time.Hour, near + ": " + byRouter},
			{"the first, from another router", 0, 2, "fe80::2", near, 10 * time.Minute, near + ": " + byRouter},
			{"withdrawn by its first router", 0, 2, "fe80::1", near, 0, other + ": " + byRouter},
			{"run out", time.Hour, 2, "fe80::1", "", 0, "64:ff9b::/96: " + byDNS},
		} {
			time.Sleep(c.wait)
			var said advert.Message
			if c.prefix != "" {
				said.Options = []advert.Option{{Kind: advert.NAT64, Prefix: netip.MustParsePrefix(c.prefix), Lifetime: c.lifetime}}
			}
			r.hear(c.iface, netip.MustParseAddr(c.router), said)
			synctest.Wait()
			if got := r.String(); got != c.want {
				t.Errorf("%s: %s, want %s", c.what, got, c.want)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for _, want := range []string{"prefix=64:ff9b::/96 as=\"" + byDNS, "prefix=" + near + " as=\"" + byRouter, "prefix=" + other} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in\n%s", want, &log)
		}
	}
}

// TestAdvertisedNAT64Bounded has a neighbour that makes up prefixes.
func TestAdvertisedNAT64Bounded(t *testing.T) {
	m := &machine{uplink: only6, uplinks: []int{2}}
	r := finding64(nil, m, nil)
	first := netip.MustParsePrefix("2001:db8:64::/96")
	for p, n := first, 0; n < 1000; n++ {
		r.hear(2, netip.MustParseAddr("fe80::1"), advert.Message{Options: []advert.Option{{Kind: advert.NAT64, Prefix: p, Lifetime: time.Hour}}})
		octets := p.Addr().As16()
		octets[6], octets[7] = byte(n>>8), byte(n)
		p = netip.PrefixFrom(netip.AddrFrom16(octets), 96)
	}
	if len(r.advertised) != maxAdvertised || r.prefix() != first {
		t.Errorf("%d are held, and %s is used", len(r.advertised), r.prefix())
	}
}
