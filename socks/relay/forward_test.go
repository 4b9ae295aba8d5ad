package relay

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sixgate/socks/datagram"
)

// forwarded is a Forwarder whose other end is the test.
type forwarded struct {
	take     func(datagram.Batch) error
	failed   func(error)
	sent     []datagram.Batch
	reported []error
	refuse   error // of Send
	done     chan struct{}
	once     sync.Once
}

func (f *forwarded) Forward(take func(datagram.Batch) error, failed func(error)) {
	f.take, f.failed = take, failed
}
func (f *forwarded) Send(b datagram.Batch) error {
	if f.refuse == nil {
		f.sent = append(f.sent, b)
	}
	return f.refuse
}
func (f *forwarded) Report(err error)      { f.reported = append(f.reported, err) }
func (f *forwarded) Done() <-chan struct{} { return f.done }
func (f *forwarded) Close() error          { f.once.Do(func() { close(f.done) }); return nil }

func TestForward(t *testing.T) {
	why := errors.New("why")
	for name, tt := range map[string]struct {
		end  func(cancel context.CancelCauseFunc, client, far *forwarded)
		want error
	}{
		"silence":    {func(context.CancelCauseFunc, *forwarded, *forwarded) { time.Sleep(time.Hour) }, nil},
		"the client": {func(_ context.CancelCauseFunc, client, _ *forwarded) { client.Close() }, nil},
		"the far":    {func(_ context.CancelCauseFunc, _, far *forwarded) { far.Close() }, nil},
		"the owner":  {func(cancel context.CancelCauseFunc, _, _ *forwarded) { cancel(why) }, why},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				client, far := &forwarded{done: make(chan struct{})}, &forwarded{done: make(chan struct{})}
				var counts Counts
				ended := make(chan error, 1)
				go func() { ended <- Forward(ctx, client, far, time.Minute, &counts) }()
				synctest.Wait()
				for range 5 { // longer than it may be silent
					time.Sleep(40 * time.Second)
					client.take(datagram.Batch{Payload: []byte("up")})
				}
				far.take(datagram.Batch{Payload: []byte("down!")})
				far.failed(why)
				far.refuse = why
				if err := client.take(datagram.Batch{Payload: []byte("lost")}); err != why {
					t.Errorf("refused with %v", err)
				}
				if len(far.sent) != 5 || len(client.sent) != 1 || counts.Up.Load() != 10 || counts.Down.Load() != 5 {
					t.Errorf("%d up and %d down, %d and %d bytes", len(far.sent), len(client.sent), counts.Up.Load(), counts.Down.Load())
				}
				if len(client.reported) != 1 || client.reported[0] != why {
					t.Errorf("the client heard %v", client.reported)
				}
				tt.end(cancel, client, far)
				if err := <-ended; err != tt.want {
					t.Errorf("ended with %v, want %v", err, tt.want)
				}
				<-client.done
				<-far.done
				far.refuse = nil
				if err := client.take(datagram.Batch{Payload: []byte("late")}); err != net.ErrClosed || len(far.sent) != 5 {
					t.Errorf("after the end: %v, %d sent", err, len(far.sent))
				}
			})
		})
	}
}
