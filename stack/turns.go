package stack

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// maxStarting is how many flows of one client start at a time. Each takes a
	// processor for some 0.2 ms, and while dozens of them queue for it, so do
	// the packets of all others.
	maxStarting = 8
	// startTime is how long a flow that starts keeps others from it. One that
	// takes longer mostly waits for the network, as for a slow hop of a chain, and
	// takes no processor. On a machine so busy that it does not, no more than 160
	// a second begin beside it.
	startTime = 50 * time.Millisecond
)

// turns has the flows of each client start a few at a time, in their order.
type turns struct {
	start func(*DatagramFlow) // does not wait

	mu    sync.Mutex
	lines map[netip.Addr]*line // of clients with flows that start; guarded by mu, and so is what they hold
}

// line is one client's.
type line struct {
	starting int
	waiting  []*DatagramFlow // some may be closed
}

func newTurns(start func(*DatagramFlow)) *turns {
	return &turns{start: start, lines: make(map[netip.Addr]*line)}
}

// join starts f, now or when it is its turn.
func (t *turns) join(f *DatagramFlow) {
	if t.queue(f) {
		t.begin(f)
	}
}

// queue reports whether f may start now.
func (t *turns) queue(f *DatagramFlow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	client := f.key.client.Addr()
	l := t.lines[client]
	if l == nil {
		l = &line{}
		t.lines[client] = l
	}
	if l.starting == maxStarting {
		l.waiting = append(l.waiting, f)
		return false
	}
	l.starting++
	f.starting = true
	return true
}

// busy reports whether another flow of client would have to wait.
func (t *turns) busy(client netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[client]
	return l != nil && l.starting == maxStarting
}

func (t *turns) begin(f *DatagramFlow) {
	time.AfterFunc(startTime, func() { t.leave(f) })
	t.start(f)
}

// leave is the end of f's starting, if it has not ended yet, and another's turn.
func (t *turns) leave(f *DatagramFlow) {
	if next := t.next(f); next != nil {
		t.begin(next)
	}
}

// next returns the flow that starts in the place of f, or nil.
func (t *turns) next(f *DatagramFlow) *DatagramFlow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !f.starting {
		return nil
	}
	f.starting = false
	client := f.key.client.Addr()
	l := t.lines[client]
	for len(l.waiting) > 0 {
		next := l.waiting[0]
		l.waiting[0], l.waiting = nil, l.waiting[1:]
		select {
		case <-next.done:
		default:
			next.starting = true
			return next
		}
	}
	if l.starting--; l.starting == 0 {
		delete(t.lines, client)
	}
	return nil
}
