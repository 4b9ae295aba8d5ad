package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"sixgate/socks"
	"sixgate/socks/outlet"
	"sixgate/socks/relay"
	"sixgate/socks/route"
)

// Pending is a connection that a client has asked for and not yet been given:
// a SYN, the first datagram of a flow, a SOCKS request. Exactly one of its
// methods is called, once.
type Pending interface {
	// Accept gives the client its connection, and returns the gateway's end
	// of it. bound is the address that the gateway dialled from.
	Accept(bound netip.AddrPort) (net.Conn, error)
	// Refuse tells the client why there will be no connection.
	Refuse(err error)
}

// Names maps fake addresses to the names they stand for.
type Names interface {
	// Hold returns the name behind addr, and keeps it there until release.
	Hold(addr netip.Addr) (name string, release func(), err error)
}

// Session is one connection through the gateway.
type Session struct {
	Inlet   string // where the client came in: "tun" or "socks"
	Network string // "tcp" or "udp"
	Client  netip.AddrPort
	User    string     // whom the client has proved to be; "": nobody in particular
	Dest    socks.Addr // what the client asked for
	Fake    bool       // Dest is a fake address, which stands for a name
}

// Config is what a Gateway is built of. All but Logger must be set.
type Config struct {
	Names       Names
	Rules       route.Rules
	Outlets     map[string]outlet.Outlet // by name; "" takes what no rule does
	Resolver    outlet.Resolver          // for rules that match names by network
	DialTimeout time.Duration
	Stream      relay.Limits  // of TCP
	UDPIdle     time.Duration // of a UDP flow
	Logger      *slog.Logger  // may be nil
}

// Gateway relays sessions. Its methods may be called from many goroutines.
type Gateway struct {
	Config
	counters counters
	flows    context.Context // of all relays
	abort    context.CancelFunc

	mu      sync.Mutex
	closing bool           // guarded by mu
	live    sync.WaitGroup // Add under mu while not closing
}

// New returns a Gateway.
func New(c Config) (*Gateway, error) {
	for _, r := range c.Rules {
		if _, ok := c.Outlets[r.Outlet]; !ok {
			return nil, fmt.Errorf("building the gateway: a rule names the unknown outlet %q", r.Outlet)
		}
	}
	if c.Outlets[""] == nil {
		return nil, fmt.Errorf("building the gateway: no default outlet")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{Config: c}
	g.flows, g.abort = context.WithCancel(context.Background())
	return g, nil
}

// Serve dials s's destination, answers p by the outcome, and carries the
// session to its end. ctx bounds the dial; the relay after it goes on until
// both sides are done, a limit is hit, or Shutdown cuts it off.
func (g *Gateway) Serve(ctx context.Context, s Session, p Pending) {
	if !g.begin() {
		p.Refuse(errClosing)
		return
	}
	defer g.live.Done()
	o := g.serve(ctx, s, p)
	g.counters.end(o)
	g.log(s, o)
}

// errClosing refuses what comes after Shutdown.
var errClosing = fmt.Errorf("the gateway is shutting down: %w", syscall.ECONNREFUSED)

func (g *Gateway) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closing {
		g.live.Add(1)
	}
	return !g.closing
}

// outcome is how a session went.
type outcome struct {
	dest   socks.Addr // the real destination
	outlet string
	typ    Type // 0 when nothing was joined
	counts relay.Counts
	err    error
}

func (g *Gateway) serve(ctx context.Context, s Session, p Pending) (o outcome) {
	o.dest = s.Dest
	if s.Fake {
		name, release, err := g.Names.Hold(s.Dest.IP)
		if err == nil {
			defer release()
			o.dest, err = socks.ParseHost(name, s.Dest.Port)
		}
		if err != nil {
			o.err = fmt.Errorf("looking up what %s stands for: %w", s.Dest.IP, err)
			p.Refuse(o.err)
			return o
		}
	}
	far, err := g.dial(ctx, s, &o)
	if err != nil {
		o.err = err
		p.Refuse(err)
		return o
	}
	bound := addrPort(far.LocalAddr())
	near, err := p.Accept(bound)
	if err != nil {
		far.Close()
		o.err = fmt.Errorf("accepting %s: %w", s.Client, err)
		return o
	}
	o.typ = TypeOf(s.Client.Addr(), bound.Addr())
	defer g.counters.join(o.typ)()
	if s.Network == "udp" {
		o.counts, o.err = relay.Datagrams(g.flows, near, far, g.UDPIdle)
	} else {
		o.counts, o.err = relay.Stream(g.flows, near, far, g.Stream)
	}
	return o
}

// dial notes in o which outlet it takes.
func (g *Gateway) dial(ctx context.Context, s Session, o *outcome) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, g.DialTimeout)
	defer cancel()
	stop := context.AfterFunc(g.flows, cancel)
	defer stop()
	flow := route.Flow{Network: s.Network, Client: s.Client.Addr(), User: s.User, Dest: o.dest}
	o.outlet = g.Rules.Pick(flow, func() []netip.Addr {
		ips, err := g.Resolver.LookupNetIP(ctx, "ip", o.dest.Name)
		if err != nil {
			g.Logger.Debug("rules by network pass over a name without addresses", "name", o.dest.Name, "err", err)
		}
		return ips
	})
	return g.Outlets[o.outlet].Dial(ctx, s.Network, o.dest)
}

// Shutdown refuses new sessions and waits until none is left or ctx ends; what
// is left then is cut off, and waited for.
func (g *Gateway) Shutdown(ctx context.Context) {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	stop := context.AfterFunc(ctx, g.abort)
	g.live.Wait()
	stop()
	g.abort()
}

func (g *Gateway) log(s Session, o outcome) {
	if !g.Logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	attrs := []any{"inlet", s.Inlet, "client", s.Client, "network", s.Network}
	if s.User != "" {
		attrs = append(attrs, "user", s.User)
	}
	if o.dest.IsName() {
		attrs = append(attrs, "name", o.dest.Name)
	}
	attrs = append(attrs, "dest", s.Dest)
	if o.outlet != "" {
		attrs = append(attrs, "outlet", o.outlet)
	}
	if o.typ != 0 {
		attrs = append(attrs, "type", o.typ, "up", o.counts.Up, "down", o.counts.Down)
	}
	if o.err != nil {
		attrs = append(attrs, "err", o.err)
	}
	g.Logger.Debug("flow", attrs...)
}

// addrPort returns the address of a, or the zero AddrPort where a is none.
func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
