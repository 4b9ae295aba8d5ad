package outlet

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// never are prefixes that no client has a reason to reach through a gateway:
// loopback, unspecified ("this host" on Linux), link-local with the metadata
// services of clouds, multicast and broadcast.
var never = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/128"),
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// Prefixes of IPv6 addresses that lead to an IPv4 one, and where they hold it.
var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: the last 4 octets
	sixto4 = netip.MustParsePrefix("2002::/16")    // RFC 3056: octets 2 to 5
)

// Guard tells which addresses are never dialled, whoever asks.
type Guard struct {
	own         func() []netip.Prefix
	deny, allow []netip.Prefix
}

// NewGuard returns a Guard that denies what own returns, which may change and
// may be nil: the gateway's addresses, the fake pools, the served networks. It
// denies loopback, unspecified, link-local, multicast and broadcast addresses
// too. allow makes exceptions of both; deny is denied in any case.
func NewGuard(own func() []netip.Prefix, deny, allow []netip.Prefix) *Guard {
	if own == nil {
		own = func() []netip.Prefix { return nil }
	}
	return &Guard{own: own, deny: deny, allow: allow}
}

// Vet returns EACCES for an address that is not to be dialled. An address that
// embeds an IPv4 address is denied where the latter is.
func (g *Guard) Vet(ip netip.Addr) error {
	for _, a := range meanings(ip) {
		if p, denied := g.denies(a); denied {
			return fmt.Errorf("vetting address %s: %s is denied: %w", ip, p, syscall.EACCES)
		}
	}
	return nil
}

// denies returns the prefix by which ip is denied.
func (g *Guard) denies(ip netip.Addr) (netip.Prefix, bool) {
	if p, ok := find(g.deny, ip); ok {
		return p, true
	}
	if _, ok := find(g.allow, ip); ok {
		return netip.Prefix{}, false
	}
	if p, ok := find(never, ip); ok {
		return p, true
	}
	return find(g.own(), ip)
}

// meanings returns ip, unmapped and without zone, and the IPv4 address that it
// embeds.
func meanings(ip netip.Addr) []netip.Addr {
	ip = ip.Unmap().WithZone("")
	octets := ip.As16()
	switch {
	case nat64.Contains(ip):
		return []netip.Addr{ip, netip.AddrFrom4([4]byte(octets[12:]))}
	case sixto4.Contains(ip):
		return []netip.Addr{ip, netip.AddrFrom4([4]byte(octets[2:6]))}
	}
	return []netip.Addr{ip}
}

func find(prefixes []netip.Prefix, ip netip.Addr) (netip.Prefix, bool) {
	i := slices.IndexFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return prefixes[i], true
}
