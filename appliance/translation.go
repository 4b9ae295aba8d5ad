package appliance

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
	"sixgate/socks/nat64"
	"sixgate/socks/outlet"
)

// translate finds out which IPv4 addresses are the gateway's to reach.
//
// IPv6 clients write them behind the prefixes that are of this network or of
// anybody, but not behind that of a translator elsewhere, which may be the only
// way to IPv4. IPv4 clients write them as they are where the kernel has no way
// for them, and a translator has.
func (m *machine) translate(c *config.Config) {
	serves := func(family func(lan) bool) bool { return slices.ContainsFunc(m.lan, family) }
	other := c.Direct.NAT64
	if serves(func(l lan) bool { return l.families.IPv6 }) {
		if p := nat64.Local(); !p.Overlaps(other.Prefix) {
			m.literals = append(m.literals, p)
		}
		if p := nat64.WellKnown(); m.uplink.IPv4 && !p.Overlaps(other.Prefix) {
			m.literals = append(m.literals, p)
		}
	}
	m.translated = (other.Find || other.Prefix.IsValid()) && m.uplink == dnsfake.Families{IPv6: true} &&
		serves(func(l lan) bool { return l.families.IPv4 })
}

// literal is the IPv4 address that ip is, or stands for behind one of literals.
// The machine's own packets, which come from an address of the link, are not
// for the gateway: they would be what it dials itself.
func (m *machine) literal(c *config.Config, client, ip netip.Addr) (netip.Addr, bool) {
	switch {
	case c.Pool.IPv4.Contains(client), c.Pool.IPv6.Contains(client):
		return netip.Addr{}, false
	case m.translated && ip.Is4() && !c.Pool.IPv4.Contains(ip):
		return ip, ip.IsGlobalUnicast()
	}
	for _, p := range m.literals {
		if p.Contains(ip) {
			return nat64.Literal(ip)
		}
	}
	return netip.Addr{}, false
}

// discovery returns the IPv6 addresses of ipv4only.arpa, by which clients find
// out that the gateway is a translator, and behind which prefix (RFC 7050).
func (m *machine) discovery() []netip.Addr {
	p, ok := m.translator()
	if !ok {
		return nil
	}
	var addrs []netip.Addr
	for _, known := range nat64.Known() {
		addrs = append(addrs, nat64.Embed(p, known))
	}
	return addrs
}

// translatorRefresh is how often it is looked whether the network's NAT64 has
// come, gone or changed. The resolver keeps its answer as long as it is valid.
const translatorRefresh = 30 * time.Second

// translator knows the NAT64 of the network that the uplink leads to.
type translator struct {
	fixed    netip.Prefix // by configuration; invalid: none
	find     bool
	resolver outlet.Resolver
	current  func() *machine
	logger   *slog.Logger
	changed  chan struct{}                // holds one element when the machine has changed
	found    atomic.Pointer[netip.Prefix] // nil: none yet
}

// prefix returns the prefix by which IPv4 addresses are dialled, or an invalid
// one while the uplink has IPv4 itself.
func (t *translator) prefix() netip.Prefix {
	if m := t.current(); m.uplink.IPv4 || !m.uplink.IPv6 {
		return netip.Prefix{}
	}
	if p := t.found.Load(); p != nil {
		return *p
	}
	return t.fixed
}

// run keeps the prefix up to date until ctx ends, where it is to be found.
func (t *translator) run(ctx context.Context) error {
	if !t.find {
		return nil
	}
	again := time.NewTicker(translatorRefresh)
	defer again.Stop()
	for {
		if m := t.current(); !m.uplink.IPv4 && m.uplink.IPv6 {
			t.ask(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		case <-t.changed:
		}
	}
}

// follow makes run look again, now that the machine is another.
func (t *translator) follow() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// ask finds the prefix by RFC 7050, section 3. While nobody answers, the last
// one is used.
func (t *translator) ask(ctx context.Context) {
	answers, err := t.resolver.LookupNetIP(ctx, "ip6", "ipv4only.arpa")
	if failure, ok := errors.AsType[*net.DNSError](err); err != nil && !(ok && failure.IsNotFound) {
		t.logger.Debug("asking for the NAT64 of the network", "err", err)
		return
	}
	p, _ := nat64.Find(answers)
	if before := t.found.Swap(&p); before != nil && *before == p {
		return
	}
	if p.IsValid() {
		t.logger.Info("IPv4 is reached through the NAT64 of the network", "prefix", p)
	} else {
		t.logger.Warn("the network has no NAT64, and the uplink no IPv4")
	}
}
