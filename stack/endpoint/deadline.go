package endpoint

import (
	"sync"
	"time"
)

// deadline is a point in time that may be moved while somebody waits for it.
type deadline struct {
	mu    sync.Mutex  // guards both fields
	at    time.Time   // zero: none
	timer *time.Timer // at that time; nil until there was one
}

// set moves the deadline to t; the zero Time means none. It reports whether who
// waits does not know of the timer yet.
func (d *deadline) set(t time.Time) (unknown bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	switch {
	case d.timer == nil && t.IsZero():
	case d.timer == nil:
		d.timer = time.NewTimer(time.Until(t))
		return true
	case t.IsZero():
		d.timer.Stop()
	default:
		d.timer.Reset(time.Until(t))
	}
	return false
}

// passed reports whether the time has come.
func (d *deadline) passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.at.IsZero() && !time.Now().Before(d.at)
}

// wait returns a channel of which something can be received when the time has
// come; nil is none.
func (d *deadline) wait() <-chan time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer == nil {
		return nil
	}
	return d.timer.C
}
