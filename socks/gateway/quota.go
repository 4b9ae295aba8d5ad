package gateway

import (
	"cmp"
	"math"
	"net/netip"
)

// quota bounds how many flows there are, in all and of one client or user, so
// that nobody can take everything.
type quota struct {
	max, each int
	share     int // of one network
	taken     int
	byClient  map[netip.Addr]int   // no zero values
	byNetwork map[netip.Prefix]int // no zero values
	byUser    map[string]int       // no zero values
}

func newQuota(max, each int) quota {
	max = cmp.Or(max, math.MaxInt32)
	share := (2*max + 2) / 3
	return quota{
		max:       max,
		each:      cmp.Or(each, share),
		share:     share,
		byClient:  make(map[netip.Addr]int),
		byNetwork: make(map[netip.Prefix]int),
		byUser:    make(map[string]int),
	}
}

// network returns where client may choose its address: an IPv6 /64, in which
// one client can be many, or the IPv4 address itself.
func network(client netip.Addr) netip.Prefix {
	p, _ := client.Prefix(min(client.BitLen(), 64)) // a length that every address has
	return p
}

// take reports whether there may be one more flow like s, and counts it if so.
func (q *quota) take(s Session) bool {
	client := s.Client.Addr()
	switch {
	case q.taken >= q.max, q.byClient[client] >= q.each, q.byNetwork[network(client)] >= q.share,
		s.User != "" && q.byUser[s.User] >= q.each:
		return false
	}
	q.taken++
	q.byClient[client]++
	q.byNetwork[network(client)]++
	if s.User != "" {
		q.byUser[s.User]++
	}
	return true
}

// give returns what s took.
func (q *quota) give(s Session) {
	q.taken--
	giveOne(q.byClient, s.Client.Addr())
	giveOne(q.byNetwork, network(s.Client.Addr()))
	if s.User != "" {
		giveOne(q.byUser, s.User)
	}
}

func giveOne[K comparable](m map[K]int, key K) {
	if m[key]--; m[key] == 0 {
		delete(m, key)
	}
}
