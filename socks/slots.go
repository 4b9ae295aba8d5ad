package socks

import (
	"net"
	"net/netip"
	"slices"
	"sync"
)

// slots bounds how many connections are in one stage of their life. When all
// are taken, a newcomer gets the oldest one of the source that has most: a
// flood of one source drowns itself and no other.
type slots struct {
	max int

	mu       sync.Mutex
	taken    int                       // guarded by mu
	bySource map[netip.Addr][]net.Conn // the oldest first, none empty; guarded by mu
}

func newSlots(max int) *slots {
	return &slots{max: max, bySource: make(map[netip.Addr][]net.Conn)}
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
	s.bySource[from] = append(s.bySource[from], conn)
	s.mu.Unlock()
	if victim != nil {
		if c, ok := victim.(interface{ SetLinger(int) error }); ok {
			c.SetLinger(0) // fails only on a closed connection
		}
		victim.Close()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.removeLocked(from, slices.Index(s.bySource[from], conn))
	}
}

func (s *slots) evictLocked() net.Conn {
	var greedy netip.Addr
	for ip, conns := range s.bySource {
		if len(conns) > len(s.bySource[greedy]) {
			greedy = ip
		}
	}
	victim := s.bySource[greedy][0]
	s.removeLocked(greedy, 0)
	return victim
}

// removeLocked frees a slot; i is negative when it was taken away before.
func (s *slots) removeLocked(from netip.Addr, i int) {
	if i < 0 {
		return
	}
	s.taken--
	if conns := slices.Delete(s.bySource[from], i, i+1); len(conns) > 0 {
		s.bySource[from] = conns
	} else {
		delete(s.bySource, from)
	}
}
