package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sixgate/socks"
	"sixgate/socks/outlet"
	"sixgate/socks/relay"
)

// Pending is a connection that a client has asked for and not yet been given:
// a SYN, the first datagram of a flow, a SOCKS request. Exactly one of its
// methods is called, once.
type Pending interface {
	// Accept gives the client its connection, and returns the gateway's end
	// of it, which for datagrams is also a relay.Forwarder. bound is the address
	// that the gateway dialled from.
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
	Inlet   string         // where the client came in: "tun" or "socks"
	Network string         // "tcp", "udp", or "icmp" for a ping
	Bind    bool           // Dest is to connect; ServeBind sets it
	Client  netip.AddrPort // the port of a ping is its identifier
	User    string         // whom the client has proved to be; "": nobody in particular
	Dest    socks.Addr     // what the client asked for
	Fake    bool           // Dest is a fake address, which stands for a name
}

// Config is what a Gateway is built of. All but Logger must be set.
type Config struct {
	Names    Names
	Policy   func() *Policy  // in force now, never nil, without fault
	Resolver outlet.Resolver // for rules that match names by network
	Logger   *slog.Logger    // may be nil

	// Dialled is told of each dial that is over how long it took, and the error
	// if it failed. It may be nil.
	Dialled func(f Flow, took time.Duration, err error)
	// Ended is told of each session that is over or was not let in, and of what
	// ended it badly. It may be nil.
	Ended func(f Flow, err error)
}

// Gateway relays sessions. Its methods may be called from many goroutines.
type Gateway struct {
	Config
	dials dials
	hosts hosts

	relays       context.Context // of all relays
	abort        context.CancelFunc
	datagrams    context.Context // of those among them that carry datagrams
	endDatagrams context.CancelFunc

	mu      sync.Mutex
	closing bool               // guarded by mu
	quota   quota              // guarded by mu
	flows   map[*flow]struct{} // that have begun and not ended, guarded by mu
	live    sync.WaitGroup     // Add under mu while not closing

	counters counters // guarded by mu
	tooLarge atomic.Uint64
}

// New returns a Gateway.
func New(c Config) *Gateway {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{
		Config: c, quota: newQuota(), counters: newCounters(),
		flows: make(map[*flow]struct{}), hosts: newHosts(),
	}
	g.relays, g.abort = context.WithCancel(context.Background())
	g.datagrams, g.endDatagrams = context.WithCancel(g.relays)
	return g
}

// Serve dials s's destination, answers p by the outcome, and carries the
// session to its end. ctx bounds the dial; the relay after it goes on until
// both sides are done, a limit is hit, or Shutdown cuts it off.
func (g *Gateway) Serve(ctx context.Context, s Session, p Pending) {
	f, err := g.begin(s)
	if err != nil {
		p.Refuse(err)
		return
	}
	g.end(f, g.serve(ctx, f, p))
}

// serve returns why f was refused, or ended badly.
func (g *Gateway) serve(ctx context.Context, f *flow, p Pending) error {
	s := g.open(ctx, f, p)
	for _, release := range s.holds {
		defer release()
	}
	if s.err != nil {
		return s.err
	}
	return g.carry(f, s.near, s.far)
}

// sides are what a flow is between, or why there are none.
type sides struct {
	near  net.Conn
	far   farSide
	err   error
	holds []func() // to be called when the flow has ended
}

// open answers p by what comes of a dial. A goroutine of its own does so: to
// dial takes 8 KiB of stack and to accept 16, which the caller's would keep for
// as long as the flow lives.
func (g *Gateway) open(ctx context.Context, f *flow, p Pending) *sides {
	s := &sides{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.err = g.connect(ctx, f, p, s)
	}()
	<-done
	return s
}

// connect sets what s is of, but for its error.
func (g *Gateway) connect(ctx context.Context, f *flow, p Pending, s *sides) error {
	if f.Fake {
		name, release, err := g.Names.Hold(f.Dest.IP)
		if err == nil {
			s.holds = append(s.holds, release)
			var dest socks.Addr
			dest, err = socks.ParseHost(name, f.Dest.Port)
			f.note(func(w *way) { w.dest = dest })
		}
		if err != nil {
			err = fmt.Errorf("looking up what %s stands for: %w", f.Dest.IP, err)
			p.Refuse(err)
			return err
		}
	}
	began := time.Now()
	far, err := g.dial(ctx, f)
	if g.Dialled != nil {
		g.Dialled(f.snapshot(), time.Since(began), err)
	}
	if err != nil {
		p.Refuse(err)
		return err
	}
	if w := f.way(); w.dest.IsName() && f.policy.looksUp(w.outlet) {
		s.holds = append(s.holds, g.hosts.hold(f.Client.Addr(), w.dest.Name, socks.AddrPortOf(far.RemoteAddr()).Addr()))
	}
	bound := socks.AddrPortOf(far.LocalAddr())
	near, err := p.Accept(bound)
	if err != nil {
		far.Close()
		return fmt.Errorf("accepting %s: %w", f.Client, err)
	}
	f.note(func(w *way) { w.far = socks.AddrPortOf(far.RemoteAddr()) })
	g.join(f, bound.Addr(), f.way().outlet)
	s.near, s.far = near, far
	return nil
}

// farSide is what a flow is joined to: the net.Conn of one by TCP, or an
// outlet.Peer.
type farSide interface {
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	Close() error
}

// pingIdle is how long a ping is waited for (RFC 5508, section 3.2).
const pingIdle = time.Minute

// carry relays between near and far until both are done.
func (g *Gateway) carry(f *flow, near net.Conn, far farSide) error {
	idle := f.policy.UDPIdle
	if f.Network == "icmp" {
		idle = pingIdle
	}
	if far, ok := far.(outlet.Peer); ok {
		return relay.Forward(g.datagrams, near.(relay.Forwarder), far, idle, &f.moved)
	}
	return relay.Stream(g.relays, near, far.(net.Conn), f.policy.Stream, &f.moved)
}

// dial dials by the outlet that f takes.
func (g *Gateway) dial(ctx context.Context, f *flow) (farSide, error) {
	ctx, done, err := g.dialling(ctx, f)
	if err != nil {
		return nil, err
	}
	defer done()
	dest := f.way().dest
	out := g.pick(ctx, f, dest)
	f.note(func(w *way) { w.outlet = out.name })
	if f.Network == "tcp" {
		return out.Dial(ctx, f.Network, dest)
	}
	peers, ok := out.Outlet.(outlet.PeerOutlet)
	if !ok {
		return nil, fmt.Errorf("reaching %s by %s, which the outlet does not carry: %w", dest, f.Network, syscall.EOPNOTSUPP)
	}
	return peers.Reach(ctx, f.Network, f.Client, dest)
}

// dialling returns ctx with the end of a dial of f, which begins when it
// returns, and is over by done.
func (g *Gateway) dialling(ctx context.Context, f *flow) (_ context.Context, done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, f.policy.DialTimeout)
	stop := context.AfterFunc(g.relays, cancel)
	give, err := g.dials.take(ctx, f.Client.Addr())
	if err != nil {
		stop()
		cancel()
		return nil, nil, err
	}
	return ctx, func() { give(); stop(); cancel() }, nil
}

// Shutdown refuses new sessions, ends those of datagrams, and waits until no
// other is left or ctx ends; what is left then is cut off, and waited for.
func (g *Gateway) Shutdown(ctx context.Context) {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	g.endDatagrams()
	stop := context.AfterFunc(ctx, g.abort)
	g.live.Wait()
	stop()
	g.abort()
}
