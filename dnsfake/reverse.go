package dnsfake

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// reverse answers for the reverse zones of the pools, which are nobody else's
// business: they are empty, since their records would tell any client what all
// others look up.
func (s *Server) reverse(q dns.Question, name string) (answer, bool) {
	net, step, exact := reverseNet(name)
	pool := s.conf.Table.pool6
	if net.Addr().Is4() {
		pool = s.conf.Table.pool4
	}
	if !net.IsValid() || net.Bits() < pool.Bits() || !pool.Contains(net.Addr()) {
		return answer{}, false
	}
	// The zone is cut at the first whole label inside the pool.
	zone := (pool.Bits()+step-1)/step + len([]string{"in-addr", "arpa"})
	starts := dns.Split(q.Name)
	a := answer{kind: nxdomain, rcode: dns.RcodeNameError}
	if exact && !net.IsSingleIP() { // there are names below it
		a = answer{kind: nodata}
	}
	a.ns = []dns.RR{ownSOA(q.Name[starts[len(starts)-zone]:], s.conf.MaxTTL)}
	return a, true
}

// reverseNet returns the addresses whose reverse names end as name, which is in
// the form of key, does (RFC 1035, section 3.5; RFC 3596, section 2.5), how many
// bits a label stands for, and whether the labels say no more than that. net is
// not valid when name is no reverse name.
func reverseNet(name string) (net netip.Prefix, labelBits int, exact bool) {
	base, size, step := 10, 4, 8
	digits, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		if digits, ok = strings.CutSuffix(name, ".ip6.arpa"); !ok {
			return netip.Prefix{}, 0, false
		}
		base, size, step = 16, 16, 4
	}
	octets := make([]byte, size)
	bits := 0
	labels := strings.Split(digits, ".")
	for ; len(labels) > 0 && bits < size*8; bits += step {
		n, err := strconv.ParseUint(labels[len(labels)-1], base, step)
		if err != nil {
			break
		}
		octets[bits/8] |= byte(n) << (8 - step - bits%8)
		labels = labels[:len(labels)-1]
	}
	ip, _ := netip.AddrFromSlice(octets) // 4 or 16 octets by the above
	return netip.PrefixFrom(ip, bits), step, len(labels) == 0
}
