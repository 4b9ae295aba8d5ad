package gateway

import (
	"sync/atomic"

	"sixgate/socks"
)

// Counters are what a gateway has done since it was built.
type Counters struct {
	Live    int64                  // sessions joined and not ended
	Joined  map[Type]uint64        // sessions ever joined, by type
	Refused map[socks.Reply]uint64 // sessions that were never joined, by reason
	Up      uint64                 // payload bytes, client to far, of ended sessions
	Down    uint64                 // payload bytes, far to client
}

type counters struct {
	live    atomic.Int64
	joined  [len(Types)]atomic.Uint64
	refused [socks.AddressUnsupported + 1]atomic.Uint64
	up      atomic.Uint64
	down    atomic.Uint64
}

// join counts a session as live until the returned function is called.
func (c *counters) join(t Type) (leave func()) {
	c.joined[t-A].Add(1)
	c.live.Add(1)
	return func() { c.live.Add(-1) }
}

// end counts how a session went.
func (c *counters) end(o outcome) {
	if o.typ == 0 {
		c.refused[socks.ReplyOf(o.err)].Add(1)
	}
	c.up.Add(uint64(o.counts.Up))
	c.down.Add(uint64(o.counts.Down))
}

// Counters returns a snapshot.
func (g *Gateway) Counters() Counters {
	c := Counters{
		Live:    g.counters.live.Load(),
		Joined:  map[Type]uint64{},
		Refused: map[socks.Reply]uint64{},
		Up:      g.counters.up.Load(),
		Down:    g.counters.down.Load(),
	}
	for i, t := range Types {
		c.Joined[t] = g.counters.joined[i].Load()
	}
	for r := range g.counters.refused {
		if n := g.counters.refused[r].Load(); n > 0 {
			c.Refused[socks.Reply(r)] = n
		}
	}
	return c
}
