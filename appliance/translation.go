package appliance

import (
	"net/netip"
	"slices"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
	"sixgate/socks/nat64"
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
	p, ok := m.ownNAT64()
	if !ok {
		return nil
	}
	var addrs []netip.Addr
	for _, known := range nat64.Known() {
		addrs = append(addrs, nat64.Embed(p, known))
	}
	return addrs
}

// ownNAT64 returns the prefix behind which the gateway is a NAT64. That is
// the well-known one where it is the gateway's.
func (m *machine) ownNAT64() (netip.Prefix, bool) {
	if len(m.literals) == 0 {
		return netip.Prefix{}, false
	}
	last := m.literals[len(m.literals)-1]
	return netip.PrefixFrom(last.Addr(), nat64.WellKnown().Bits()), true
}
