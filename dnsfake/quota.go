package dnsfake

import (
	lru "container/list"
	"errors"
	"iter"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxClients is how many clients' and networks' use is known at a time.
	maxClients = 4096

	// clientQueries is how many queries a second, and at once, a client may
	// have answered. A resolver for a large network asks less.
	clientQueries = 10000

	// maxWaiting is how many queries may wait for upstream at a time, and
	// clientWaiting how many of them a client's: a page needs some dozens of
	// names. Of fewer than maxWaiting, a client has a quarter at the most.
	maxWaiting    = 2048
	clientWaiting = maxWaiting / 16

	// namesBurst is how many seconds' worth of new names a client may ask for
	// at once.
	namesBurst = 20

	// networkShare is how many times as much as one client those of an IPv6 /64
	// may have together. They may be all clients there are, or one that takes a
	// new address for each query.
	networkShare = 4
)

// errTooManyNames keeps one client from using up the pool (RFC 4966, section
// 3.2).
var errTooManyNames = errors.New("a client asks for too many new names")

// owners yields to whom what client does is put down: itself, and the network
// in which it chooses its own addresses; with how many times as much as a client
// each may have.
func owners(client netip.Addr) iter.Seq2[netip.Prefix, int] {
	return func(yield func(netip.Prefix, int) bool) {
		if yield(netip.PrefixFrom(client, client.BitLen()), 1) && client.Is6() {
			network, _ := client.Prefix(64) // of 128
			yield(network, networkShare)
		}
	}
}

// use is something of which clients may have so much a second.
type use int

const (
	queries use = iota
	newNames
	uses
)

// quotas keeps count of what clients use, so that none takes the share of
// another. Who has not asked for long is forgotten.
type quotas struct {
	mu     sync.Mutex // guards what follows
	known  map[netip.Prefix]*lru.Element
	recent *lru.List // of *quota, the last to ask first
}

// quota is what one of the owners has used. quotas.mu guards it.
type quota struct {
	owner   netip.Prefix
	buckets [uses]bucket
}

func newQuotas() *quotas {
	return &quotas{known: make(map[netip.Prefix]*lru.Element), recent: lru.New()}
}

func (c *quotas) getLocked(owner netip.Prefix) *quota {
	if e, ok := c.known[owner]; ok {
		c.recent.MoveToFront(e)
		return e.Value.(*quota)
	}
	if c.recent.Len() >= maxClients {
		delete(c.known, c.recent.Remove(c.recent.Back()).(*quota).owner)
	}
	one := &quota{owner: owner}
	c.known[owner] = c.recent.PushFront(one)
	return one
}

// query reports whether addr may have a query answered. This machine always may.
func (c *quotas) query(addr netip.Addr, now time.Time) bool {
	return addr.IsLoopback() || c.take(addr, queries, now, clientQueries, clientQueries)
}

// name reports whether addr may have a fake address for a new name, of which it
// may have rate a second.
func (c *quotas) name(addr netip.Addr, now time.Time, rate int) bool {
	return c.take(addr, newNames, now, rate, rate*namesBurst)
}

// refund gives back what name took.
func (c *quotas) refund(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for owner := range owners(addr) {
		b := &c.getLocked(owner).buckets[newNames]
		b.used = max(0, b.used-1)
	}
}

// take reports whether one more of u is within rate and burst of all who own
// addr, and if so takes it from each.
func (c *quotas) take(addr netip.Addr, u use, now time.Time, rate, burst int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for owner, times := range owners(addr) {
		if !c.getLocked(owner).buckets[u].has(now, times*rate, times*burst) {
			return false
		}
	}
	for owner := range owners(addr) {
		c.getLocked(owner).buckets[u].used++
	}
	return true
}

// bucket is a token bucket, full at first.
type bucket struct {
	used float64   // tokens
	at   time.Time // when that was so
}

// has reports whether there is a token. There come rate new ones a second, up to
// burst.
func (b *bucket) has(now time.Time, rate, burst int) bool {
	b.used = max(0, b.used-now.Sub(b.at).Seconds()*float64(rate))
	b.at = now
	return b.used+1 <= float64(burst)
}

// share bounds what clients hold at a time of something that there is so much of.
type share struct {
	all, each int

	mu   sync.Mutex           // guards what follows
	held map[netip.Prefix]int // by owner; no zero values
	sum  int
}

func newShare(all, each int) *share {
	return &share{all: all, each: each, held: make(map[netip.Prefix]int)}
}

// take reports whether client may hold one more. It gives it back.
func (s *share) take(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sum >= s.all {
		return false
	}
	for owner, times := range owners(client) {
		if s.held[owner] >= times*s.each {
			return false
		}
	}
	s.sum++
	for owner := range owners(client) {
		s.held[owner]++
	}
	return true
}

func (s *share) give(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum--
	for owner := range owners(client) {
		if s.held[owner]--; s.held[owner] == 0 {
			delete(s.held, owner)
		}
	}
}
