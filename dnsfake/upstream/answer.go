package upstream

import (
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// minFresh is how long any positive answer serves. A fake address lives
	// at least as long, and who connects to it should find what it stands for.
	minFresh = 10 * time.Second
	// maxFresh keeps a slip in somebody's zone from staying for weeks
	// (RFC 8767, section 4).
	maxFresh = 24 * time.Hour
	// maxNegative bounds the life of NXDOMAIN and NODATA. RFC 2308, section 5
	// finds one to three hours to work well.
	maxNegative = time.Hour
	// noSOA is the life of a negative answer that came without SOA.
	noSOA = 10 * time.Second
	// failure is the life of an answer that could not be had. RFC 9520,
	// section 3.2 wants 1 s to 5 min.
	failure = 2 * time.Second
)

// answer is what the servers had to say to a question. It does not change once
// it is made.
type answer struct {
	msg     *dns.Msg // scrubbed; nil when err is not
	err     error
	at      time.Time
	expires time.Time
}

// newAnswer makes the answer of what asking at the time of now gave.
func newAnswer(msg *dns.Msg, err error, now time.Time) *answer {
	life := failure
	if err == nil {
		life = lifetime(msg)
	}
	return &answer{msg: msg, err: err, at: now, expires: now.Add(life)}
}

// reply returns a's message as the reply to q, its TTLs counted down to now. It
// is the caller's to change.
func (a *answer) reply(q *dns.Msg, now time.Time) (*dns.Msg, error) {
	if a.err != nil {
		return nil, a.err
	}
	m := a.msg.Copy()
	m.Id = q.Id
	m.Question = append([]dns.Question(nil), q.Question...)
	age := uint32(max(0, now.Sub(a.at)) / time.Second)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			h := rr.Header()
			h.Ttl -= min(h.Ttl, age)
			if strings.EqualFold(h.Name, q.Question[0].Name) {
				h.Name = q.Question[0].Name
			}
		}
	}
	return m, nil
}

// lifetime returns how long m, which is scrubbed, may be kept.
func lifetime(m *dns.Msg) time.Duration {
	switch {
	case !definite(m.Rcode):
		return failure
	case m.Rcode == dns.RcodeSuccess && answered(m):
		least := uint32(maxFresh / time.Second)
		for _, rr := range m.Answer {
			least = min(least, rr.Header().Ttl)
		}
		return max(minFresh, time.Duration(least)*time.Second)
	}
	if soa := SOA(m); soa != nil {
		return time.Duration(soa.Hdr.Ttl) * time.Second
	}
	return noSOA
}

// definite reports whether rcode tells something about the name rather than
// about the server.
func definite(rcode int) bool {
	return rcode == dns.RcodeSuccess || rcode == dns.RcodeNameError || rcode == dns.RcodeYXDomain
}

// answered reports whether m holds a record of the type asked for.
func answered(m *dns.Msg) bool {
	for _, rr := range m.Answer {
		if rr.Header().Rrtype == m.Question[0].Qtype {
			return true
		}
	}
	return false
}

// Addrs returns the addresses in m, a reply of Resolver.Exchange to a question
// for A or AAAA.
func Addrs(m *dns.Msg) []netip.Addr {
	var addrs []netip.Addr
	for _, rr := range m.Answer {
		var ip netip.Addr
		var ok bool
		switch rr := rr.(type) {
		case *dns.A:
			ip, ok = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			ip, ok = netip.AddrFromSlice(rr.AAAA.To16())
		}
		if ok {
			addrs = append(addrs, ip)
		}
	}
	return addrs
}

// SOA returns the SOA of m's authority section, nil if there is none. In a
// negative reply of Resolver.Exchange its TTL is the one that RFC 2308, section
// 5 gives the absence.
func SOA(m *dns.Msg) *dns.SOA {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa
		}
	}
	return nil
}

// scrub removes from m what its question does not vouch for, so that a server
// cannot slip in records of names that it was not asked for (RFC 5452, section
// 6), and what belongs to the hop alone.
func scrub(m *dns.Msg) {
	q := m.Question[0]
	chain, end := follow(m)
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
	m.Extra = keep(m.Extra, func(h *dns.RR_Header) bool {
		return h.Rrtype != dns.TypeOPT && h.Rrtype != dns.TypeTSIG && h.Rrtype != dns.TypeSIG
	})
	if soa := SOA(m); soa != nil && !answered(m) {
		soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl, uint32(maxNegative/time.Second))
	}
}

// follow returns the names on the alias chain that starts at m's question, in
// lower case, and its end.
func follow(m *dns.Msg) (chain map[string]bool, end string) {
	end = strings.ToLower(m.Question[0].Name)
	chain = map[string]bool{end: true}
	if m.Question[0].Qtype == dns.TypeCNAME {
		return chain, end
	}
	alias := make(map[string]string)
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok {
			alias[strings.ToLower(c.Hdr.Name)] = strings.ToLower(c.Target)
		}
	}
	for {
		target, ok := alias[end]
		if !ok || chain[target] {
			return chain, end
		}
		chain[target] = true
		end = target
	}
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
