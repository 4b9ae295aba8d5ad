package stack

import "net/netip"

// quota bounds how many of something there are, in all and for one client, so
// that no client can take everything. Its owner guards it.
type quota struct {
	max, maxPerClient int
	taken             int
	byClient          map[netip.Addr]int // no zero values
}

// newQuota returns an empty quota. Where maxPerClient is 0 it is two thirds of
// max.
func newQuota(max, maxPerClient int) quota {
	if maxPerClient == 0 {
		maxPerClient = (2*max + 2) / 3
	}
	return quota{max: max, maxPerClient: maxPerClient, byClient: make(map[netip.Addr]int)}
}

// take reports whether client may have one more, and counts it if so.
func (q *quota) take(client netip.Addr) bool {
	if q.taken >= q.max || q.byClient[client] >= q.maxPerClient {
		return false
	}
	q.taken++
	q.byClient[client]++
	return true
}

// give returns what client took.
func (q *quota) give(client netip.Addr) {
	q.taken--
	q.byClient[client]--
	if q.byClient[client] == 0 {
		delete(q.byClient, client)
	}
}
