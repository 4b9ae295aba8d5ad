package gateway

import (
	"cmp"
	"math"
	"net/netip"
)

// quota counts the flows that there are, in all and of one client, network or
// user, so that nobody can take everything.
type quota struct {
	taken     int
	byClient  map[netip.Addr]int   // no zero values
	byNetwork map[netip.Prefix]int // no zero values
	byUser    map[string]int       // no zero values
}

func newQuota() quota {
	return quota{
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
// max and each are as Policy has them.
func (q *quota) take(s Session, max, each int) bool {
	max = cmp.Or(max, math.MaxInt32)
	share := max - max/3 // of one network
	each = cmp.Or(each, share)
	client := s.Client.Addr()
	switch {
	case q.taken >= max, q.byClient[client] >= each, q.byNetwork[network(client)] >= share,
		s.User != "" && q.byUser[s.User] >= each:
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
