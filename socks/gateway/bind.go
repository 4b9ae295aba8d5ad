package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"sixgate/socks/outlet"
)

// bindTimeout is how long a BIND waits for its peer: the two minutes of the
// first SOCKS4 server, CSTC's.
const bindTimeout = 2 * time.Minute

// PendingBind is a Pending that first has to be told where its peer may connect
// to: a SOCKS BIND. What its Accept is told is where the peer came from.
type PendingBind interface {
	Pending
	Announce(bound netip.AddrPort) error
}

// ServeBind is Serve for a connection from s's destination instead of to it.
// ctx bounds the wait for it.
func (g *Gateway) ServeBind(ctx context.Context, s Session, p PendingBind) {
	s.Bind = true
	f, err := g.begin(s)
	if err != nil {
		p.Refuse(err)
		return
	}
	g.end(f, g.serveBind(ctx, f, p))
}

func (g *Gateway) serveBind(ctx context.Context, f *flow, p PendingBind) error {
	binding, err := g.bind(ctx, f)
	if err != nil {
		p.Refuse(err)
		return err
	}
	defer binding.Close()
	if err := p.Announce(binding.Addr()); err != nil {
		p.Refuse(err)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	defer context.AfterFunc(g.relays, cancel)()
	far, peer, err := binding.Accept(ctx)
	if err != nil {
		p.Refuse(err)
		return err
	}
	near, err := p.Accept(peer)
	if err != nil {
		far.Close()
		return fmt.Errorf("accepting %s: %w", f.Client, err)
	}
	f.note(func(w *way) { w.far = peer })
	g.join(f, peer.Addr(), f.way().outlet)
	return g.carry(f, near, far)
}

// bind listens by the outlet that f takes.
func (g *Gateway) bind(ctx context.Context, f *flow) (outlet.Binding, error) {
	ctx, done, err := g.dialling(ctx, f)
	if err != nil {
		return nil, err
	}
	defer done()
	out := g.pick(ctx, f, f.Dest)
	f.note(func(w *way) { w.outlet = out.name })
	binder, ok := out.Outlet.(outlet.BindOutlet)
	if !ok {
		return nil, fmt.Errorf("binding for %s by outlet %q: %w", f.Dest, out.name, syscall.EOPNOTSUPP)
	}
	return binder.Bind(ctx, f.Dest)
}
