package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sixgate/socks"
	"sixgate/socks/datagram"
	"sixgate/socks/outlet"
)

const (
	// maxTargets bounds the destinations that an association remembers, and
	// maxOpening those among them whose way is being looked for.
	maxTargets = 1024
	maxOpening = 64
	// maxQueue bounds the datagrams that wait for the way to a destination: a
	// client that asks sends one or a few, and again when no answer comes.
	maxQueue = 16
	// maxQueued bounds the octets of all that waits in an association.
	maxQueued = 256 << 10
	// refusedTime is how long a destination without a way is not tried again.
	refusedTime = 5 * time.Second
)

// PendingAssociation is a relay of datagrams that a client has asked for and
// not yet been given: a SOCKS UDP ASSOCIATE. Refuse may follow an Associate
// that went wrong.
type PendingAssociation interface {
	Associate() (Association, error)
	Refuse(err error)
}

// Association is the client's side of a relay of datagrams.
type Association interface {
	// Forward makes it call take with what the client sends, and where that is to
	// go, one call at a time. take never waits, and is done with the payload when
	// it returns.
	Forward(take func(b datagram.Batch, dest socks.Addr))
	// Send sends the client what came from the address from, and never waits.
	Send(b datagram.Batch, from socks.Addr) error
	// Done is closed when nothing comes from the client any more.
	Done() <-chan struct{}
	// Close ends the association.
	Close() error
}

// ServeAssociation relays datagrams between a client and as many destinations
// as it likes, each by the outlet that the rules give it, until the client or
// Shutdown ends it. To all destinations that share an outlet the client is one
// address. Where all are bound to, the client is refused if that carries no
// datagrams; ctx bounds finding out.
func (g *Gateway) ServeAssociation(ctx context.Context, s Session, p PendingAssociation) {
	f, err := g.begin(s)
	if err != nil {
		p.Refuse(err)
		return
	}
	a := newAssociation(g, f)
	if err = a.prepare(ctx); err == nil {
		a.client, err = p.Associate()
	}
	if err == nil {
		a.run()
	} else {
		p.Refuse(err)
	}
	a.close()
	g.end(f, err)
}

// association is a relay under way.
type association struct {
	gateway *Gateway
	flow    *flow
	client  Association // stands once begun is closed
	begun   chan struct{}
	ctx     context.Context // of what it waits for, and of all egresses
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu       sync.Mutex
	over     bool                   // nothing begins any more; guarded by mu
	targets  map[socks.Addr]*target // guarded by mu
	egresses map[string]*egress     // by outlet, guarded by mu
	opening  int                    // targets that are being opened; guarded by mu
	queued   int                    // octets in all queues; guarded by mu
	families [2]bool                // that have answered: IPv4, IPv6; guarded by mu
}

// target is a destination.
type target struct {
	egress  *egress          // nil: none yet
	queue   []datagram.Batch // what waits for it
	refused time.Time        // there is none, until then; zero: it is being opened
}

// egress is one way out, with one address to all destinations.
type egress struct {
	outlet string
	opened chan struct{} // closed when conn and err stand
	conn   outlet.PacketConn
	err    error
	born   time.Time
	last   atomic.Int64 // when it last carried something, nanoseconds since born
}

func (e *egress) touch() { e.last.Store(int64(time.Since(e.born))) }

// touched returns when e was last touched, by the clock that nobody sets.
func (e *egress) touched() time.Time { return e.born.Add(time.Duration(e.last.Load())) }

func newAssociation(g *Gateway, f *flow) *association {
	a := &association{gateway: g, flow: f, begun: make(chan struct{}), targets: map[socks.Addr]*target{}, egresses: map[string]*egress{}}
	a.ctx, a.cancel = context.WithCancel(g.datagrams)
	return a
}

// prepare opens the way out where the rules leave no choice.
func (a *association) prepare(ctx context.Context) error {
	names := a.flow.policy.Rules.Outlets(a.flow.to(socks.Addr{}))
	if len(names) > 1 {
		return nil // the destination decides
	}
	ctx, done, err := a.gateway.dialling(ctx, a.flow)
	if err != nil {
		return err
	}
	defer done()
	_, err = a.egress(ctx, a.gateway.limit(a.flow, names[0]))
	return err
}

func (a *association) close() {
	a.mu.Lock()
	a.over = true // the client's last datagrams may be under way
	a.mu.Unlock()
	a.cancel() // closes all egresses
	a.workers.Wait()
}

func (a *association) run() {
	close(a.begun)
	defer a.client.Close()
	a.client.Forward(a.ask)
	select {
	case <-a.client.Done():
	case <-a.ctx.Done():
	}
}

// ask carries what the client sends.
func (a *association) ask(b datagram.Batch, dest socks.Addr) {
	a.flow.moved.Up.Add(int64(len(b.Payload)))
	if e := a.egressTo(dest, b); e != nil && a.send(e, b, dest) != nil {
		a.forgetTarget(dest, e) // the next datagram looks for a way again
	}
}

// egressTo returns the way to dest if it is open. Otherwise it sees to it that
// a copy of b goes there when there is one, or drops b.
func (a *association) egressTo(dest socks.Addr, b datagram.Batch) *egress {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.targets[dest]
	switch {
	case a.over:
	case t != nil && t.egress != nil:
		return t.egress
	case t != nil && t.refused.IsZero():
		a.queueLocked(t, b)
	case t != nil && time.Now().Before(t.refused):
	case a.opening < maxOpening && (t != nil || a.makeRoomLocked()):
		t = &target{}
		a.targets[dest] = t
		a.queueLocked(t, b)
		a.opening++
		a.workers.Go(func() { a.open(t, dest) })
	}
	return nil
}

