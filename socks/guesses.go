package socks

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// A source may be wrong ten times in a row, then every 30 s: NIST SP
	// 800-63B, section 5.2.2 asks for no more than 100 in a row.
	maxGuesses = 10
	guessTime  = 30 * time.Second
	// maxGuessers bounds what sources can make the server remember.
	maxGuessers = 4096
)

// guesses counts wrong passwords by source. The zero guesses has seen none.
type guesses struct {
	mu    sync.Mutex
	until map[netip.Addr]time.Time // when a source's guesses are forgotten, guarded by mu
}

// locked reports whether the source of ip has to wait before it may try again.
func (g *guesses) locked(ip netip.Addr, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until[source(ip)].Sub(now) > (maxGuesses-1)*guessTime
}

// count counts a wrong password.
func (g *guesses) count(ip netip.Addr, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ip = source(ip)
	until, known := g.until[ip]
	if !known && len(g.until) >= maxGuessers {
		g.makeRoomLocked(now)
	}
	if g.until == nil {
		g.until = make(map[netip.Addr]time.Time)
	}
	if until.Before(now) {
		until = now
	}
	g.until[ip] = until.Add(guessTime)
}

// makeRoomLocked forgets what is over, or else some source.
func (g *guesses) makeRoomLocked(now time.Time) {
	var some netip.Addr
	for ip, until := range g.until {
		if some = ip; until.Before(now) {
			delete(g.until, ip)
		}
	}
	if len(g.until) >= maxGuessers {
		delete(g.until, some)
	}
}

// source returns what stands for all addresses of one host: of IPv6 it is the
// /64, of which a host can take any address (RFC 8981).
func source(ip netip.Addr) netip.Addr {
	if p, err := ip.Unmap().WithZone("").Prefix(64); err == nil {
		return p.Addr() // an IPv4 address has no prefix of that length
	}
	return ip.Unmap()
}
