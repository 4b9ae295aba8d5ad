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
	// failure is the life of an answer that could not be had: the least that
	// RFC 9520, section 3.2 allows, since a resolver that has just been
	// started anew should not be taken for a dead one for long.
	failure = time.Second
	// maxStale is how long an answer about the name goes on to serve where no
	// fresh one can be had, and staleTTL the TTL it is given then, in seconds
	// (RFC 8767, sections 4 and 5).
	maxStale = 24 * time.Hour
	staleTTL = 30
)

// answer is what the servers had to say to a question. It does not change once
// it is shared.
type answer struct {
	wire    []byte       // the reply, scrubbed; nil when err is not
	rcode   int          // of the reply
	addrs   []netip.Addr // in the reply to a question for addresses
	err     error
	at      time.Time
	expires time.Time
}

// newAnswer makes the answer of what asking at the time of now gave. msg is
// scrubbed.
func newAnswer(msg *dns.Msg, err error, now time.Time) *answer {
	if err == nil {
		msg.Compress = true
		a := &answer{rcode: msg.Rcode, addrs: Addrs(msg), at: now, expires: now.Add(lifetime(msg))}
		if a.wire, err = msg.Pack(); err == nil {
			return a
		}
	}
	return &answer{err: err, at: now, expires: now.Add(failure)}
}

// definite reports whether a tells something about the name.
func (a *answer) definite() bool { return a.err == nil && definite(a.rcode) }

func (a *answer) fresh(now time.Time) bool { return now.Before(a.expires) }

// usable reports whether a may be given to anybody any more.
func (a *answer) usable(now time.Time) bool {
	return a.fresh(now) || a.definite() && now.Before(a.expires.Add(maxStale))
}

// age returns the TTL that is left of ttl seconds.
func (a *answer) age(ttl uint32, now time.Time) uint32 {
	if !a.fresh(now) {
		return staleTTL
	}
	return ttl - min(ttl, uint32(max(0, now.Sub(a.at))/time.Second))
}

// reply returns a's message as the reply to q, its TTLs counted down to now. It
// is the caller's to change.
func (a *answer) reply(q *dns.Msg, now time.Time) (*dns.Msg, error) {
	if a.err != nil {
		return nil, a.err
	}
	m := new(dns.Msg)
	if err := m.Unpack(a.wire); err != nil {
		return nil, err
	}
	m.Id = q.Id
	m.Question[0] = q.Question[0]
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			h := rr.Header()
			if h.Rrtype == dns.TypeOPT {
				continue
			}
			h.Ttl = a.age(h.Ttl, now)
			if strings.EqualFold(h.Name, q.Question[0].Name) {
				h.Name = q.Question[0].Name
			}
		}
	}
	switch {
	case ExtendedError(q) == nil:
		m.Extra = keep(m.Extra, func(h *dns.RR_Header) bool { return h.Rrtype != dns.TypeOPT })
	case !a.fresh(now):
		tell(m, a.staleness())
	}
	return m, nil
}

// staleness returns what to say of a once it is not fresh.
func (a *answer) staleness() *dns.EDNS0_EDE {
	if a.rcode == dns.RcodeNameError {
		return &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeStaleNXDOMAINAnswer}
	}
	return &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeStaleAnswer}
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

// ExtendedError returns the first extended error (RFC 8914) of m, nil if it has
// none. In a reply of Resolver.Exchange it tells that the reply is stale, or
// what the servers told, as why they failed.
func ExtendedError(m *dns.Msg) *dns.EDNS0_EDE {
	if all := extendedErrors(m); len(all) > 0 {
		return all[0]
	}
	return nil
}

func extendedErrors(m *dns.Msg) []*dns.EDNS0_EDE {
	var all []*dns.EDNS0_EDE
	if opt := m.IsEdns0(); opt != nil {
		for _, option := range opt.Option {
			if e, ok := option.(*dns.EDNS0_EDE); ok {
				all = append(all, e)
			}
		}
	}
	return all
}

// tell puts extended errors before those that m has.
func tell(m *dns.Msg, errors ...*dns.EDNS0_EDE) {
	if len(errors) == 0 {
		return
	}
	opt := m.IsEdns0()
	if opt == nil {
		opt = &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		m.Extra = append(m.Extra, opt)
	}
	var options []dns.EDNS0
	for _, e := range errors {
		options = append(options, e)
	}
	opt.Option = append(options, opt.Option...)
}
