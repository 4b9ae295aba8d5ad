package relay

import (
	"context"
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
	// them waits.
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
	p := &pair{started: time.Now()}
	far.Forward(p.to(client, &counts.Down), client.Report)
	client.Forward(p.to(far, &counts.Up), far.Report)
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			left := idle - p.silence()
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

// to returns what sends on to a side, and counts.
func (p *pair) to(side Forwarder, carried *atomic.Int64) func(datagram.Batch) error {
	d := &direction{pair: p, carried: carried}
	return func(b datagram.Batch) error {
		err := side.Send(b)
		if err == nil {
			d.moved(int64(len(b.Payload)))
		}
		return err
	}
}
