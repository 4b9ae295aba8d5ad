package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"

	"sixgate/socks/outlet"
)

// Resolve returns the address that s's destination, a name, has for the outlet
// that the rules give it: a name that only the far end of a chain knows is
// asked for there.
func (g *Gateway) Resolve(ctx context.Context, s Session) (netip.Addr, error) {
	if !s.Dest.IsName() {
		return s.Dest.IP, nil
	}
	f, err := g.begin(s)
	if err != nil {
		return netip.Addr{}, err
	}
	ip, err := g.resolve(ctx, f)
	g.end(f, err)
	return ip, err
}

func (g *Gateway) resolve(ctx context.Context, f *flow) (netip.Addr, error) {
	ctx, done, err := g.dialling(ctx, f)
	if err != nil {
		return netip.Addr{}, err
	}
	defer done()
	out := g.pick(ctx, f, f.Dest)
	f.note(func(w *way) { w.outlet = out.name })
	resolver, ok := out.Outlet.(outlet.ResolveOutlet)
	if !ok {
		return netip.Addr{}, fmt.Errorf("resolving %s by outlet %q: %w", f.Dest.Name, out.name, syscall.EOPNOTSUPP)
	}
	return resolver.Resolve(ctx, f.Dest.Name)
}