// queueLocked keeps a copy of b until t is open, unless too much waits already.
func (a *association) queueLocked(t *target, b datagram.Batch) {
	if len(t.queue) < maxQueue && a.queued+len(b.Payload) <= maxQueued {
		b.Payload = bytes.Clone(b.Payload)
		t.queue = append(t.queue, b)
		a.queued += len(b.Payload)
	}
}

// takeLocked returns what waits for t, which waits no more.
func (a *association) takeLocked(t *target) []datagram.Batch {
	queue := t.queue
	t.queue = nil
	for _, b := range queue {
		a.queued -= len(b.Payload)
	}
	return queue
}

// forgetTarget makes the next datagram to dest look for a way, if e is the one.
func (a *association) forgetTarget(dest socks.Addr, e *egress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.targets[dest]; t != nil && t.egress == e {
		delete(a.targets, dest)
	}
}

// makeRoomLocked forgets a target if there are too many, but none that is
// being opened: so there are no more goroutines than that count.
func (a *association) makeRoomLocked() bool {
	if len(a.targets) < maxTargets {
		return true
	}
	for dest, t := range a.targets {
		if t.egress != nil || !t.refused.IsZero() {
			delete(a.targets, dest)
			return true
		}
	}
	return false
}

// open finds the way to dest, and sends what waits for it. The first datagram
// may have to wait for a look-up; no other destination waits for that.
func (a *association) open(t *target, dest socks.Addr) {
	err := a.openWay(t, dest)
	if err != nil {
		a.gateway.Logger.Debug("no way for datagrams", "client", a.flow.Client, "dest", dest, "err", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opening--
	if err != nil {
		a.takeLocked(t)
		t.refused = time.Now().Add(refusedTime)
	}
}

func (a *association) openWay(t *target, dest socks.Addr) error {
	ctx, done, err := a.gateway.dialling(a.ctx, a.flow)
	if err != nil {
		return err
	}
	defer done()
	e, err := a.egress(ctx, a.gateway.pick(ctx, a.flow, dest))
	if err != nil {
		return err
	}
	if err := e.conn.Find(ctx, dest); err != nil {
		return err
	}
	for {
		a.mu.Lock()
		queue := a.takeLocked(t)
		if len(queue) == 0 {
			t.egress = e
			a.mu.Unlock()
			return nil
		}
		a.mu.Unlock()
		for _, b := range queue {
			if err := a.send(e, b, dest); err != nil {
				return err
			}
		}
	}
}

// send sends b. That it is too large, or more than there is room for now, is no
// error.
func (a *association) send(e *egress, b datagram.Batch, dest socks.Addr) error {
	e.touch()
	err := a.fits(b, e.conn.Send(b, dest))
	for _, lost := range []error{syscall.EMSGSIZE, syscall.EAGAIN, syscall.ENOBUFS} {
		if errors.Is(err, lost) {
			return nil
		}
	}
	return err
}

// fits returns err, the outcome of sending b, and counts if that was too large.
func (a *association) fits(b datagram.Batch, err error) error {
	if errors.Is(err, syscall.EMSGSIZE) {
		a.gateway.tooLarge.Add(uint64(b.Count()))
	}
	return err
}

// egress returns the way out by an outlet, one for all who ask.
func (a *association) egress(ctx context.Context, by picked) (*egress, error) {
	name := by.name
	a.mu.Lock()
	e, shared := a.egresses[name]
	if !shared {
		e = &egress{outlet: name, opened: make(chan struct{}), born: time.Now()}
		a.egresses[name] = e
	}
	a.mu.Unlock()
	if shared {
		select {
		case <-e.opened:
			return e, e.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer close(e.opened)
	if out, ok := by.Outlet.(outlet.PacketOutlet); ok {
		e.conn, e.err = out.ListenPacket(ctx)
	} else {
		e.err = fmt.Errorf("sending datagrams by outlet %q: %w", name, syscall.EOPNOTSUPP)
	}
	if e.err != nil {
		a.forget(name, e)
		return nil, e.err
	}
	a.flow.note(func(w *way) { w.outlet = name })
	e.touch()
	e.conn.Forward(func(b datagram.Batch, from socks.Addr) { a.answer(e, b, from) })
	a.workers.Go(func() {
		a.watch(e)
		a.forget(name, e)
	})
	return e, nil
}

// forget makes the next datagrams by e open another.
func (a *association) forget(name string, e *egress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.egresses[name] == e {
		delete(a.egresses, name)
	}
	for dest, t := range a.targets {
		if t.egress == e {
			delete(a.targets, dest)
		}
	}
}

// answer carries what comes by e to the client. Nothing is asked before begun
// is closed.
func (a *association) answer(e *egress, b datagram.Batch, from socks.Addr) {
	select {
	case <-a.begun:
	default:
		return
	}
	e.touch()
	a.heard(from.IP, e.outlet)
	if a.fits(b, a.client.Send(b, from)) == nil {
		a.flow.moved.Down.Add(int64(len(b.Payload)))
	}
}

// watch closes e when it has been silent for too long, or is not needed.
func (a *association) watch(e *egress) {
	defer e.conn.Close()
	idle := a.flow.policy.UDPIdle
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			left := idle - time.Since(e.touched())
			if left <= 0 {
				return
			}
			timer.Reset(left)
		case <-e.conn.Done():
			return
		case <-a.ctx.Done():
			return
		}
	}
}

// heard counts the association once by the family of a peer that answers.
func (a *association) heard(from netip.Addr, outlet string) {
	family := 0
	if from.Is6() {
		family = 1
	}
	a.mu.Lock()
	first := !a.families[family]
	a.families[family] = true
	a.mu.Unlock()
	if first {
		a.gateway.join(a.flow, from, outlet)
	}
}
