package gateway

import (
	"maps"

	"sixgate/socks"
)

// Kind is what flows are counted by.
type Kind struct {
	Network string // as in Session
	Type    Type
	Outlet  string // "" is the default
}

// Counters are what a gateway has done since it was built.
type Counters struct {
	Live    map[Kind]uint64        // sessions joined and not ended
	Joined  map[Kind]uint64        // sessions ever joined; one to many peers counts once a type
	Refused map[socks.Reply]uint64 // sessions that were never joined, by reason
	Up      uint64                 // payload bytes, client to far
	Down    uint64                 // payload bytes, far to client

	OverLimit uint64 // of the refused: above Policy.Flows or a client's share of it
	TooLarge  uint64 // datagrams of associations, which no packet holds with what precedes them
}

// counters is what cannot be seen of the flows that live. Gateway.mu guards it.
type counters struct {
	joined    map[Kind]uint64
	refused   map[socks.Reply]uint64
	up, down  uint64 // of ended sessions
	overLimit uint64
}

func newCounters() counters {
	return counters{joined: make(map[Kind]uint64), refused: make(map[socks.Reply]uint64)}
}

// Counters returns a snapshot.
func (g *Gateway) Counters() Counters {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := Counters{
		Live: make(map[Kind]uint64), Joined: maps.Clone(g.counters.joined), Refused: maps.Clone(g.counters.refused),
		Up: g.counters.up, Down: g.counters.down, OverLimit: g.counters.overLimit,
		TooLarge: g.tooLarge.Load(),
	}
	for f := range g.flows {
		if w := f.way(); w.typ != 0 {
			c.Live[Kind{f.Network, w.typ, w.outlet}]++
		}
		c.Up += uint64(f.moved.Up.Load())
		c.Down += uint64(f.moved.Down.Load())
	}
	return c
}
