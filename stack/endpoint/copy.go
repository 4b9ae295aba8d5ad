package endpoint

import (
	"io"
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Buffers for what WriteTo carries at once: little, as of what people type and
// programs ask, and two packets of the longest.
var (
	fews  = newBuffers(16 << 10)
	manys = newBuffers(128 << 10)
)

// buffers are of one size, in bytes.
type buffers struct {
	sync.Pool // of *[]byte
	size      int
}

func newBuffers(size int) *buffers {
	return &buffers{sync.Pool{New: func() any {
		b := make([]byte, size)
		return &b
	}}, size}
}

// WriteTo writes what arrives to w until the end. While nothing arrives it
// holds no memory.
func (c *TCP) WriteTo(w io.Writer) (int64, error) {
	var carried int64
	room := fews
	if to, ok := newSink(w); ok {
		w = to
	}
	for {
		n, err := c.pass(w, room)
		carried += int64(n)
		if err == io.EOF {
			return carried, nil
		}
		if err != nil {
			return carried, err
		}
		if n == fews.size {
			room = manys // from now on, as it may be a large transfer
		}
	}
}

// pass waits for data and writes what is there, or room takes, to w.
func (c *TCP) pass(w io.Writer, room *buffers) (int, error) {
	if err := c.Await(); err != nil {
		return 0, err
	}
	b := room.Get().(*[]byte)
	defer room.Put(b)
	n, terr := c.readOnce(*b)
	switch {
	case wouldBlock(terr): // somebody else has read, too
		return 0, nil
	case terr != nil && c.closed.Load():
		return 0, c.opError("read", net.ErrClosed)
	case terr != nil:
		return 0, c.readError(terr)
	}
	c.ep.ModerateRecvBuf(n)
	return w.Write((*b)[:n])
}

// Await waits until there are data, the end or an error to read, or until the
// read deadline. It takes less stack than to read.
func (c *TCP) Await() error {
	_, _, err := c.reads.retry(&c.conn, func() (int, tcpip.Error) {
		if c.ep.Readiness(waiter.ReadableEvents) == 0 {
			return 0, &tcpip.ErrWouldBlock{}
		}
		return 0, nil
	})
	if err != nil {
		return c.opError("read", err)
	}
	return nil
}

// ReadFrom writes what r reads until its end. Where r is a stream socket of
// the kernel, it holds no memory while nothing arrives.
func (c *TCP) ReadFrom(r io.Reader) (int64, error) {
	from, ok := newSocket(r)
	if !ok {
		return io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{r})
	}
	var carried int64
	for {
		if err := from.await(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return carried, err
		}
		for from.Len() > 0 {
			n, terr, err := c.writes.retry(&c.conn, func() (int, tcpip.Error) {
				n, terr := c.ep.Write(from, tcpip.WriteOptions{})
				return int(n), terr
			})
			carried += int64(n)
			switch {
			case from.err != nil:
				return carried, from.err
			case terr != nil:
				err = Errno(terr)
			}
			if err != nil {
				return carried, c.opError("write", err)
			}
		}
	}
}
