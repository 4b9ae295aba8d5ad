package endpoint

import (
	"sync"
	"time"
)

// deadline is a point in time that wakes whoever waits for it, and may be
// moved meanwhile.
type deadline struct {
	mu    sync.Mutex    // guards both fields
	timer *time.Timer   // nil when none runs
	over  chan struct{} // closed when the time has come
}

// set moves the deadline to t; the zero Time means none. A waiter that the old
// deadline has woken stays woken.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fired := d.timer != nil && !d.timer.Stop()
	if fired || isClosed(d.over) {
		d.over = make(chan struct{})
	}
	d.timer = nil
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		close(d.over)
		return
	}
	over := d.over // the timer may fire while the next set replaces d.over
	d.timer = time.AfterFunc(wait, func() { close(over) })
}

// wait returns a channel that is closed when the time has come.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
