package stack

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Bounds of what waits in a flow until somebody reads it: a client that asks
// sends one datagram or a few, and again when no answer comes.
const (
	maxQueue  = 32
	maxQueued = 128 << 10 // bytes
)

// backlog bounds what waits in the queues of all flows, in bytes.
type backlog struct {
	mu    sync.Mutex
	quota quota // guarded by mu
}

func newBacklog(max int) *backlog { return &backlog{quota: newQuota(max, 0)} }

func (b *backlog) take(client netip.Addr, size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.quota.takeMany(client, size)
}

func (b *backlog) give(client netip.Addr, size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.quota.giveMany(client, size)
}

// datagramQueue is what has come in of a flow and waits, for as long as nobody
// takes it.
type datagramQueue struct {
	backlog *backlog
	client  netip.Addr

	done chan struct{}                         // closed with the flow
	take atomic.Pointer[func(Datagrams) error] // set once under mu, when nothing waits; nil before

	mu       sync.Mutex  // guards what follows
	ready    sync.Cond   // that one of these has changed
	waiting  []Datagrams // of one each
	size     int         // of the payloads that wait, in bytes
	closed   bool
	deadline time.Time
	alarm    *time.Timer // at deadline; may be nil
}

func (q *datagramQueue) init(all *backlog, client netip.Addr) {
	q.backlog, q.client, q.done, q.ready.L = all, client, make(chan struct{}), &q.mu
}

// forwards reports whether what comes in need not wait.
func (q *datagramQueue) forwards() bool { return q.take.Load() != nil }

// queue keeps a copy of the payload of d, as long as there is room. It is false
// where d need not wait, or comes too late.
func (q *datagramQueue) queue(d Datagrams) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.forwards() || q.closed {
		return false
	}
	each(d.Payload, d.Size, func(b []byte) {
		if len(q.waiting) == maxQueue || q.size+len(b) > maxQueued || !q.backlog.take(q.client, len(b)) {
			return
		}
		one := d
		one.Payload, one.Size = append([]byte(nil), b...), 0
		q.waiting = append(q.waiting, one)
		q.size += len(b)
		q.ready.Signal()
	})
	return true
}

// each calls f with each of the datagrams of size bytes in b, or with b if
// size is 0.
func each(b []byte, size int, f func([]byte)) {
	for size > 0 && len(b) > size {
		f(b[:size])
		b = b[size:]
	}
	f(b)
}

// first returns the payload that has waited for the longest time, if any.
func (q *datagramQueue) first() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil
	}
	return q.waiting[0].Payload
}

// next returns what has waited for the longest time, and waits for it.
func (q *datagramQueue) next() ([]byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		switch {
		case q.closed:
			return nil, net.ErrClosed
		case !q.deadline.IsZero() && !time.Now().Before(q.deadline):
			return nil, os.ErrDeadlineExceeded
		case len(q.waiting) > 0:
			b := q.waiting[0].Payload
			q.waiting = q.waiting[1:]
			q.releaseLocked(len(b))
			return b, nil
		}
		q.ready.Wait()
	}
}

// takeAll returns all that waits. If there is nothing, take gets what comes in
// from now on.
func (q *datagramQueue) takeAll(take func(Datagrams) error) []Datagrams {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := q.waiting
	q.waiting = nil
	q.releaseLocked(q.size)
	if len(waiting) == 0 {
		q.take.Store(&take)
	}
	return waiting
}

// releaseLocked makes room for as many bytes.
func (q *datagramQueue) releaseLocked(size int) {
	q.size -= size
	q.backlog.give(q.client, size)
}

// setDeadline is when next waits no longer.
func (q *datagramQueue) setDeadline(t time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.alarm != nil {
		q.alarm.Stop()
	}
	q.deadline, q.alarm = t, nil
	if wait := time.Until(t); !t.IsZero() && wait > 0 && !q.closed {
		q.alarm = time.AfterFunc(wait, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.ready.Broadcast()
		})
	}
	q.ready.Broadcast()
}

func (q *datagramQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed, q.waiting = true, nil
	q.releaseLocked(q.size)
	if q.alarm != nil {
		q.alarm.Stop()
	}
	close(q.done)
	q.ready.Broadcast()
}

// DatagramConn is the gateway's end of a flow: one datagram a call of Read or
// Write, or all that comes in to the function that Forward gets.
type DatagramConn struct{ flow *DatagramFlow }

func (c *DatagramConn) LocalAddr() net.Addr  { return net.UDPAddrFromAddrPort(c.flow.key.dest) }
func (c *DatagramConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.flow.key.client) }

func (c *DatagramConn) SetDeadline(t time.Time) error     { return c.SetReadDeadline(t) }
func (c *DatagramConn) SetWriteDeadline(time.Time) error  { return nil } // it never waits
func (c *DatagramConn) SetReadDeadline(t time.Time) error { c.flow.setDeadline(t); return nil }
func (c *DatagramConn) Close() error                      { c.flow.close(); return nil }
func (c *DatagramConn) Done() <-chan struct{}             { return c.flow.done }
func (c *DatagramConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.flow.Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Read reads one datagram; what does not fit into b is lost.
func (c *DatagramConn) Read(b []byte) (int, error) {
	payload, err := c.flow.next()
	if err != nil {
		return 0, c.opError("read", err)
	}
	return copy(b, payload), nil
}

// Write sends b as one datagram.
func (c *DatagramConn) Write(b []byte) (int, error) {
	if err := c.Send(Datagrams{Payload: b, TTL: defaultTTL}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Send sends d to the client. It never waits.
func (c *DatagramConn) Send(d Datagrams) error {
	f := c.flow
	select {
	case <-f.done:
		return c.opError("write", net.ErrClosed)
	default:
	}
	if !f.replied.Swap(true) {
		f.side.answered(f)
	}
	if err := f.send(d); err != nil {
		return c.opError("write", err)
	}
	return nil
}

// Forward makes the flow call take with all that comes in from now on, after
// what waits, rather than keep it for Read. take must not block, and has copied
// what it needs of the payload when it returns. Where it returns net.ErrClosed
// the flow has ended, and a new one begins with what it did not take.
func (c *DatagramConn) Forward(take func(Datagrams) error) {
	f := c.flow
	for {
		waiting := f.takeAll(take)
		if len(waiting) == 0 {
			return
		}
		for _, d := range waiting {
			if err := take(d); err != nil && !isCongestion(err) {
				f.report(err, d.Payload)
			}
		}
	}
}

// Report tells the client of what became of a datagram, by ICMP. The start of
// its payload is in err, if it is known.
func (c *DatagramConn) Report(err error) {
	var p pathError
	if errors.As(err, &p) {
		c.flow.report(err, p.Quoted())
	} else {
		c.flow.report(err, nil)
	}
}

// isCongestion reports whether err tells of a lack of room on the way out.
func isCongestion(err error) bool {
	return errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, net.ErrClosed)
}
