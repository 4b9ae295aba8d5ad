package gateway

import (
	"sync/atomic"

	"sixgate/socks"
)

// Counters are what a gateway has done since it was built.
type Counters struct {
	Live    int64                  // sessions joined and not ended
	Joined  map[Type]uint64        // sessions ever joined, by type; one to many peers counts once a type
	Refused map[socks.Reply]uint64 // sessions that were never joined, by reason
	Up      uint64                 // payload bytes, client to far
	Down    uint64                 // payload bytes, far to client
}

type counters struct {
	live     atomic.Int64
	joined   [len(Types)]atomic.Uint64
	refused  [socks.AddressUnsupported + 1]atomic.Uint64
	up, down uint64 // of ended sessions, guarded by Gateway.mu
}

// refuse counts a session that err refused.
func (c *counters) refuse(err error) { c.refused[socks.ReplyOf(err)].Add(1) }

// Counters returns a snapshot.
func (g *Gateway) Counters() Counters {
	c := Counters{
		Live:    g.counters.live.Load(),
		Joined:  map[Type]uint64{},
		Refused: map[socks.Reply]uint64{},
	}
	for i, t := range Types {
		c.Joined[t] = g.counters.joined[i].Load()
	}
	for r := range g.counters.refused {
		if n := g.counters.refused[r].Load(); n > 0 {
			c.Refused[socks.Reply(r)] = n
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c.Up, c.Down = g.counters.up, g.counters.down
	for f := range g.flows {
		c.Up += uint64(f.moved.Up.Load())
		c.Down += uint64(f.moved.Down.Load())
	}
	return c
}
