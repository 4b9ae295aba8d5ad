package dnsfake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"sixgate/dnsfake/upstream"
)

// finding is what is known of a name's addresses of one family.
type finding int

const (
	pending finding = iota
	failed
	absent  // NXDOMAIN
	empty   // NODATA
	denied  // it has addresses, but none that may be dialled
	present // it has addresses that may be dialled
	passed  // it has addresses that are the client's to connect to
)

func (f finding) hasAddress() bool { return f >= denied }

// view is a finding with what an answer needs of it.
type view struct {
	finding
	err error         // of failed
	ttl time.Duration // where it has addresses: the least on the alias chain
	soa *dns.SOA      // of absent and empty; nil if none fits the name
	ede uint16        // what upstream told with it (RFC 8914); 0: nothing
}

// want is what a query for addresses of a family, "its", asks for.
type want struct {
	its       bool // the client has its family
	always    bool // all names are faked in its family
	other     bool // the client has the other family
	otherReal bool // the client has the other family, with the real addresses
	passes    bool // there are addresses that are passed
}

// verdict is how to answer.
type verdict int

const (
	wait verdict = iota
	giveFake
	giveReal
	giveNoData
	giveBlocked // NODATA, since none of the addresses may be dialled
	giveNXDomain
	giveServFail
)

// decide says how to answer from what is known of the family asked for and of
// the other one. It waits only for what can change the answer.
func decide(w want, its, other finding) verdict {
	known := its != pending && other != pending
	switch {
	case w.its && (its == passed || !w.always && its.hasAddress()):
		return giveReal
	case w.its && w.always && (its == present || other == present && !(w.passes && its == pending)):
		return giveFake
	case w.its && !w.always && known && other == present && !w.otherReal:
		return giveFake
	case !w.its && (its >= empty || other >= empty):
		return giveNoData // the name exists, and that is all the client can use
	case !known:
		return wait
	// Who fails for one family may have an address there that would do.
	case w.its && its == failed && (other == empty || other == denied && !w.otherReal),
		w.its && other == failed && its >= empty && (w.always || !w.otherReal):
		return giveServFail
	case w.its && (its == denied || other == denied && !w.otherReal):
		return giveBlocked
	// One family that exists outweighs the other's NXDOMAIN: some servers say
	// that to AAAA (RFC 4074, section 4.2).
	case its >= empty || other >= empty:
		return giveNoData
	case its == absent && other == absent,
		its == absent && w.its, other == absent && w.other:
		return giveNXDomain
	}
	return giveServFail
}

// address answers a query for A or AAAA.
func (s *Server) address(ctx context.Context, req *request) answer {
	table, limit := s.conf.Table, s.conf.Policy().newNames
	if limit > 0 && !table.Has(req.name) {
		// Taken now: what is looked up for a name that gets no address in the end
		// would be in the way of others.
		if !s.quotas.name(req.client, table.now(), limit) {
			return s.failure(fmt.Errorf("answering %s: %w", req.client, errTooManyNames))
		}
		req.paid = true
		defer s.refund(req)
	}
	w := s.want(req)
	ctx, cancel := context.WithCancel(ctx)
	var lookups sync.WaitGroup
	defer lookups.Wait()
	defer cancel()
	type found struct {
		qtype uint16
		view
	}
	results := make(chan found, 2)
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		lookups.Go(func() { results <- found{qtype, s.look(ctx, req, qtype)} })
	}
	var its, other view
	for {
		if v := decide(w, its.finding, other.finding); v != wait {
			return s.give(ctx, req, v, its, other)
		}
		f := <-results
		if errors.Is(f.err, errLoop) {
			return s.failure(f.err)
		}
		if f.qtype == req.question[0].Qtype {
			its = f.view
		} else {
			other = f.view
		}
	}
}

// refund gives back the new name that req did not need.
func (s *Server) refund(req *request) {
	if req.paid {
		req.paid = false
		s.quotas.refund(req.client)
	}
}

// trust answers for a name that the last gateway of a chain resolves, if the query
// is of those that precede a connection. Nothing is known of it here, and nobody
// is asked (RFC 3089, section 4).
func (s *Server) trust(req *request) (answer, bool) {
	qtype := req.question[0].Qtype
	switch qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB:
	default:
		return answer{}, false
	}
	if relayable(req.name) && (qtype == dns.TypeA && req.families.IPv4 || qtype == dns.TypeAAAA && req.families.IPv6) {
		return s.fake(req, req.name, s.conf.MaxTTL), true
	}
	return negative(req, nodata, dns.RcodeSuccess, nil, s.conf.MinTTL), true
}

// beyond returns who is asked of a delegated name, or nil.
func (s *Server) beyond(req *request) Exchanger {
	if s.conf.Beyond == nil {
		return nil
	}
	return s.conf.Beyond(req.client, req.name)
}

// want returns what req's query asks for.
func (s *Server) want(req *request) want {
	has, always, passes := req.families, s.always(), len(s.conf.Policy().bypassNets) > 0
	if req.held {
		always = Families{IPv4: true, IPv6: true}
	}
	if req.question[0].Qtype == dns.TypeAAAA {
		return want{has.IPv6, always.IPv6, has.IPv4, has.IPv4 && !always.IPv4, passes}
	}
	return want{has.IPv4, always.IPv4, has.IPv6, has.IPv6 && !always.IPv6, passes}
}

