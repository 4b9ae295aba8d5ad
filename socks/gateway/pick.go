package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"sixgate/socks"
	"sixgate/socks/outlet"
	"sixgate/socks/route"
)

// picked is the outlet that the rules give to a flow.
type picked struct {
	outlet.Outlet
	name string
}

// pick returns which outlet the rules give to what f sends to dest.
func (g *Gateway) pick(ctx context.Context, f *flow, dest socks.Addr) picked {
	to := f.to(dest)
	name := f.policy.Rules.Pick(to, func() []netip.Addr {
		ips, err := g.Resolver.LookupNetIP(ctx, "ip", dest.Name)
		if err != nil {
			g.Logger.Debug("rules by network pass over a name without addresses", "name", dest.Name, "err", err)
		}
		return f.policy.Unrejected(to, ips)
	})
	return g.limit(f, name)
}

// identity tells f's user from others, or, where it is nobody in particular,
// its client.
func (f *flow) identity() string {
	if f.User != "" {
		return "user " + f.User
	}
	return "client " + f.Client.Addr().String()
}

// to returns f as the rules look at what it sends to dest.
func (f *flow) to(dest socks.Addr) route.Flow {
	return route.Flow{Network: f.Network, Bind: f.Bind, Client: f.Client.Addr(), User: f.User, Dest: dest}
}

// Unrejected returns those of the addresses of f's destination that no rule
// rejects, by which alone an outlet is picked; all, if none is left.
func (p *Policy) Unrejected(f route.Flow, ips []netip.Addr) []netip.Addr {
	left := slices.DeleteFunc(slices.Clone(ips), func(ip netip.Addr) bool {
		_, rejected := p.Outlets[p.pickAt(f, ip)].(outlet.Reject)
		return rejected
	})
	if len(left) == 0 {
		return ips
	}
	return left
}

// pickAt returns which outlet the rules give to f where ip is the address of
// its destination.
func (p *Policy) pickAt(f route.Flow, ip netip.Addr) string {
	return p.Rules.Pick(f, func() []netip.Addr { return []netip.Addr{ip} })
}

// Reaches reports whether the rules send f, to an address, by this host's own
// sockets.
func (p *Policy) Reaches(f route.Flow) bool { return p.looksUp(p.pickAt(f, f.Dest.IP)) }

// limit returns the outlet of this name for f. One that looks up names itself
// reaches them at no address that the rules send elsewhere: what DNS says may
// have changed since they were asked.
func (g *Gateway) limit(f *flow, name string) picked {
	p := f.policy
	if via, ok := p.Outlets[name].(*outlet.Via); ok {
		return picked{via.For(f.identity()), name}
	}
	direct, ok := p.Outlets[name].(*outlet.Direct)
	if !ok {
		return picked{p.Outlets[name], name}
	}
	direct = direct.Starting(func(dest socks.Addr) netip.Addr { return g.hosts.of(f.Client.Addr(), dest.Name) })
	if p.Rules.ByNetwork() {
		direct = direct.Limited(func(dest socks.Addr, ip netip.Addr) error { return p.Permits(f.to(dest), ip, name) })
	}
	return picked{direct, name}
}

// Permits returns EACCES where the rules send f, if ip is the address of its
// destination, elsewhere than to the outlet of this name.
func (p *Policy) Permits(f route.Flow, ip netip.Addr, name string) error {
	if other := p.pickAt(f, ip); p.Outlets[other] != p.Outlets[name] {
		return fmt.Errorf("a rule sends %s to outlet %q: %w", ip, other, syscall.EACCES)
	}
	return nil
}
