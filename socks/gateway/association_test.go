package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sixgate/socks"
	"sixgate/socks/datagram"
	"sixgate/socks/outlet"
	"sixgate/socks/route"
)

type letter struct {
	payload string
	addr    socks.Addr
}

// tooLarge is a payload that mail does not take.
const tooLarge = "large"

// mail is a PacketConn and an Association in memory.
type mail struct {
	in, out chan letter
	closed  chan struct{}
	once    sync.Once
}

func newMail() *mail {
	return &mail{in: make(chan letter, 100), out: make(chan letter, 100), closed: make(chan struct{})}
}

func (m *mail) Forward(take func(datagram.Batch, socks.Addr)) {
	go func() {
		for {
			select {
			case d := <-m.in:
				take(datagram.Batch{Payload: []byte(d.payload)}, d.addr)
			case <-m.closed:
				return
			}
		}
	}()
}

func (m *mail) Send(b datagram.Batch, addr socks.Addr) error {
	if string(b.Payload) == tooLarge {
		return syscall.EMSGSIZE
	}
	select {
	case <-m.closed:
		return net.ErrClosed
	default:
		m.out <- letter{string(b.Payload), addr}
		return nil
	}
}

func (m *mail) Done() <-chan struct{} { return m.closed }

func (m *mail) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

// clientMail is a client with an association.
type clientMail struct {
	*mail
	refused error
}

func (c *clientMail) Associate() (Association, error) { return c, nil }
func (c *clientMail) Refuse(err error)                { c.refused = err }

// post is an outlet for datagrams, in which slow.test takes an hour.
type post struct {
	world
	opened []*mail
}

type postMail struct{ *mail }

func (p postMail) Find(ctx context.Context, dest socks.Addr) error {
	switch dest.Name {
	case "slow.test":
		<-ctx.Done()
		return ctx.Err()
	case "unknown.test":
		return syscall.EHOSTUNREACH
	}
	return nil
}

func (p *post) ListenPacket(context.Context) (outlet.PacketConn, error) {
	m := newMail()
	p.opened = append(p.opened, m)
	return postMail{m}, nil
}

func addr(s string) socks.Addr {
	a, err := socks.ParseAddr(s)
	if err != nil {
		panic(err)
	}
	return a
}

func TestServeAssociation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def, far := &post{}, &post{}
		g := newGateway(t, Config{}, Policy{
			Outlets: map[string]outlet.Outlet{"": def, "far": far, "deaf": &world{}, "no": outlet.Reject{}},
			Rules: route.Rules{
				{Names: []string{"*.far.test"}, Network: "udp", Outlet: "far"},
				{Ports: []uint16{25}, Outlet: "no"},
				{Ports: []uint16{26}, Outlet: "deaf"},
			},
		})
		c := &clientMail{mail: newMail()}
		done := make(chan struct{})
		go func() {
			g.ServeAssociation(t.Context(), Session{Inlet: "socks", Network: "udp", Client: netip.MustParseAddrPort("192.0.2.2:1")}, c)
			close(done)
		}()
		for _, to := range []string{"slow.test:1", "192.0.2.9:25", "192.0.2.9:26", "unknown.test:1", "192.0.2.9:1", "[2001:db8::9]:1", "192.0.2.9:1", "a.far.test:1"} {
			c.in <- letter{"to " + to, addr(to)}
			synctest.Wait()
		}
		if len(def.opened) != 1 || len(far.opened) != 1 {
			t.Fatalf("%d and %d sockets, want one of each outlet", len(def.opened), len(far.opened))
		}
		for _, to := range []string{"192.0.2.9:1", "[2001:db8::9]:1", "192.0.2.9:1"} {
			if got := <-def.opened[0].out; got != (letter{"to " + to, addr(to)}) {
				t.Errorf("sent %v, want it to %s", got, to)
			}
		}
		if got := <-far.opened[0].out; got.addr != addr("a.far.test:1") {
			t.Errorf("sent %v", got)
		}
		for _, from := range []string{"192.0.2.9:1", "[2001:db8::9]:1", "192.0.2.9:1"} {
			def.opened[0].in <- letter{"re", addr(from)}
			if got := <-c.out; got != (letter{"re", addr(from)}) {
				t.Errorf("answered %v, want it from %s", got, from)
			}
		}
		c.in <- letter{tooLarge, addr("192.0.2.9:1")}
		def.opened[0].in <- letter{tooLarge, addr("192.0.2.9:1")}
		synctest.Wait() // what is sent is counted after
		if n := g.Counters(); n.TooLarge != 2 || n.Joined[Kind{"udp", A, ""}] != 1 || n.Joined[Kind{"udp", B, ""}] != 1 || len(n.Live) != 1 || n.Down != 6 {
			t.Errorf("counters %+v", n)
		}
		if flows := g.Flows(); len(flows) != 1 || flows[0].Down != 6 || flows[0].Network != "udp" {
			t.Errorf("flows %+v", flows)
		}
		// Silence closes the ways out and not the association.
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if _, open := <-def.opened[0].closed; open {
			t.Error("still open")
		}
		c.in <- letter{"again", addr("192.0.2.9:1")}
		synctest.Wait()
		if len(def.opened) != 2 {
			t.Fatalf("%d sockets after a silence, want a second one", len(def.opened))
		}
		c.Close()
		<-done
		<-def.opened[1].closed
		if n := g.Counters(); len(n.Live) != 0 || len(g.Flows()) != 0 {
			t.Errorf("counters %+v", n)
		}
	})
}

