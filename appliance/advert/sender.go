package advert

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Intervals of RFC 4861, sections 6.2.1 and 10.
const (
	maxInterval        = 200 * time.Second // of 4 to 1800; RFC 7772, section 4, asks for few
	minInterval        = maxInterval / 3
	maxInitialInterval = 16 * time.Second
	initial            = 3 // advertisements of what is new
	maxAnswerDelay     = 500 * time.Millisecond
	minDelay           = 3 * time.Second // between two
)

// Lifetime is that of all that a Sender advertises, but prefixes: hosts miss
// two advertisements before they forget it (RFC 8106, section 5.1), and forget
// a router that has died after this long.
const Lifetime = 3 * maxInterval

// Lifetimes of prefixes: shorter than those of RFC 4861, so that one that has
// changed does not stay for weeks (RFC 9096, section 3.4).
const (
	PrefixLifetime  = 90 * time.Minute
	PrefixPreferred = 45 * time.Minute
)

// consult is how long a Sender waits at first to hear other programs of the
// machine, and warnings how often it tells of other routers.
const (
	consult  = time.Second
	warnings = time.Minute
)

// Counters count since the start.
type Counters struct {
	Sent         uint64 // advertisements
	Solicited    uint64 // by hosts, many of which one advertisement answers
	Malformed    uint64 // messages that no neighbour sends so
	Contradicted uint64 // advertisements by others who say otherwise
}

// Sender advertises a router on one interface (RFC 4861, section 6.2).
type Sender struct {
	iface  Interface
	link   Link
	logger *slog.Logger

	changed                                  chan struct{} // holds one element when there is something to tell
	sent, solicited, malformed, contradicted atomic.Uint64

	mu        sync.Mutex // guards the fields below
	message   Message
	withdrawn []Option // what is no longer so
	fresh     int      // how often all this is still to be told soon

	twin   Message   // what another program of this machine said last, as the same router
	expiry time.Time // of twin
	warned time.Time // of another router
}

// NewSender returns a Sender on an interface by a link, which Run closes. A nil
// logger is silent.
func NewSender(iface Interface, link Link, logger *slog.Logger) *Sender {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Sender{iface: iface, link: link, logger: logger, changed: make(chan struct{}, 1)}
}

// Counters returns what has been counted so far.
func (s *Sender) Counters() Counters {
	return Counters{s.sent.Load(), s.solicited.Load(), s.malformed.Load(), s.contradicted.Load()}
}

// Set makes m what is advertised, from soon on. What was so before and is not
// in m is taken back.
func (s *Sender) Set(m Message) {
	s.mu.Lock()
	m.LinkAddress = net.HardwareAddr(s.iface.LinkAddress)
	s.withdrawn = Message{Options: slices.Concat(s.message.Options, s.withdrawn)}.without(m)
	s.message = m
	s.fresh = initial
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default: // told already
	}
}

// Run advertises what was last Set until ctx ends, and then takes it back. Of
// hosts that solicit, all are answered at once, so that a flood of them is not
// answered by one.
func (s *Sender) Run(ctx context.Context) error {
	solicited, ended := make(chan struct{}, 1), make(chan struct{})
	reading, stop := context.WithCancel(ctx)
	go func() {
		defer close(ended)
		hear(reading, s.link, s.logger, func(p Packet) { s.take(p, solicited) })
	}()
	s.send(allRouters(), solicitation()) // for other programs of the machine
	earliest := time.Now().Add(consult)
	next := earliest
	due := time.NewTimer(consult)
	soon := func(delay time.Duration) {
		at := time.Now().Add(delay)
		if at.Before(earliest) {
			at = earliest
		}
		if at.Before(next) {
			next = at
			due.Reset(time.Until(next))
		}
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.changed:
			soon(0)
		case <-solicited:
			soon(rand.N(maxAnswerDelay))
		case <-due.C:
			wait := s.advertise()
			earliest, next = time.Now().Add(minDelay), time.Now().Add(wait)
			due.Reset(wait)
		}
	}
	due.Stop()
	s.send(allNodes(), s.last().Marshal())
	stop()
	err := s.link.Close()
	<-ended
	return err
}

