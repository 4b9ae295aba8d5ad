package dnsfake

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// reverseTTL is that of records of reverse zones, in seconds.
const reverseTTL = 300

// reverse answers for the reverse zones of nets. But for the few names that all
// hosts know they are empty: their records would tell any client what all others
// look up.
func reverse(q dns.Question, name string, nets []netip.Prefix) (answer, bool) {
	net, step, exact := reverseNet(name)
	if !net.IsValid() {
		return answer{}, false
	}
	i := slices.IndexFunc(nets, func(n netip.Prefix) bool { return n.Bits() <= net.Bits() && n.Contains(net.Addr()) })
	if i < 0 {
		return answer{}, false
	}
	host := ""
	switch ip := net.Addr().String(); {
	case !exact || !net.IsSingleIP():
	case ip == "127.0.0.1", ip == "::1":
		host = "localhost."
	case ip == "192.0.0.170", ip == "192.0.0.171": // RFC 8880, section 7.2
		host = "ipv4only.arpa."
	}
	if host != "" && q.Qtype == dns.TypePTR {
		return answer{kind: local, rrs: []dns.RR{pointer(q, host)}}, true
	}
	// The zone is cut at the first whole label inside the net.
	zone := (nets[i].Bits()+step-1)/step + len([]string{"in-addr", "arpa"})
	starts := dns.Split(q.Name)
	a := answer{kind: nxdomain, rcode: dns.RcodeNameError}
	if exact && !net.IsSingleIP() || host != "" { // there are names at or below it
		a = answer{kind: nodata}
	}
	a.ns = []dns.RR{ownSOA(q.Name[starts[len(starts)-zone]:], reverseTTL*time.Second)}
	return a, true
}

func pointer(q dns.Question, host string) dns.RR {
	return &dns.PTR{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: reverseTTL}, Ptr: host}
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