// A client that is bound to one way out hears at once that this carries no
// datagrams.
func TestAssociationIsRefused(t *testing.T) {
	other := netip.MustParsePrefix("192.0.2.128/25")
	for _, tt := range []struct {
		what  string
		rules route.Rules
		want  error
	}{
		{"the default alone", nil, syscall.EOPNOTSUPP},
		{"a rule for all", route.Rules{{Outlet: "no"}}, syscall.EACCES},
		{"a rule for others", route.Rules{{Clients: []netip.Prefix{other}, Outlet: "post"}}, syscall.EOPNOTSUPP},
		{"a rule for TCP", route.Rules{{Network: "tcp", Outlet: "post"}}, syscall.EOPNOTSUPP},
		{"a rule for some ports", route.Rules{{Ports: []uint16{53}, Outlet: "post"}}, nil},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway(t, Config{}, Policy{Rules: tt.rules, Outlets: map[string]outlet.Outlet{"": &world{}, "post": &post{}, "no": outlet.Reject{}}})
				c := &clientMail{mail: newMail()}
				c.Close()
				g.ServeAssociation(t.Context(), Session{Network: "udp", Client: netip.MustParseAddrPort("192.0.2.2:1")}, c)
				if !errors.Is(c.refused, tt.want) {
					t.Errorf("refused with %v, want %v", c.refused, tt.want)
				}
			})
		})
	}
}

// A client that sends to ever new destinations costs no more than maxTargets.
func TestAssociationIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := &post{}
		g := newGateway(t, Config{}, Policy{Outlets: map[string]outlet.Outlet{"": def}})
		a := newAssociation(g, &flow{policy: g.Policy()})
		a.client = &clientMail{mail: newMail()}
		close(a.begun)
		remembered := func() int {
			a.mu.Lock()
			defer a.mu.Unlock()
			return len(a.targets)
		}
		for i := range 3 * maxTargets {
			a.egressTo(socks.Addr{Name: "slow.test", Port: uint16(i)}, datagram.Batch{Payload: []byte("x")})
		}
		if n := remembered(); n != maxOpening {
			t.Errorf("%d destinations wait", n)
		}
		for range 2 * maxQueue {
			a.egressTo(socks.Addr{Name: "slow.test", Port: 0}, datagram.Batch{Payload: []byte("x")})
		}
		a.mu.Lock()
		if n := len(a.targets[socks.Addr{Name: "slow.test"}].queue); n > maxQueue {
			t.Errorf("%d datagrams wait", n)
		}
		a.mu.Unlock()
		time.Sleep(2 * g.Policy().DialTimeout) // those find no way, and others may be looked for
		for i := range 2 * maxTargets {
			a.egressTo(socks.Addr{Name: "quick.test", Port: uint16(i + 1)}, datagram.Batch{Payload: []byte("x")})
			synctest.Wait()
			if len(def.opened) > 0 && len(def.opened[0].out) > 0 {
				<-def.opened[0].out
			}
		}
		if n := remembered(); n != maxTargets {
			t.Errorf("%d destinations", n)
		}
		a.close()
	})
}

// binding is a Binding in memory.
type binding struct{ conn net.Conn }

func (b binding) Addr() netip.AddrPort { return netip.MustParseAddrPort("[2001:db8::1]:7") }
func (b binding) Close() error         { return nil }
func (b binding) Accept(ctx context.Context) (net.Conn, netip.AddrPort, error) {
	if b.conn == nil {
		<-ctx.Done()
		return nil, netip.AddrPort{}, ctx.Err()
	}
	return b.conn, netip.MustParseAddrPort("[2001:db8::9]:9"), nil
}

type binder struct {
	world
	binding binding
}

func (b *binder) Bind(context.Context, socks.Addr) (outlet.Binding, error) { return b.binding, nil }

type pendingBind struct {
	*pending
	announced netip.AddrPort
}

func (p *pendingBind) Announce(bound netip.AddrPort) error {
	p.announced = bound
	return nil
}