// advertise returns how long to wait before the next advertisement.
func (s *Sender) advertise() time.Duration {
	m, fresh := s.next(time.Now())
	switch sent := s.send(allNodes(), m.Marshal()); {
	case !sent: // the kernel may still check the interface's address for duplicates
		return minDelay
	case fresh:
		return maxInitialInterval
	}
	return minInterval + rand.N(maxInterval-minInterval)
}

// send reports whether it could send. Where it cannot, as on an interface that
// is down, hosts would hear nothing.
func (s *Sender) send(to netip.Addr, octets []byte) bool {
	if err := s.link.Send(s.iface.Index, to, octets); err != nil {
		s.logger.Debug("advertising", "interface", s.iface.Name, "err", err)
		return false
	}
	if to == allNodes() {
		s.sent.Add(1)
	}
	return true
}

// next returns what to advertise now, and whether the next one is due soon, too.
func (s *Sender) next(now time.Time) (m Message, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m = s.consentLocked(s.message, now)
	m.Options = slices.Concat(m.Options, s.withdrawn)
	if s.fresh > 0 {
		s.fresh--
	}
	if s.fresh == 0 {
		s.withdrawn = nil
	}
	return m, s.fresh > 0
}

// last returns what is said at the end (RFC 4861, section 6.2.5). Hosts keep
// their addresses.
func (s *Sender) last() Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.consentLocked(Message{LinkAddress: s.message.LinkAddress}, time.Now())
	m.Options = slices.DeleteFunc(s.message.without(Message{}), func(o Option) bool { return o.Kind == Prefix })
	m.Options = append(m.Options, s.withdrawn...)
	return m
}

// consentLocked returns m such that it does not take back what another program
// of this machine has said. Hosts know routers by their addresses: both are one
// to them.
func (s *Sender) consentLocked(m Message, now time.Time) Message {
	if m.Lifetime == 0 && now.Before(s.expiry) {
		m.Lifetime = s.expiry.Sub(now)
		m.Managed, m.Other = s.twin.Managed, s.twin.Other
	}
	return m
}

// take takes what a neighbour said.
func (s *Sender) take(p Packet, solicited chan<- struct{}) {
	m, err := Parse(p.Octets)
	switch {
	case p.HopLimit != neighbourly:
		s.malformed.Add(1)
	case err == nil && p.From.IsLinkLocalUnicast():
		s.compare(m, p.From, time.Now())
	case !solicits(p.Octets, p.From):
		s.malformed.Add(1)
	case p.From != s.iface.Addr:
		s.solicited.Add(1)
		select {
		case solicited <- struct{}{}:
		default:
		}
	}
}

// compare looks at what another router says (RFC 4861, section 6.2.7).
func (s *Sender) compare(other Message, from netip.Addr, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	twin := from == s.iface.Addr
	if twin {
		s.twin, s.expiry = other, now.Add(other.Lifetime)
	}
	what := s.message.contradiction(other, twin)
	if what == "" {
		return
	}
	s.contradicted.Add(1)
	if now.Sub(s.warned) >= warnings {
		s.warned = now
		s.logger.Warn("another router says otherwise", "interface", s.iface.Name, "router", from, "what", what)
	}
}

// contradiction returns what other, of a twin or of another router, says
// otherwise than m, or "".
func (m Message) contradiction(other Message, twin bool) string {
	if twin && m.Lifetime > 0 && other.Lifetime == 0 {
		return "this machine is no default router"
	}
	for _, o := range other.Options {
		i := slices.IndexFunc(m.Options, func(p Option) bool { return o.Kind == p.Kind && o.Prefix == p.Prefix })
		switch {
		case i < 0 || !twin && o.Kind != Prefix:
		case o.Lifetime == 0 || o.Kind == Prefix && o.Preferred == 0:
			return o.Prefix.String() + " is no more"
		}
	}
	return ""
}
