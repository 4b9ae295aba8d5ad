package stack

import "net/netip"

// quota bounds how many of something there are, in all and for one client, so
// that no client can take everything. Its owner guards it.
type quota struct {
	max, maxPerClient int
	share             int // of one network
	taken             int
	byClient          map[netip.Addr]int   // no zero values
	byNetwork         map[netip.Prefix]int // no zero values
}

// newQuota returns an empty quota. Where maxPerClient is 0 it is two thirds of
// max.
func newQuota(max, maxPerClient int) quota {
	share := max - max/3
	if maxPerClient == 0 {
		maxPerClient = share
	}
	return quota{
		max: max, maxPerClient: maxPerClient, share: share,
		byClient: make(map[netip.Addr]int), byNetwork: make(map[netip.Prefix]int),
	}
}

// network returns where client may choose its address: an IPv6 /64, in which
// one client can be many, or the IPv4 address itself.
func network(client netip.Addr) netip.Prefix {
	p, _ := client.Prefix(min(client.BitLen(), 64)) // a length that every address has
	return p
}

// take reports whether client may have one more, and counts it if so.
func (q *quota) take(client netip.Addr) bool { return q.takeMany(client, 1) }

// takeMany reports whether client may have n more, and counts them if so.
func (q *quota) takeMany(client netip.Addr, n int) bool {
	if n == 0 {
		return true
	}
	home := network(client)
	if q.taken+n > q.max || q.byClient[client]+n > q.maxPerClient || q.byNetwork[home]+n > q.share {
		return false
	}
	q.taken += n
	q.byClient[client] += n
	q.byNetwork[home] += n
	return true
}

// full reports whether no client may have one more.
func (q *quota) full() bool { return q.taken >= q.max }

// spent reports whether client has all that it may have.
func (q *quota) spent(client netip.Addr) bool {
	return q.byClient[client] >= q.maxPerClient || q.byNetwork[network(client)] >= q.share
}

// give returns one that client took.
func (q *quota) give(client netip.Addr) { q.giveMany(client, 1) }

// giveMany returns n that client took.
func (q *quota) giveMany(client netip.Addr, n int) {
	if n == 0 {
		return
	}
	q.taken -= n
	reduce(q.byClient, client, n)
	reduce(q.byNetwork, network(client), n)
}

func reduce[K comparable](m map[K]int, key K, n int) {
	if m[key] -= n; m[key] == 0 {
		delete(m, key)
	}
}
