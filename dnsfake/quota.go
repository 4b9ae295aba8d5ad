package dnsfake

import (
	lru "container/list"
	"errors"
	"net/netip"
	"sync"
	"time"
)

const (
	maxClients = 4096 // whose use is known at a time

	// clientQueries is how many queries a second, and at once, a client may
	// have answered. A resolver for a large network asks less.
	clientQueries = 10000

	// clientDatagrams is how many datagrams of a client may wait for upstream,
	// a share of what may at all: a page needs some dozens of names.
	clientDatagrams = maxDatagrams / 16

	// namesBurst is how many seconds' worth of new names a client may ask for
	// at once.
	namesBurst = 20
)

// errTooManyNames keeps one client from using up the pool (RFC 4966, section
// 3.2).
var errTooManyNames = errors.New("a client asks for too many new names")

// quotas keeps count of what clients ask for, so that none takes the share of
// another. A client that has not asked for long is forgotten.
type quotas struct {
	mu     sync.Mutex // guards what follows
	known  map[netip.Addr]*lru.Element
	recent *lru.List // of *quota, the last to ask first
}

// quota is what a client has used. quotas.mu guards it.
type quota struct {
	addr           netip.Addr
	queries, names bucket
	waiting        int // datagrams
}

func newQuotas() *quotas {
	return &quotas{known: make(map[netip.Addr]*lru.Element), recent: lru.New()}
}

func (c *quotas) getLocked(addr netip.Addr) *quota {
	if e, ok := c.known[addr]; ok {
		c.recent.MoveToFront(e)
		return e.Value.(*quota)
	}
	if c.recent.Len() >= maxClients {
		delete(c.known, c.recent.Remove(c.recent.Back()).(*quota).addr)
	}
	one := &quota{addr: addr}
	c.known[addr] = c.recent.PushFront(one)
	return one
}

// query reports whether addr may have a query answered. This machine always may.
func (c *quotas) query(addr netip.Addr, now time.Time) bool {
	if addr.IsLoopback() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.getLocked(addr).queries.take(now, clientQueries, clientQueries)
}

// name reports whether addr may have a fake address for a new name, of which it
// may have rate a second.
func (c *quotas) name(addr netip.Addr, now time.Time, rate int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.getLocked(addr).names.take(now, rate, rate*namesBurst)
}

// spent reports whether addr has had all its names for now.
func (c *quotas) spent(addr netip.Addr, now time.Time, rate int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := c.getLocked(addr).names
	return !names.take(now, rate, rate*namesBurst)
}

// wait reports whether a datagram of addr may wait for its answer, after which
// done is called.
func (c *quotas) wait(addr netip.Addr) (done func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.getLocked(addr)
	if one.waiting >= clientDatagrams {
		return nil, false
	}
	one.waiting++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		one.waiting--
	}, true
}

// bucket is a token bucket, full at first.
type bucket struct {
	used float64   // tokens
	at   time.Time // when that was so
}

// take takes a token if there is one. It gets rate new ones a second, up to
// burst.
func (b *bucket) take(now time.Time, rate, burst int) bool {
	b.used = max(0, b.used-now.Sub(b.at).Seconds()*float64(rate))
	b.at = now
	if b.used+1 > float64(burst) {
		return false
	}
	b.used++
	return true
}
