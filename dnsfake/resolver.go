package dnsfake

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"sixgate/dnsfake/upstream"
)

// Resolver looks up names for the gateway's own connections: as a Server
// answers for them, but with real addresses. Names of the LAN are those in
// Hosts, and special ones are asked of nobody, wherever a client writes them.
type Resolver struct {
	Upstream *upstream.Resolver
	Hosts    *Hosts
	Policy   func() *Policy
}

// LookupNetIP returns the addresses of name in network, which is "ip", "ip4" or
// "ip6". Its errors are those of upstream.Resolver.
func (r *Resolver) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	if ips, known, err := r.local(network, name); known {
		return ips, err
	}
	return r.Upstream.LookupNetIP(ctx, network, name)
}

// KnownNetIP returns what LookupNetIP would, where that need not wait.
func (r *Resolver) KnownNetIP(network, name string) (ips []netip.Addr, known bool, err error) {
	if ips, known, err := r.local(network, name); known {
		return ips, known, err
	}
	return r.Upstream.KnownNetIP(network, name)
}

// LookupAddr returns the names of the address addr, with a trailing dot.
func (r *Resolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return r.Upstream.LookupAddr(ctx, addr)
}

// local returns the addresses that a name has without anybody being asked.
func (r *Resolver) local(network, name string) (ips []netip.Addr, known bool, err error) {
	ips, known = r.addresses(key(name))
	if !known {
		return nil, false, nil
	}
	ips = slices.DeleteFunc(slices.Clone(ips), func(ip netip.Addr) bool {
		return network == "ip4" && !ip.Is4() || network == "ip6" && ip.Is4()
	})
	if len(ips) == 0 {
		return nil, true, &net.DNSError{Name: name, Err: "no such host", UnwrapErr: syscall.EHOSTUNREACH, IsNotFound: true}
	}
	return ips, true, nil
}

// addresses returns those of name, in the form of key, if it is for this machine
// alone to know: none where there is no such name.
func (r *Resolver) addresses(name string) (ips []netip.Addr, known bool) {
	if ips, ok := r.Hosts.lookup(name); ok {
		return ips, true
	}
	policy := r.Policy()
	if policy.Bypasses(name) {
		return nil, false
	}
	if ip, ok := literal(name); ok {
		return []netip.Addr{ip}, true
	}
	zone, t := policy.treatmentOf(name)
	switch {
	case t == loopback:
		return loopbacks(), true
	case t == discovery && zone == name:
		return discoveries(), true
	}
	return nil, t != ordinary || unasked(name)
}
