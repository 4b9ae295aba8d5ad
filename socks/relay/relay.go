package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits say how long a relay may carry nothing before it ends.
type Limits struct {
	Idle       time.Duration // both directions silent
	HalfClosed time.Duration // the open direction silent after the other has ended
}

// Counts are the payload bytes carried so far. They may be read meanwhile.
type Counts struct {
	Up   atomic.Int64 // client to far
	Down atomic.Int64 // far to client
}

// ErrIdle ends a relay that carried nothing for longer than its Limits.
var ErrIdle = errors.New("idle")

// keepAliveIdle is when TCP asks whether a silent far end still lives, before
// the timers of most NATs on the way forget it.
const keepAliveIdle = time.Minute

// pair is what the two directions of a relay share.
type pair struct {
	limits  Limits
	started time.Time
	failed  chan struct{} // closed when a direction has failed
	last    atomic.Int64  // when bytes last moved, nanoseconds since started
	ended   atomic.Int32  // directions that have come to their end
}

// Stream carries bytes between client and far until both have ended, and
// closes both. The end of one side's bytes is passed on by CloseWrite, while
// the other direction goes on. An error, ErrIdle and the end of ctx instead
// reset both sides, so that neither takes a part for the whole; the first such
// error is returned.
//
// Two sockets of the kernel splice. Other connections that offer io.ReaderFrom
// or io.WriterTo carry the bytes in their own way.
//
// Of far, once the session has lasted a moment, TCP asks whether it is still
// there (keepalive); of the client that is for who has accepted it.
func Stream(ctx context.Context, client, far net.Conn, limits Limits, counts *Counts) error {
	p := &pair{limits: limits, started: time.Now(), failed: make(chan struct{})}
	up := &direction{pair: p, src: client, dst: far, carried: &counts.Up}
	down := &direction{pair: p, src: far, dst: client, carried: &counts.Down, keep: true}
	return run(ctx, up, down)
}

// run runs both directions, and resets both at the first error or at the end
// of ctx.
func run(ctx context.Context, up, down *direction) error {
	var once sync.Once
	var first error
	abort := func(err error) {
		once.Do(func() {
			first = err
			close(up.failed)
			reset(up.src)
			reset(down.src)
		})
	}
	stop := context.AfterFunc(ctx, func() { abort(context.Cause(ctx)) })
	unwatch := up.watch(func() { abort(ErrIdle) })
	side := func(d *direction) error {
		err := d.stream()
		if err != nil && err != errAgain {
			abort(err)
		}
		return err
	}
	var wg sync.WaitGroup
	var goDown func()
	goDown = func() {
		if side(down) == errAgain {
			wg.Go(goDown)
		}
	}
	wg.Go(goDown)
	for side(up) == errAgain {
	}
	wg.Wait()
	unwatch()
	stop()
	once.Do(func() {
		up.src.Close()
		down.src.Close()
	})
	return first
}