// look finds out what upstream knows of the addresses of one family.
func (s *Server) look(ctx context.Context, req *request, qtype uint16) view {
	q := req.question[0]
	q.Qtype = qtype
	m, told, err := s.ask(ctx, s.conf.Resolver, q, false, false)
	if err != nil {
		return view{finding: failed, err: err}
	}
	v := view{finding: empty, ttl: s.conf.MaxTTL, ede: told.InfoCode}
	if m.Rcode == dns.RcodeNameError {
		v.finding = absent
	}
	ips := upstream.Addrs(m)
	has := req.families.IPv4
	if qtype == dns.TypeAAAA {
		has = req.families.IPv6
	}
	for _, ip := range ips {
		if s.conf.Vet != nil && s.conf.Vet(ip) != nil {
			v.finding = max(v.finding, denied)
		} else {
			v.finding = present
		}
	}
	if has && len(ips) > 0 && s.conf.Policy().bypassesAll(ips...) {
		v.finding = passed
	}
	for _, rr := range m.Answer {
		v.ttl = min(v.ttl, time.Duration(rr.Header().Ttl)*time.Second)
	}
	// The SOA of an alias' target says nothing of the alias.
	if soa := upstream.SOA(m); soa != nil && len(m.Answer) == 0 && dns.IsSubDomain(strings.ToLower(soa.Hdr.Name), req.name+".") {
		v.soa = soa
	}
	return v
}

// give answers as v says, and passes on what upstream told with it.
func (s *Server) give(ctx context.Context, req *request, v verdict, its, other view) answer {
	a := s.given(ctx, req, v, its, other)
	if a.ede == 0 && a.edeText == "" {
		a.ede = cmp.Or(its.ede, other.ede)
	}
	return a
}

func (s *Server) given(ctx context.Context, req *request, v verdict, its, other view) answer {
	ttl := s.ttl(its, other)
	switch v {
	case giveFake:
		return s.fake(req, req.name, ttl)
	case giveReal:
		return s.forward(ctx, req, s.conf.Resolver)
	case giveNoData:
		return negative(req, nodata, dns.RcodeSuccess, its.soa, ttl)
	case giveBlocked:
		a := negative(req, nodata, dns.RcodeSuccess, its.soa, ttl)
		a.ede = dns.ExtendedErrorCodeBlocked
		return a
	case giveNXDomain:
		soa := its.soa
		if its.finding != absent {
			soa = other.soa
		}
		return negative(req, nxdomain, dns.RcodeNameError, soa, s.conf.MinTTL)
	}
	return s.failure(errors.Join(its.err, other.err))
}

// ttl returns how long an answer made from views holds: as long as the real
// addresses do, within our bounds, or not long when there are none.
func (s *Server) ttl(views ...view) time.Duration {
	ttl, known := s.conf.MaxTTL, false
	for _, v := range views {
		if v.hasAddress() {
			ttl, known = min(ttl, v.ttl), true
		}
	}
	if !known {
		return s.conf.MinTTL
	}
	return max(ttl, s.conf.MinTTL)
}

// fake answers with the address that stands for name: one record, owned by the
// name asked for, whatever aliases lead to its addresses, so that no cache
// learns the fake address as that of an alias' target.
func (s *Server) fake(req *request, name string, ttl time.Duration) answer {
	table, limit := s.conf.Table, s.conf.Policy().newNames
	switch {
	case limit == 0 || table.Has(name):
	case req.paid:
		req.paid = false
	case !s.quotas.name(req.client, table.now(), limit):
		return s.failure(fmt.Errorf("answering %s: %w", req.client, errTooManyNames))
	}
	pair, err := table.Issue(name, ttl)
	if err != nil {
		return s.failure(err)
	}
	ip := pair.IPv4
	if req.question[0].Qtype == dns.TypeAAAA {
		ip = pair.IPv6
	}
	return answer{kind: fake, rrs: []dns.RR{addressRR(req.question[0], ip, ttl)}, fake: ip, of: name}
}

// addressRR returns ip as the record of the name that q asks for.
func addressRR(q dns.Question, ip netip.Addr, ttl time.Duration) dns.RR {
	h := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}
	if ip.Is4() {
		return &dns.A{Hdr: h, A: ip.AsSlice()}
	}
	h.Rrtype = dns.TypeAAAA
	return &dns.AAAA{Hdr: h, AAAA: ip.AsSlice()}
}

// negative answers NXDOMAIN or NODATA with soa, or if it is nil with one of our
// own that lets the answer be cached for ttl (RFC 2308, section 5).
func negative(req *request, kind kind, code int, soa *dns.SOA, ttl time.Duration) answer {
	if soa == nil {
		soa = ownSOA(req.question[0].Name, ttl)
	}
	return answer{kind: kind, rcode: code, ns: []dns.RR{soa}}
}

// ownSOA returns the SOA of a zone that nobody serves.
func ownSOA(zone string, ttl time.Duration) *dns.SOA {
	seconds := uint32(ttl / time.Second)
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: seconds},
		Ns:  ".", Mbox: ".", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: seconds,
	}
}
