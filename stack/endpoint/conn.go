package endpoint

import (
	"bytes"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// conn is what TCP and UDP connections share. Its addresses are those it was
// made with: netstack forgets them when an endpoint dies.
type conn struct {
	ep            tcpip.Endpoint
	local, remote net.Addr
	reads, writes direction
	closed        atomic.Bool
}

// direction is one way of a connection.
type direction struct {
	deadline
	mu    sync.Mutex    // held by the one call that may wait for ready
	entry waiter.Entry  // of ready
	ready chan struct{} // holds a token when a call that would block may do so no more
}

// init prepares c to wait for what ep notifies queue of.
func (c *conn) init(ep tcpip.Endpoint, queue *waiter.Queue, local, remote net.Addr) {
	c.ep, c.local, c.remote = ep, local, remote
	c.reads.init(queue, waiter.ReadableEvents)
	c.writes.init(queue, waiter.WritableEvents)
}

func (d *direction) init(queue *waiter.Queue, events waiter.EventMask) {
	d.entry, d.ready = waiter.NewChannelEntry(events | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&d.entry)
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetReadDeadline(t time.Time) error {
	c.reads.setDeadline(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writes.setDeadline(t)
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.reads.setDeadline(t)
	c.writes.setDeadline(t)
	return nil
}

func (d *direction) setDeadline(t time.Time) {
	if !d.set(t) {
		return
	}
	select {
	case d.ready <- struct{}{}: // has retry see the timer
	default: // it will
	}
}

// Close ends the connection and wakes blocked calls. Further calls do nothing.
func (c *conn) Close() error {
	if !c.closed.Swap(true) {
		c.ep.Close()
	}
	return nil
}

// read reads what is there, waiting for it until the read deadline. A
// tcpip.ErrClosedForReceive is returned as such: its meaning is the caller's.
func (c *conn) read(b []byte) (n int, terr tcpip.Error, err error) {
	return c.reads.retry(c, func() (int, tcpip.Error) { return c.readOnce(b) })
}

// readOnce reads what is there.
func (c *conn) readOnce(b []byte) (int, tcpip.Error) {
	into := tcpip.SliceWriter(b)
	res, terr := c.ep.Read(&into, tcpip.ReadOptions{})
	return res.Count, terr
}

// write hands b, or as much as there is room for, to the endpoint.
func (c *conn) write(b []byte) (n int, terr tcpip.Error, err error) {
	return c.writes.retry(c, func() (int, tcpip.Error) {
		n, terr := c.ep.Write(bytes.NewReader(b), tcpip.WriteOptions{})
		return int(n), terr
	})
}

// retry calls try until it would not block. An error that is not netstack's is
// os.ErrDeadlineExceeded or net.ErrClosed.
func (d *direction) retry(c *conn, try func() (int, tcpip.Error)) (int, tcpip.Error, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if d.passed() {
			return 0, nil, os.ErrDeadlineExceeded
		}
		n, terr := try()
		switch {
		case !wouldBlock(terr) && terr != nil && c.closed.Load():
			return 0, nil, net.ErrClosed
		case !wouldBlock(terr):
			return n, terr, nil
		}
		select {
		case <-d.ready:
		case <-d.wait():
			return 0, nil, os.ErrDeadlineExceeded
		}
	}
}

func wouldBlock(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrWouldBlock)
	return ok
}

func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.remote.Network(), Source: c.local, Addr: c.remote, Err: err}
}
