package upstream

import (
	"container/list"
	"time"
)

// cache keeps answers until they expire, and the most recently used ones when
// there are too many. Its user locks.
type cache struct {
	room    int // entries, at least 1
	entries map[question]*list.Element
	order   *list.List // of *entry, the most recently used first
}

type entry struct {
	key    question
	answer *answer
}

func newCache(room int) *cache {
	return &cache{room: room, entries: make(map[question]*list.Element), order: list.New()}
}

// get returns the answer to key that is fresh at now, or nil.
func (c *cache) get(key question, now time.Time) *answer {
	element, ok := c.entries[key]
	if !ok {
		return nil
	}
	a := element.Value.(*entry).answer
	if !now.Before(a.expires) {
		c.drop(element)
		return nil
	}
	c.order.MoveToFront(element)
	return a
}

// put keeps a as the answer to key.
func (c *cache) put(key question, a *answer) {
	if element, ok := c.entries[key]; ok {
		c.drop(element)
	}
	if c.order.Len() >= c.room {
		c.drop(c.order.Back())
	}
	c.entries[key] = c.order.PushFront(&entry{key, a})
}

func (c *cache) drop(element *list.Element) {
	delete(c.entries, element.Value.(*entry).key)
	c.order.Remove(element)
}
