package outlet

import (
	"bytes"
	"net/netip"
	"time"

	"sixgate/socks/datagram"
)

const (
	// maxStrangers is how many hosts a port has at a time to which its client has
	// sent nothing.
	maxStrangers = 16
	// maxStrange is how many octets of a stranger wait for the client, and
	// maxStrangeCount in how many datagrams.
	maxStrange      = 4096
	maxStrangeCount = 8
	// strangerTime is how long the client has to answer one.
	strangerTime = 30 * time.Second
)

// stranger is a host that sends a client what it has not asked for.
type stranger struct {
	waiting []datagram.Batch // guarded by the port's mu, like size
	size    int              // of the payloads that wait, in octets
	over    *time.Timer
}

// meet keeps what comes from a stranger until the client can have it. A port
// that only strangers use has nobody who waits for them.
func (o *port) meet(b datagram.Batch, from netip.AddrPort) {
	if o.ports.Meet != nil && o.keep(b, from) && !o.ports.Meet(o.client, from) {
		o.know(from)
	}
}

// keep reports whether b is the first that comes from there.
func (o *port) keep(b datagram.Batch, from netip.AddrPort) (first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.strangers[from]
	if s == nil {
		if len(o.strangers) == maxStrangers || o.unknownLocked() == len(o.peers) {
			return false
		}
		if o.strangers == nil {
			o.strangers = make(map[netip.AddrPort]*stranger)
		}
		s = &stranger{}
		s.over = time.AfterFunc(strangerTime, func() { o.part(from, s) })
		o.strangers[from], first = s, true
	}
	for one := range b.Each {
		if s.size+len(one.Payload) <= maxStrange && len(s.waiting) < maxStrangeCount {
			one.Payload = bytes.Clone(one.Payload)
			s.waiting = append(s.waiting, one)
			s.size += len(one.Payload)
		}
	}
	return first
}

// heard reports whether there is a stranger at an address.
func (o *port) heard(at netip.AddrPort) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.strangers[at] != nil
}

// unknownLocked returns how many of the peers are strangers.
func (o *port) unknownLocked() (n int) {
	for at := range o.strangers {
		if o.peers[at] != nil {
			n++
		}
	}
	return n
}

// waiting returns what waits of s, which may be nil, and lets go of it.
func (o *port) waiting(s *stranger) []datagram.Batch {
	if s == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	all := s.waiting
	s.waiting, s.size = nil, 0
	return all
}

// know makes the host at an address none of the strangers.
func (o *port) know(at netip.AddrPort) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.knowLocked(at)
}

func (o *port) knowLocked(at netip.AddrPort) {
	if s := o.strangers[at]; s != nil {
		s.over.Stop()
		delete(o.strangers, at)
	}
}

// part ends what there is with s, whom the client has not answered.
func (o *port) part(from netip.AddrPort, s *stranger) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.strangers[from] != s {
		return // answered at the last moment
	}
	delete(o.strangers, from)
	if p := o.peers[from]; p != nil {
		p.end()
	}
}
