package relay

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"sixgate/socks/datagram"
)

// Forwarder is a side of a flow of datagrams that hands over what comes in
// rather than wait to be read.
type Forwarder interface {
	// Send sends b. It never waits, and is done with the payload when it
	// returns.
	Send(b datagram.Batch) error
	// Forward makes the side call take with all that comes in, one call at a
	// time, and failed with what the network tells of what was sent. Neither of
	// them waits. After the end take returns net.ErrClosed, and has sent nothing.
	Forward(take func(datagram.Batch) error, failed func(error))
	// Report tells this side of what failed on the other.
	Report(err error)
	// Done is closed when nothing comes in any more.
	Done() <-chan struct{}
	Close() error
}

// Forward carries datagrams between client and far until nothing has moved for
// idle, one side is done or ctx ends, and closes both. Silence is how UDP ends,
// so it is no error.
func Forward(ctx context.Context, client, far Forwarder, idle time.Duration, counts *Counts) error {
	defer client.Close()
	defer far.Close()
	l := &liveliness{began: time.Now()}
	defer l.end()
	far.Forward(l.to(client, &counts.Down), client.Report)
	client.Forward(l.to(far, &counts.Up), far.Report)
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			left := l.left(idle)
			if left <= 0 {
				return nil
			}
			timer.Reset(left)
		case <-client.Done():
			return nil
		case <-far.Done():
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// liveliness is when something was last carried, in nanoseconds since the
// beginning, or that nothing will be: no datagram falls between the two.
type liveliness struct {
	began time.Time
	last  atomic.Int64 // ended: no more
}

const ended = -1

// to returns what sends on to a side, and counts.
func (l *liveliness) to(side Forwarder, carried *atomic.Int64) func(datagram.Batch) error {
	return func(b datagram.Batch) error {
		if !l.touch() {
			return net.ErrClosed
		}
		err := side.Send(b)
		if err == nil {
			carried.Add(int64(len(b.Payload)))
		}
		return err
	}
}

// touch is false after the end.
func (l *liveliness) touch() bool {
	for {
		last := l.last.Load()
		if last == ended {
			return false
		}
		if l.last.CompareAndSwap(last, int64(time.Since(l.began))) {
			return true
		}
	}
}

// left returns how long silence may go on yet. Where that is over, so is all.
func (l *liveliness) left(idle time.Duration) time.Duration {
	last := l.last.Load()
	left := idle - (time.Since(l.began) - time.Duration(last))
	if left <= 0 && !l.last.CompareAndSwap(last, ended) {
		return idle // something has just come
	}
	return left
}

func (l *liveliness) end() { l.last.Store(ended) }
