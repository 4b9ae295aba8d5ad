package outlet

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"sixgate/socks/nat64"
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

// sixto4 is the prefix of IPv6 addresses that hold an IPv4 one in octets 2 to 5
// (RFC 3056).
var sixto4 = netip.MustParsePrefix("2002::/16")

// Guard tells which addresses are never dialled, whoever asks.
type Guard struct {
	own         func() []netip.Prefix
	translator  func() netip.Prefix // may be nil
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

// Behind returns g for a host that is behind a NAT64: translator returns its
// prefix, or an invalid one where there is none.
func (g *Guard) Behind(translator func() netip.Prefix) *Guard {
	behind := *g
	behind.translator = translator
	return &behind
}

// Vet returns EACCES for an address that is not to be dialled. An address that
// embeds an IPv4 address is denied where the latter is.
func (g *Guard) Vet(ip netip.Addr) error {
	for _, a := range g.meanings(ip) {
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

// meanings returns ip, unmapped and without zone, and the IPv4 addresses that it
// may stand for.
func (g *Guard) meanings(ip netip.Addr) []netip.Addr {
	ip = ip.Unmap().WithZone("")
	all := []netip.Addr{ip}
	if sixto4.Contains(ip) {
		octets := ip.As16()
		all = append(all, netip.AddrFrom4([4]byte(octets[2:6])))
	}
	if v4, ok := nat64.Literal(ip); ok {
		all = append(all, v4)
	}
	if g.translator != nil {
		if v4, ok := nat64.Extract(g.translator(), ip); ok {
			all = append(all, v4)
		}
	}
	return all
}

func find(prefixes []netip.Prefix, ip netip.Addr) (netip.Prefix, bool) {
	i := slices.IndexFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return prefixes[i], true
}
