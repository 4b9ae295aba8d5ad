package socks

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// slots bounds how many connections are in one stage of their life. When all
// are taken, a newcomer gets the oldest one of the source that has most: a
// flood of one source drowns itself and no other. Of sources that have as many,
// it is the oldest of all: in a flood of many, who does not dawdle gets through.
type slots struct {
	max       int
	displaced *atomic.Uint64 // counts those who have lost their slots

	mu       sync.Mutex
	taken    int                   // guarded by mu
	count    uint64                // of connections that ever had a slot; guarded by mu
	bySource map[netip.Addr][]slot // the oldest first, none empty; guarded by mu
}

// slot is one that is taken.
type slot struct {
	conn   net.Conn
	number uint64 // those of older ones are smaller
}

func newSlots(max int, displaced *atomic.Uint64) *slots {
	return &slots{max: max, displaced: displaced, bySource: make(map[netip.Addr][]slot)}
}

// take gives conn a slot until give is called. It resets the connection that
// loses its slot for that.
func (s *slots) take(conn net.Conn) (give func()) {
	from := source(remote(conn).Addr())
	s.mu.Lock()
	var victim net.Conn
	if s.taken == s.max {
		victim = s.evictLocked()
	}
	s.taken++
	s.count++
	number := s.count
	s.bySource[from] = append(s.bySource[from], slot{conn, number})
	s.mu.Unlock()
	if victim != nil {
		s.displaced.Add(1)
		if c, ok := victim.(interface{ SetLinger(int) error }); ok {
			c.SetLinger(0) // fails only on a closed connection
		}
		victim.Close()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.removeLocked(from, slices.Index(s.bySource[from], slot{conn, number}))
	}
}

func (s *slots) evictLocked() net.Conn {
	var greedy netip.Addr
	var most []slot
	for ip, held := range s.bySource {
		if len(held) > len(most) || len(held) == len(most) && held[0].number < most[0].number {
			greedy, most = ip, held
		}
	}
	victim := most[0].conn
	s.removeLocked(greedy, 0)
	return victim
}

// removeLocked frees a slot; i is negative when it was taken away before.
func (s *slots) removeLocked(from netip.Addr, i int) {
	if i < 0 {
		return
	}
	s.taken--
	if left := slices.Delete(s.bySource[from], i, i+1); len(left) > 0 {
		s.bySource[from] = left
	} else {
		delete(s.bySource, from)
	}
}
