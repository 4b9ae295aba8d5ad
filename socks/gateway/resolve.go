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
func (g *Gateway) Resolve(ctx context.Context, s Session) (ip netip.Addr, err error) {
	if !s.Dest.IsName() {
		return s.Dest.IP, nil
	}
	f, err := g.begin(s)
	if err != nil {
		return netip.Addr{}, err
	}
	err = g.resolve(ctx, f, func(ctx context.Context, out outlet.ResolveOutlet) (err error) {
		ip, err = out.Resolve(ctx, s.Dest.Name)
		return err
	})
	g.end(f, err)
	return ip, err
}

// ResolvePTR returns a name of s's destination, an address, as the outlet that
// the rules give to it knows it.
func (g *Gateway) ResolvePTR(ctx context.Context, s Session) (name string, err error) {
	f, err := g.begin(s)
	if err != nil {
		return "", err
	}
	err = g.resolve(ctx, f, func(ctx context.Context, out outlet.ResolveOutlet) (err error) {
		name, err = out.ResolvePTR(ctx, s.Dest.IP)
		return err
	})
	g.end(f, err)
	return name, err
}

// resolve lets ask ask the outlet that f takes.
func (g *Gateway) resolve(ctx context.Context, f *flow, ask func(context.Context, outlet.ResolveOutlet) error) error {
	ctx, done, err := g.dialling(ctx, f)
	if err != nil {
		return err
	}
	defer done()
	out := g.pick(ctx, f, f.Dest)
	f.note(func(w *way) { w.outlet = out.name })
	resolver, ok := out.Outlet.(outlet.ResolveOutlet)
	if !ok {
		return fmt.Errorf("resolving %s by outlet %q: %w", f.Dest.Host(), out.name, syscall.EOPNOTSUPP)
	}
	return ask(ctx, resolver)
}
