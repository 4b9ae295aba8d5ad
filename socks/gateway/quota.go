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
	taken     int
	byClient  map[netip.Addr]int // no zero values
	byUser    map[string]int     // no zero values
}

func newQuota(max, each int) quota {
	max = cmp.Or(max, math.MaxInt32)
	return quota{
		max:      max,
		each:     cmp.Or(each, (2*max+2)/3),
		byClient: make(map[netip.Addr]int),
		byUser:   make(map[string]int),
	}
}

// take reports whether there may be one more flow like s, and counts it if so.
func (q *quota) take(s Session) bool {
	client := s.Client.Addr()
	if q.taken >= q.max || q.byClient[client] >= q.each || s.User != "" && q.byUser[s.User] >= q.each {
		return false
	}
	q.taken++
	q.byClient[client]++
	if s.User != "" {
		q.byUser[s.User]++
	}
	return true
}

// give returns what s took.
func (q *quota) give(s Session) {
	q.taken--
	giveOne(q.byClient, s.Client.Addr())
	if s.User != "" {
		giveOne(q.byUser, s.User)
	}
}

func giveOne[K comparable](m map[K]int, key K) {
	if m[key]--; m[key] == 0 {
		delete(m, key)
	}
}