func TestServeBind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		g := newGateway(t, Config{}, Policy{Outlets: map[string]outlet.Outlet{"": &binder{binding: binding{near}}}})
		p := &pendingBind{pending: newPending()}
		s := Session{Inlet: "socks", Network: "tcp", Client: netip.MustParseAddrPort("192.0.2.2:1"), Dest: addr("[2001:db8::9]:0")}
		go g.ServeBind(t.Context(), s, p)
		<-p.given
		if p.announced != (binding{}).Addr() || p.bound != netip.MustParseAddrPort("[2001:db8::9]:9") {
			t.Errorf("told %s and %s", p.announced, p.bound)
		}
		go far.Write([]byte("hi"))
		if _, err := io.ReadFull(p.client, make([]byte, 2)); err != nil {
			t.Error(err)
		}
		far.Close()
		p.client.Close()
		synctest.Wait()
		if c := g.Counters(); c.Joined[Kind{"tcp", B, ""}] != 1 || c.Down != 2 || len(c.Live) != 0 {
			t.Errorf("counters %+v", c)
		}
	})
}

func TestServeBindRefuses(t *testing.T) {
	for _, tt := range []struct {
		outlet outlet.Outlet
		rules  route.Rules
		want   error
	}{
		{&binder{}, nil, context.DeadlineExceeded},
		{&world{}, nil, syscall.EOPNOTSUPP},
		{outlet.Reject{}, nil, syscall.EACCES},
		{&binder{}, route.Rules{{Network: "bind", Outlet: "no"}}, syscall.EACCES},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway(t, Config{}, Policy{Outlets: map[string]outlet.Outlet{"": tt.outlet, "no": outlet.Reject{}}, Rules: tt.rules})
			p := &pendingBind{pending: newPending()}
			g.ServeBind(t.Context(), Session{Network: "tcp", Dest: addr("192.0.2.9:0")}, p)
			if !errors.Is(p.refused, tt.want) {
				t.Errorf("refused with %v, want %v", p.refused, tt.want)
			}
		})
	}
}

func TestQuota(t *testing.T) {
	q := newQuota()
	alice, guest := Session{User: "alice"}, Session{}
	alice.Client, guest.Client = netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1")
	take := func(s Session, want int) {
		t.Helper()
		n := 0
		for q.take(s, 6, 0) {
			n++
		}
		if n != want {
			t.Errorf("%v got %d flows, want %d", s.Client, n, want)
		}
	}
	take(alice, 4)
	other := alice
	other.Client = netip.MustParseAddrPort("192.0.2.3:1")
	take(other, 0) // the same user
	take(guest, 2)
	for range 4 {
		q.give(alice)
	}
	take(guest, 2)
	take(other, 2)
	for range 4 {
		q.give(guest)
	}
	for range 2 {
		q.give(other)
	}
	many := 0 // addresses of one host, perhaps
	for addr := netip.MustParseAddr("2001:db8::1"); addr != netip.MustParseAddr("2001:db8::9"); addr = addr.Next() {
		s := Session{Client: netip.AddrPortFrom(addr, 1)}
		if q.take(s, 6, 0) {
			many++
		}
	}
	if many != 4 {
		t.Errorf("one network got %d flows, want 4", many)
	}
	if q.taken != many || len(q.byClient) != many || len(q.byNetwork) != 1 || len(q.byUser) != 0 {
		t.Errorf("left: %+v", q)
	}
}

func TestServeTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := &world{}, newPending()
		g := newGateway(t, Config{Names: &names{name: "x.test"}}, Policy{Outlets: map[string]outlet.Outlet{"": w}, Flows: 1})
		go g.Serve(t.Context(), fakeSession, p)
		<-p.given
		late := newPending()
		g.Serve(t.Context(), fakeSession, late)
		if !errors.Is(late.refused, syscall.ENOBUFS) || g.Counters().OverLimit != 1 {
			t.Errorf("refused with %v", late.refused)
		}
		p.client.Close()
		w.far.Close()
		synctest.Wait()
		again := newPending()
		go g.Serve(t.Context(), fakeSession, again)
		<-again.given
		if again.refused != nil {
			t.Error(again.refused)
		}
		again.client.Close()
		w.far.Close()
	})
}

// TestQueueIsBounded has a client that sends to many names that nobody resolves.
func TestQueueIsBounded(t *testing.T) {
	a := &association{}
	var waiting []*target
	for range 100 {
		w := &target{}
		for range 2 * maxQueue {
			a.queueLocked(w, datagram.Batch{Payload: make([]byte, 1000)})
		}
		if len(w.queue) > maxQueue {
			t.Fatalf("%d datagrams wait for one destination", len(w.queue))
		}
		waiting = append(waiting, w)
	}
	if a.queued > maxQueued || a.queued < maxQueued-1000 {
		t.Errorf("%d octets wait, want nearly %d", a.queued, maxQueued)
	}
	taken := 0
	for _, w := range waiting {
		for _, b := range a.takeLocked(w) {
			taken += len(b.Payload)
		}
	}
	if a.queued != 0 || taken == 0 {
		t.Errorf("%d octets were taken, and %d still count", taken, a.queued)
	}
}
