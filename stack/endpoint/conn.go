package endpoint

import (
	"bytes"
	"net"
	"os"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// conn is what TCP and UDP connections share. Its addresses are those it was
// made with: netstack forgets them when an endpoint dies.
type conn struct {
	ep            tcpip.Endpoint
	queue         *waiter.Queue // what ep notifies
	local, remote net.Addr
	reads, writes deadline
	closed        atomic.Bool
}

// errorEvents end a wait for data or for room, too.
const errorEvents = waiter.EventErr | waiter.EventHUp

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetReadDeadline(t time.Time) error {
	c.reads.set(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writes.set(t)
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.reads.set(t)
	c.writes.set(t)
	return nil
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
	return c.retry(&c.reads, waiter.ReadableEvents, func() (int, tcpip.Error) {
		w := tcpip.SliceWriter(b)
		res, terr := c.ep.Read(&w, tcpip.ReadOptions{})
		return res.Count, terr
	})
}

// write hands b, or as much as there is room for, to the endpoint.
func (c *conn) write(b []byte) (n int, terr tcpip.Error, err error) {
	return c.retry(&c.writes, waiter.WritableEvents, func() (int, tcpip.Error) {
		n, terr := c.ep.Write(bytes.NewReader(b), tcpip.WriteOptions{})
		return int(n), terr
	})
}

// retry calls try until it would not block. An error that is not netstack's is
// os.ErrDeadlineExceeded or net.ErrClosed.
func (c *conn) retry(by *deadline, events waiter.EventMask, try func() (int, tcpip.Error)) (int, tcpip.Error, error) {
	over := by.wait()
	if isClosed(over) {
		return 0, nil, os.ErrDeadlineExceeded
	}
	n, terr := try()
	if wouldBlock(terr) {
		entry, ready := waiter.NewChannelEntry(events | errorEvents)
		c.queue.EventRegister(&entry)
		defer c.queue.EventUnregister(&entry)
		for n, terr = try(); wouldBlock(terr); n, terr = try() {
			select {
			case <-ready:
			case <-over:
				return 0, nil, os.ErrDeadlineExceeded
			}
		}
	}
	if terr != nil && c.closed.Load() {
		return 0, nil, net.ErrClosed
	}
	return n, terr, nil
}

func wouldBlock(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrWouldBlock)
	return ok
}

func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.remote.Network(), Source: c.local, Addr: c.remote, Err: err}
}