// watch calls stalled when nothing has moved for twice the limit, until the
// returned function is called. A direction whose peer takes nothing waits in a
// write, which no read deadline wakes; where both do, or the other has ended,
// nobody else would notice.
func (p *pair) watch(stalled func()) (stop func()) {
	var mu sync.Mutex // guards timer and stopped
	var timer *time.Timer
	stopped := false
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(p.limits.HalfClosed, func() {
		stuck := p.silence() >= 2*p.limit()
		mu.Lock()
		if !stopped && !stuck {
			timer.Reset(p.limits.HalfClosed)
		}
		mu.Unlock()
		if stuck {
			stalled()
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// direction carries from src to dst.
type direction struct {
	*pair
	src, dst  net.Conn
	carried   *atomic.Int64
	keep      bool // src is to be kept alive, and is not yet
	suspected bool // of having nothing more to carry
}

// errAgain is no error: nothing has come for a while, and stream is to be called
// again. For what goes down that is done by a new goroutine: netstack needs 16 KiB
// of stack to send it, which the one that has done so would keep while it waits.
var errAgain = errors.New("again")

// stream copies until the end of src, or until errAgain. A read deadline wakes
// the copy now and then, as a splice gives no other sign of life. What the other
// direction has carried since it last woke is not yet known here, so it is woken
// too before silence is believed.
func (d *direction) stream() error {
	for {
		ended := d.ended.Load()
		wake := d.wake()
		if d.suspected {
			wake = time.Now().Add(time.Second)
		}
		if err := d.src.SetReadDeadline(wake); err != nil {
			return err
		}
		if d.ended.Load() != ended {
			continue // the other direction set an earlier deadline, now overwritten
		}
		err := d.copy()
		if err == nil {
			return d.end()
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		d.keepAlive()
		switch {
		case d.idle() && d.suspected:
			return ErrIdle
		case d.idle():
			d.suspected = true
			if err := d.dst.SetReadDeadline(time.Now()); err != nil {
				return err
			}
		default:
			d.suspected = false
			return errAgain
		}
	}
}

// keepAlive has src kept alive, if it is to be. Most sessions are over before,
// and never pay for it.
func (d *direction) keepAlive() {
	if c, ok := d.src.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok && d.keep {
		// Fails only on a connection that is already gone.
		c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Count: -1})
	}
	d.keep = false
}

// copy carries until the end of src, or until its read deadline.
func (d *direction) copy() error {
	in, out := rawConn(d.src), rawConn(d.dst)
	if in != nil && out != nil {
		return splice(in, out, d.moved)
	}
	n, err := d.copyOwn(in != nil)
	if n > 0 {
		d.moved(n)
	}
	return err
}

// copyOwn copies in the way of the connection that is no socket, if it has one.
// io.Copy comes to that too, where the other one is a socket by detours.
func (d *direction) copyOwn(fromSocket bool) (int64, error) {
	if to, ok := d.dst.(io.ReaderFrom); ok && fromSocket {
		return to.ReadFrom(d.src)
	}
	if src, ok := d.src.(interface{ Await() error }); ok {
		if err := src.Await(); err != nil {
			return 0, err
		}
		return aside(func() (int64, error) { return io.Copy(d.dst, d.src) })
	}
	return io.Copy(d.dst, d.src)
}

// aside runs f in a goroutine of its own: the stack that it takes is not kept by
// the caller, which waits most of the time.
func aside(f func() (int64, error)) (n int64, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err = f()
	}()
	<-done
	return n, err
}

// moved notes that n bytes have just been carried.
func (d *direction) moved(n int64) {
	d.carried.Add(n)
	d.last.Store(int64(time.Since(d.started)))
}

// grace is ample for a goroutine that has got an error to say so.
const grace = 100 * time.Millisecond

// end passes the end of src on to dst, and makes the other direction, which
// reads from dst, look at the shorter limit.
func (d *direction) end() error {
	d.moved(0)
	if d.ended.Load() == 0 && gone(d.src) {
		select {
		case <-d.failed: // by the reset that this end was
			return nil
		case <-time.After(grace):
		}
	}
	if d.ended.Add(1) == 2 {
		return nil
	}
	if err := d.dst.SetReadDeadline(d.wake()); err != nil {
		return err
	}
	w, ok := d.dst.(interface{ CloseWrite() error })
	if !ok {
		return d.dst.Close()
	}
	if err := w.CloseWrite(); !errors.Is(err, syscall.ENOTCONN) { // it has ended and gone
		return err
	}
	return nil
}

func (p *pair) limit() time.Duration {
	if p.ended.Load() > 0 {
		return p.limits.HalfClosed
	}
	return p.limits.Idle
}

// wake returns when to look again whether bytes have moved: soon where they
// do, so that the counts are fresh, and later and later where they do not.
func (p *pair) wake() time.Time {
	return time.Now().Add(min(p.limit()/2, max(time.Second, p.silence())))
}

func (p *pair) silence() time.Duration {
	return time.Since(p.started) - time.Duration(p.last.Load())
}

func (p *pair) idle() bool { return p.silence() >= p.limit() }

// reset closes c so that its peer sees an abort instead of an end.
func reset(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		l.SetLinger(0) // fails only on a connection that is already gone
	}
	c.Close()
}
