package upstream

import (
	"strings"
	"time"

	"github.com/miekg/dns"
)

// scrub removes from m what its question does not vouch for, so that a server
// cannot slip in records of names that it was not asked for (RFC 5452, section
// 6), and what belongs to the hop alone. Of OPT only the extended errors stay.
func scrub(m *dns.Msg) {
	q := m.Question[0]
	chain, end, ends := follow(m)
	m.Answer = keep(m.Answer, func(h *dns.RR_Header) bool {
		owner := strings.ToLower(h.Name)
		switch h.Rrtype {
		case dns.TypeDNAME:
			return above(owner, chain)
		case q.Qtype:
			return owner == end
		case dns.TypeCNAME:
			return chain[owner] && owner != end
		case dns.TypeRRSIG:
			return chain[owner] || above(owner, chain)
		}
		return false
	})
	m.Ns = keep(m.Ns, func(h *dns.RR_Header) bool {
		switch h.Rrtype {
		case dns.TypeSOA, dns.TypeNS, dns.TypeDS:
			return above(strings.ToLower(h.Name), chain)
		}
		return h.Rrtype == dns.TypeRRSIG || h.Rrtype == dns.TypeNSEC || h.Rrtype == dns.TypeNSEC3
	})
	told := extendedErrors(m)
	m.Extra = keep(m.Extra, func(h *dns.RR_Header) bool {
		return h.Rrtype != dns.TypeOPT && h.Rrtype != dns.TypeTSIG && h.Rrtype != dns.TypeSIG
	})
	if m.Rcode > 15 { // they speak of the EDNS that was used
		m.Rcode = dns.RcodeServerFailure
	}
	if !ends {
		m.Rcode, m.Answer, m.Ns, m.Extra = dns.RcodeServerFailure, nil, nil, nil
		told = []*dns.EDNS0_EDE{{InfoCode: dns.ExtendedErrorCodeOther, ExtraText: "aliases without end"}}
	}
	tell(m, told...)
	if soa := SOA(m); soa != nil && !answered(m) {
		soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl, uint32(maxNegative/time.Second))
	}
}

// maxAliases bounds an alias chain, and so what a hostile reply makes us
// compare. Other resolvers give up after about as many.
const maxAliases = 16

// follow returns the names on the alias chain that starts at m's question, in
// lower case, and its end, unless it has none or is too long.
func follow(m *dns.Msg) (chain map[string]bool, end string, ends bool) {
	end = strings.ToLower(m.Question[0].Name)
	chain = map[string]bool{end: true}
	if m.Question[0].Qtype == dns.TypeCNAME {
		return chain, end, true
	}
	alias := make(map[string]string)
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok {
			alias[strings.ToLower(c.Hdr.Name)] = strings.ToLower(c.Target)
		}
	}
	for range maxAliases + 1 {
		target, ok := alias[end]
		if !ok {
			return chain, end, true
		}
		chain[target] = true
		end = target
	}
	return chain, end, false
}

// above reports whether owner is one of the names, or a parent of one.
func above(owner string, names map[string]bool) bool {
	for name := range names {
		if dns.IsSubDomain(owner, name) {
			return true
		}
	}
	return false
}

func keep(rrs []dns.RR, wanted func(*dns.RR_Header) bool) []dns.RR {
	var kept []dns.RR
	for _, rr := range rrs {
		if wanted(rr.Header()) {
			kept = append(kept, rr)
		}
	}
	return kept
}
