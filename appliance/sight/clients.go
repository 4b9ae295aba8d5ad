package sight

import (
	"container/list"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	maxClients  = 1024 // that are remembered; who has been silent longest goes first
	maxNetwork  = 256  // of an IPv6 /64: one that takes many addresses displaces no others
	maxNames    = 10   // of a client
	maxFailures = 10   // of a client
	maxWhy      = 200  // octets; hosts and resolvers have a say in it
)

// Client is what a client has met so far.
type Client struct {
	Addr     netip.Addr        `json:"client"`
	Seen     time.Time         `json:"seen"`   // last
	Joined   map[string]uint64 `json:"joined"` // flows, by type A to D
	Live     int               `json:"live"`   // flows
	Failed   uint64            `json:"failed"` // flows that were never joined, and names not found
	Up       uint64            `json:"up"`     // payload bytes
	Down     uint64            `json:"down"`   // payload bytes
	Names    []string          `json:"names"`  // of the last connections, the latest first
	Failures []Failure         `json:"failures"`
}

// Failure is what a client could not have.
type Failure struct {
	What  string    `json:"what"` // such as "tcp a.example:443" or "DNS a.example A"
	Why   string    `json:"why"`
	Times int       `json:"times"` // in a row, as far as is remembered
	Last  time.Time `json:"last"`
}

// Tell returns f in words, as it is at now.
func (f Failure) Tell(now time.Time) string {
	often := "once,"
	if f.Times > 1 {
		often = fmt.Sprintf("%d times, last", f.Times)
	}
	return fmt.Sprintf("%s, %s %v ago: %s", f.What, often, now.Sub(f.Last).Round(time.Second), f.Why)
}

// clients are those that were seen last. It is not for concurrent use.
type clients struct {
	known   map[netip.Addr]*list.Element
	recent  *list.List           // of *Client, the last to be seen first
	members map[netip.Prefix]int // how many of them are of a network
}

func newClients() clients {
	return clients{known: make(map[netip.Addr]*list.Element), recent: list.New(), members: make(map[netip.Prefix]int)}
}

// network returns that in which addr chooses its address: an IPv6 /64.
func network(addr netip.Addr) netip.Prefix {
	p, _ := addr.Prefix(min(addr.BitLen(), 64)) // a length that every address has
	return p
}

// get returns what is known of a client, which is seen now.
func (c *clients) get(addr netip.Addr, now time.Time) *Client {
	addr = addr.Unmap().WithZone("")
	if e, ok := c.known[addr]; ok {
		c.recent.MoveToFront(e)
		one := e.Value.(*Client)
		one.Seen = now
		return one
	}
	own := network(addr)
	if full := c.members[own] >= maxNetwork; full || c.recent.Len() >= maxClients {
		last := c.recent.Back()
		for full && network(last.Value.(*Client).Addr) != own {
			last = last.Prev()
		}
		c.forget(last)
	}
	c.members[own]++
	one := &Client{Addr: addr, Seen: now, Joined: make(map[string]uint64)}
	c.known[addr] = c.recent.PushFront(one)
	return one
}

func (c *clients) forget(e *list.Element) {
	addr := c.recent.Remove(e).(*Client).Addr
	delete(c.known, addr)
	if c.members[network(addr)]--; c.members[network(addr)] == 0 {
		delete(c.members, network(addr))
	}
}

// name notes that the client has connected to a name.
func (c *Client) name(name string) {
	if i := slices.Index(c.Names, name); i >= 0 {
		c.Names = slices.Delete(c.Names, i, i+1)
	}
	c.Names = slices.Insert(c.Names, 0, name)
	c.Names = c.Names[:min(len(c.Names), maxNames)]
}

// fail notes that the client could not have something.
func (c *Client) fail(what, why string, now time.Time) {
	f := Failure{What: what, Why: why[:min(len(why), maxWhy)], Times: 1, Last: now}
	c.Failed++
	i := slices.IndexFunc(c.Failures, func(old Failure) bool { return old.What == what })
	if i >= 0 {
		f.Times += c.Failures[i].Times
		c.Failures = slices.Delete(c.Failures, i, i+1)
	}
	c.Failures = slices.Insert(c.Failures, 0, f)
	c.Failures = c.Failures[:min(len(c.Failures), maxFailures)]
}

// clear notes that the client has had what it could not have before.
func (c *Client) clear(what string) {
	c.Failures = slices.DeleteFunc(c.Failures, func(f Failure) bool { return f.What == what })
}
