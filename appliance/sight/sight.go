package sight

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"sixgate/socks"
	"sixgate/socks/gateway"
)

// Sight is told of flows and answers, and is asked about them. Its methods may
// be called from many goroutines.
type Sight struct {
	Connects *Delays // dials, until connected
	Answers  *Delays // of DNS, of those that were not at hand
	now      func() time.Time

	mu      sync.Mutex // guards what follows
	clients clients
	dials   map[Dial]uint64
}

// New returns a Sight that has seen nothing. now may be nil: time.Now.
func New(now func() time.Time) *Sight {
	if now == nil {
		now = time.Now
	}
	return &Sight{Connects: newDelays(), Answers: newDelays(), now: now, clients: newClients(), dials: make(map[Dial]uint64)}
}

// Dial is what dials are counted by.
type Dial struct {
	Outlet string // "" is the default
	Result string // Connected, or an errno in words
}

// Connected is the result of a dial that went well.
const Connected = "connected"

// Dialled takes note of a dial.
func (s *Sight) Dialled(f gateway.Flow, took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.dials[Dial{f.Outlet, reason(err)}]++
		return
	}
	s.Connects.add(took)
	s.dials[Dial{f.Outlet, Connected}]++
	c := s.clients.get(f.Client.Addr(), s.now())
	c.name(f.Real.Host())
	if len(c.Failures) > 0 {
		c.clear(attempt(f))
	}
}

// Ended takes note of a flow that is over.
func (s *Sight) Ended(f gateway.Flow, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	c := s.clients.get(f.Client.Addr(), now)
	c.Up += uint64(f.Up)
	c.Down += uint64(f.Down)
	switch {
	case f.Type != 0:
		c.Joined[f.Type.String()]++
	case err != nil:
		c.fail(attempt(f), err.Error(), now)
	}
}

// attempt is what a flow was about.
func attempt(f gateway.Flow) string {
	dest := f.Real
	if !dest.IsValid() {
		dest = f.Dest
	}
	return f.Network + " " + f.Text(dest)
}

// Answered takes note of an answer of the DNS server to a question such as
// "a.example A". why is what the client was told of a failure; "" is none.
func (s *Sight) Answered(client netip.Addr, question, why string, took time.Duration) {
	s.Answers.add(took)
	s.mu.Lock()
	defer s.mu.Unlock()
	if what := "DNS " + question; why != "" {
		s.clients.get(client, s.now()).fail(what, why, s.now())
	} else if e, ok := s.clients.known[client]; ok {
		e.Value.(*Client).clear(what)
	}
}

// reason returns why in words of which there are few: those of errnos.
func reason(why error) string {
	var errno syscall.Errno
	errors.As(socks.WithErrno(why), &errno)
	return errno.Error()
}

// Dials returns how often dials ended how.
func (s *Sight) Dials() map[Dial]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.dials)
}

// Clients returns the clients that were seen last, the last one first, with what
// their flows that live have moved so far.
func (s *Sight) Clients(live []gateway.Flow) []Client {
	type share struct {
		flows    int
		up, down uint64
		joined   map[gateway.Type]uint64
	}
	shares := make(map[netip.Addr]*share)
	for _, f := range live {
		addr := f.Client.Addr().Unmap().WithZone("")
		if shares[addr] == nil {
			shares[addr] = &share{joined: make(map[gateway.Type]uint64)}
		}
		one := shares[addr]
		one.flows++
		one.up += uint64(f.Up)
		one.down += uint64(f.Down)
		if f.Type != 0 {
			one.joined[f.Type]++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []Client{}
	for e := s.clients.recent.Front(); e != nil; e = e.Next() {
		c := *e.Value.(*Client)
		c.Joined, c.Names, c.Failures = maps.Clone(c.Joined), slices.Clone(c.Names), slices.Clone(c.Failures)
		if one := shares[c.Addr]; one != nil {
			c.Live += one.flows
			c.Up += one.up
			c.Down += one.down
			for t, n := range one.joined {
				c.Joined[t.String()] += n
			}
		}
		all = append(all, c)
	}
	return all
}
