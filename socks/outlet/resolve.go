package outlet

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"

	"sixgate/socks"
)

// Resolver looks up the addresses of a name, and returns as soon as ctx ends;
// network is "ip", "ip4" or "ip6". A *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error)
}

// KnowingResolver is a Resolver that tells whether LookupNetIP would return at
// once, and what.
type KnowingResolver interface {
	KnownNetIP(network, name string) (ips []netip.Addr, known bool, err error)
}

// ReverseResolver is a Resolver that looks up the names of an address, too.
type ReverseResolver interface {
	LookupAddr(ctx context.Context, addr string) (names []string, err error)
}

// Resolve returns the address that datagrams to name go to.
func (d *Direct) Resolve(ctx context.Context, name string) (netip.Addr, error) {
	ip, err := d.find(ctx, socks.Addr{Name: name, Port: 9}) // discard, but nothing is sent
	if err != nil {
		return netip.Addr{}, fmt.Errorf("resolving %s: %w", name, socks.WithErrno(err))
	}
	return d.meant(ip), nil
}

// ResolvePTR returns a name of ip. Those of private addresses are nobody else's
// business (RFC 6303), and not asked for; nor are those of what is not dialled.
func (d *Direct) ResolvePTR(ctx context.Context, ip netip.Addr) (string, error) {
	name, err := d.resolvePTR(ctx, ip)
	if err != nil {
		return "", fmt.Errorf("resolving %s: %w", ip, socks.WithErrno(err))
	}
	return name, nil
}

func (d *Direct) resolvePTR(ctx context.Context, ip netip.Addr) (string, error) {
	resolver, ok := d.Resolver.(ReverseResolver)
	if !ok {
		return "", syscall.EOPNOTSUPP
	}
	if err := d.vet(socks.Addr{IP: ip}, ip); err != nil {
		return "", err
	}
	if ip.IsPrivate() {
		return "", fmt.Errorf("a private address: %w", syscall.EHOSTUNREACH)
	}
	names, err := resolver.LookupAddr(ctx, ip.String())
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, syscall.EHOSTUNREACH)
	}
	for _, name := range names {
		if host, err := socks.ParseHost(name, 0); err == nil && host.IsName() {
			return host.Name, nil
		}
	}
	return "", fmt.Errorf("no name among %q: %w", names, syscall.EHOSTUNREACH)
}
