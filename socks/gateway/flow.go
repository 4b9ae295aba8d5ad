package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"sixgate/socks"
	"sixgate/socks/relay"
)

// Flow is how a session was at one moment.
type Flow struct {
	Session
	Real    socks.Addr     // the destination, which Dest may be a fake address of; zero: many
	Outlet  string         // "" is the default
	Far     netip.AddrPort // where the gateway has connected to; zero: nowhere yet, or many
	Type    Type           // 0: not joined yet
	Up      int64          // payload bytes, client to far
	Down    int64          // payload bytes, far to client
	Started time.Time
}

// Text returns dest as one of s's kind goes there: a ping has no port.
func (s Session) Text(dest socks.Addr) string {
	if s.Network == "icmp" {
		return dest.Host()
	}
	return dest.String()
}

// flow is a session that has begun.
type flow struct {
	Session
	policy  *Policy // in force when it began
	started time.Time
	moved   relay.Counts

	mu   sync.Mutex
	goes way // guarded by mu
}

// way is where a flow goes.
type way struct {
	dest   socks.Addr
	outlet string
	far    netip.AddrPort
	typ    Type // of the latest peer; 0 when nothing was joined
}

func (f *flow) way() way {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.goes
}

func (f *flow) note(change func(*way)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.goes)
}

var (
	errClosing = fmt.Errorf("the gateway is shutting down: %w", syscall.ECONNREFUSED)
	errTooMany = fmt.Errorf("too many flows at a time: %w", syscall.ENOBUFS)
)

// begin lets a session in, or tells why not.
func (g *Gateway) begin(s Session) (*flow, error) {
	f, err := g.admit(s)
	if err != nil {
		g.over(f, f.goes, err)
	}
	return f, err
}

func (g *Gateway) admit(s Session) (*flow, error) {
	f := &flow{Session: s, policy: g.Policy(), started: time.Now(), goes: way{dest: s.Dest}}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closing:
		return f, errClosing
	case !g.quota.take(s, f.policy.Flows, f.policy.FlowsPerClient):
		g.counters.refused[socks.ReplyOf(errTooMany)]++
		g.counters.overLimit++
		return f, errTooMany
	}
	g.live.Add(1)
	g.flows[f] = struct{}{}
	return f, nil
}

// join counts f as joined by an outlet to a far side of this address.
func (g *Gateway) join(f *flow, far netip.Addr, outlet string) {
	k := Kind{f.Network, TypeOf(f.Client.Addr(), far), outlet}
	f.note(func(w *way) { w.typ, w.outlet = k.Type, outlet })
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counters.joined[k]++
}

// end counts and logs how f went.
func (g *Gateway) end(f *flow, err error) {
	defer g.live.Done()
	w := f.way()
	g.mu.Lock()
	if w.typ == 0 && err != nil {
		g.counters.refused[socks.ReplyOf(err)]++
	}
	g.quota.give(f.Session)
	delete(g.flows, f)
	g.counters.up += uint64(f.moved.Up.Load())
	g.counters.down += uint64(f.moved.Down.Load())
	g.mu.Unlock()
	g.over(f, w, err)
}

func (f *flow) snapshot() Flow {
	w := f.way()
	return Flow{
		Session: f.Session, Real: w.dest, Outlet: w.outlet, Far: w.far, Type: w.typ,
		Up: f.moved.Up.Load(), Down: f.moved.Down.Load(), Started: f.started,
	}
}

// Flows returns the sessions that have begun and not ended, in no order.
func (g *Gateway) Flows() []Flow {
	g.mu.Lock()
	defer g.mu.Unlock()
	flows := make([]Flow, 0, len(g.flows))
	for f := range g.flows {
		flows = append(flows, f.snapshot())
	}
	return flows
}

// over tells of a session that is over, or was not let in.
func (g *Gateway) over(f *flow, w way, err error) {
	g.log(f, w, err)
	if g.Ended != nil {
		g.Ended(f.snapshot(), err)
	}
}

// log writes the one line of a flow, which is over: whether it was joined, by
// which type, or with which reply code it was refused; and what ended it, where
// that was not its two sides.
func (g *Gateway) log(f *flow, w way, err error) {
	if !g.Logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	attrs := []any{"inlet", f.Inlet, "client", f.Client, "network", f.Network}
	if f.User != "" {
		attrs = append(attrs, "user", f.User)
	}
	if w.dest.IsName() {
		attrs = append(attrs, "name", w.dest.Name)
	}
	if f.Dest.IsValid() {
		attrs = append(attrs, "dest", f.Dest)
	}
	if w.outlet != "" {
		attrs = append(attrs, "outlet", w.outlet)
	}
	if w.far.IsValid() {
		attrs = append(attrs, "far", w.far)
	}
	attrs = append(attrs, "for", time.Since(f.started).Round(time.Millisecond))
	if w.typ != 0 {
		attrs = append(attrs, "type", w.typ, "up", f.moved.Up.Load(), "down", f.moved.Down.Load())
	} else {
		attrs = append(attrs, "reply", socks.ReplyOf(err))
	}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	g.Logger.Debug("flow", attrs...)
}
