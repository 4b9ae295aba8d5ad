package upstream

import (
	"container/list"
	"net/netip"
	"time"
	"unsafe"
)

const (
	// refreshed is how long an answer that could not be replaced by a fresh
	// one stays until the servers are asked again (RFC 8767, section 5).
	refreshed = 30 * time.Second
	// popular is how often an answer must have been used to be replaced before
	// it expires, in the last tenth of its life.
	popular = 3
	// overhead is what an entry takes besides its bytes: list element, map
	// slot, and what allocation rounds up to, in octets.
	overhead = int(unsafe.Sizeof(entry{})+unsafe.Sizeof(answer{})+unsafe.Sizeof(list.Element{})) + 160
)

// cache keeps answers while they are usable, and the most recently used ones
// when there are too many. Its user locks.
type cache struct {
	room    int // octets
	used    int // octets
	entries map[question]*list.Element
	order   *list.List // of *entry, the most recently used first
}

type entry struct {
	key    question
	answer *answer
	uses   int
	retry  time.Time // when the answer may be replaced, after that failed
}

func (e *entry) size() int {
	return overhead + len(e.key.name) + len(e.answer.wire) + len(e.answer.addrs)*int(unsafe.Sizeof(netip.Addr{}))
}

// tired reports whether e's answer, which is fresh, is worth to be replaced
// before it expires.
func (e *entry) tired(now time.Time) bool {
	life, left := e.answer.expires.Sub(e.answer.at), e.answer.expires.Sub(now)
	return e.uses >= popular && left <= life/10 && e.answer.definite()
}

func newCache(room int) *cache {
	return &cache{room: room, entries: make(map[question]*list.Element), order: list.New()}
}

// get returns the entry of key, with an answer that is usable at now, or nil.
func (c *cache) get(key question, now time.Time) *entry {
	element, ok := c.entries[key]
	if !ok {
		return nil
	}
	e := element.Value.(*entry)
	if !e.answer.usable(now) {
		c.drop(element)
		return nil
	}
	c.order.MoveToFront(element)
	return e
}

// put keeps a as the answer to key.
func (c *cache) put(key question, a *answer) {
	c.forget(key)
	e := &entry{key: key, answer: a}
	c.entries[key] = c.order.PushFront(e)
	c.used += e.size()
	for c.used > c.room {
		c.drop(c.order.Back())
	}
}

// forget drops the entry of key, if there is one.
func (c *cache) forget(key question) {
	if element, ok := c.entries[key]; ok {
		c.drop(element)
	}
}

func (c *cache) drop(element *list.Element) {
	e := element.Value.(*entry)
	c.used -= e.size()
	delete(c.entries, e.key)
	c.order.Remove(element)
}
