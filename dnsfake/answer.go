package dnsfake

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"sixgate/dnsfake/upstream"
)

// Reply answers query, the wire form of a message from client that came over a
// stream or in a datagram. It is nil when no answer is owed.
func (s *Server) Reply(ctx context.Context, query []byte, client netip.AddrPort, stream bool) []byte {
	addr := client.Addr().Unmap()
	if reply, done := s.quick(nil, query, addr); done {
		return reply
	}
	if s.waiting.take(addr) {
		defer s.waiting.give(addr)
	} else if !stream { // the client asks again
		s.count(dropped)
		return nil
	}
	return s.slow(ctx, query, addr, stream)
}

// quick appends to b the reply to query if it has just been given to the same.
// It is also done, without reply, when none is owed.
func (s *Server) quick(b, query []byte, client netip.Addr) (reply []byte, done bool) {
	families := s.families(client)
	if families == (Families{}) {
		s.count(dropped)
		return nil, true
	}
	if !s.quotas.query(client, s.conf.Table.now()) {
		s.tally.limited.Add(1)
		s.count(dropped)
		return nil, true
	}
	var room [maxWhat]byte
	if what := s.what(room[:0], query, families); len(what) > 0 {
		if one := s.recent.get(what); one != nil {
			b = s.again(b, query, one, client.WithZone(""))
		}
	}
	return b, len(b) > 0
}

// slow returns the reply to query, which may have to be looked up.
func (s *Server) slow(ctx context.Context, query []byte, client netip.Addr, stream bool) []byte {
	req, early := parse(query)
	if req == nil {
		s.count(dropped)
		return nil
	}
	req.stream = stream
	req.client = client.WithZone("")
	req.families = s.families(client)
	if early != nil {
		s.count(early.kind)
		return req.reply(*early)
	}
	one := recentReply{made: s.conf.Table.now(), hosts: s.hostsGeneration(), policy: s.conf.Policy()}
	a := s.answer(ctx, req)
	s.count(a.kind)
	if s.conf.Answered != nil {
		q := req.question[0]
		s.conf.Answered(req.client, req.name+" "+dns.Type(q.Qtype).String(), a.failure(q), s.conf.Table.now().Sub(one.made))
	}
	reply := req.reply(a)
	s.remember(one, query, reply, req, a)
	return reply
}

// Explain returns the reply that client would get to query over a stream, and
// counts and tells nothing: nobody has asked. It is nil when no answer is owed.
func (s *Server) Explain(ctx context.Context, query []byte, client netip.Addr) []byte {
	client = client.Unmap()
	req, early := parse(query)
	families := s.families(client)
	if req == nil || families == (Families{}) {
		return nil
	}
	if early != nil {
		return req.reply(*early)
	}
	req.stream, req.client, req.families = true, client.WithZone(""), families
	return req.reply(s.answer(ctx, req))
}

// failure returns why a client that wants to connect cannot; "" if it can, or
// by another answer. Whose an address is, programs ask for what they show.
func (a answer) failure(q dns.Question) string {
	switch {
	case q.Qtype == dns.TypePTR:
		return ""
	case a.kind == nxdomain && a.ede == dns.ExtendedErrorCodeBlocked:
		return "the name is blocked"
	case a.kind == nxdomain:
		return "there is no such name"
	case a.kind == servfail && a.edeText != "":
		return "no answer: " + a.edeText
	case a.kind == servfail:
		return "no answer from the resolvers"
	}
	return ""
}

// answer answers a query that is in good form.
func (s *Server) answer(ctx context.Context, req *request) answer {
	q := req.question[0]
	if a, ok := never(q); ok {
		return a
	}
	if s.loops.see(req.name) {
		return answer{kind: refused, rcode: dns.RcodeRefused}
	}
	if s.conf.Asks != nil && s.conf.Asks(q.Name) {
		s.tally.loop.Add(1)
		s.warn("names get no address", errCircle)
		return answer{kind: refused, rcode: dns.RcodeRefused, edeText: errCircle.Error()}
	}
	if a, ok := reverse(q, req.name, []netip.Prefix{s.conf.Table.pool4, s.conf.Table.pool6}); ok {
		return a
	}
	if a, ok := s.hosts(req); ok {
		return a
	}
	if s.conf.Policy().bypass.match(req.name) {
		return s.forward(ctx, req, s.conf.Resolver)
	}
	// Who sets DO and CD validates, and would take a fake for a forgery (RFC
	// 6147, section 3, item 3).
	validates := req.dnssecOK() && req.head.CheckingDisabled
	way := s.way(req.client, req.name)
	req.held = way == ToGateway
	if way == ToNobody {
		a := negative(req, nxdomain, dns.RcodeNameError, nil, s.conf.MinTTL)
		a.ede = dns.ExtendedErrorCodeBlocked
		return a
	}
	if way == ToChain && !validates {
		if a, ok := s.trust(req); ok {
			return a
		}
	}
	if a, ok := s.own(ctx, req); ok {
		return a
	}
	from := s.conf.Resolver
	if way == ToChain {
		if from = s.beyond(req); from == nil {
			return answer{
				kind: refused, rcode: dns.RcodeRefused,
				ede: dns.ExtendedErrorCodeNotSupported, edeText: "the name is behind a chain, where no resolver is known",
			}
		}
	}
	if validates {
		return s.forward(ctx, req, from)
	}
	if q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA {
		return s.address(ctx, req)
	}
	a := rewrite(s.forward(ctx, req, from))
	if service := q.Qtype == dns.TypeHTTPS || q.Qtype == dns.TypeSVCB; service && a.kind == real && s.conf.Policy().noHTTPS {
		return negative(req, nodata, dns.RcodeSuccess, nil, s.conf.MinTTL)
	}
	return a
}

// never answers what no resolver here is asked for.
func never(q dns.Question) (answer, bool) {
	switch {
	case q.Qtype == dns.TypeOPT, q.Qtype == dns.TypeTSIG:
		return answer{kind: formerr, rcode: dns.RcodeFormatError}, true
	case q.Qclass != dns.ClassINET:
		return answer{kind: refused, rcode: dns.RcodeRefused, ede: dns.ExtendedErrorCodeNotSupported}, true
	case q.Qtype == dns.TypeAXFR, q.Qtype == dns.TypeIXFR:
		return answer{kind: refused, rcode: dns.RcodeRefused, ede: dns.ExtendedErrorCodeProhibited}, true
	case q.Qtype == dns.TypeMAILA, q.Qtype == dns.TypeMAILB:
		return answer{kind: notimp, rcode: dns.RcodeNotImplemented}, true
	case q.Qtype == dns.TypeANY: // RFC 8482, section 4.2
		return answer{kind: local, rrs: []dns.RR{&dns.HINFO{
			Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: 3600},
			Cpu: "RFC8482",
		}}}, true
	}
	return answer{}, false
}

// forward answers with what from says, one of upstream or beyond a chain.
func (s *Server) forward(ctx context.Context, req *request, from Exchanger) answer {
	m, told, err := s.ask(ctx, from, req.question[0], req.dnssecOK(), req.head.CheckingDisabled)
	if err != nil {
		return s.failure(err)
	}
	a := answer{kind: real, rcode: m.Rcode, rrs: m.Answer, ns: m.Ns, extra: m.Extra, truncated: m.Truncated}
	a.ede, a.edeText = told.InfoCode, told.ExtraText
	switch {
	case m.Rcode == dns.RcodeNameError:
		a.kind = nxdomain
	case m.Rcode == dns.RcodeSuccess && len(m.Answer) == 0:
		a.kind = nodata
	}
	return a
}

// errLoop is an upstream that answers with fake addresses: it asks us, or is
// another box like us with the same pools.
var errLoop = errors.New("upstream answered with a fake address")

// errCircle is an upstream that asks us what it was asked.
var errCircle = errors.New("the question comes back from upstream to this gateway")

// serverError is an upstream that tells nothing about the name, but maybe why.
type serverError struct{ told dns.EDNS0_EDE }

func (*serverError) Error() string { return "upstream failed" }

// ask asks from, and returns the reply without OPT, and the extended error
// that it told, a zero one if none.
func (s *Server) ask(ctx context.Context, from Exchanger, q dns.Question, do, cd bool) (m *dns.Msg, told dns.EDNS0_EDE, err error) {
	m = &dns.Msg{Question: []dns.Question{q}}
	m.RecursionDesired = true
	m.CheckingDisabled = cd
	m.SetEdns0(udpSize, do)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{}} // that it is wanted
	if m, err = from.Exchange(ctx, m); err != nil {
		return nil, told, err
	}
	if e := upstream.ExtendedError(m); e != nil {
		told = *e
	}
	m.Extra = slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError, dns.RcodeYXDomain:
	default:
		return nil, told, &serverError{told}
	}
	for _, ip := range upstream.Addrs(m) {
		if s.conf.Table.Contains(ip) {
			return nil, told, errLoop
		}
	}
	return m, told, nil
}

// failure answers SERVFAIL and says why (RFC 8914).
func (s *Server) failure(err error) answer {
	a := answer{kind: servfail, rcode: dns.RcodeServerFailure}
	var errno syscall.Errno
	var server *serverError
	switch {
	case errors.Is(err, ErrPoolFull):
		s.tally.poolFull.Add(1)
		s.warn("names get no address", err)
		a.edeText = "fake pool exhausted"
	case errors.Is(err, errTooManyNames):
		s.tally.tooManyNames.Add(1)
		s.warn("names get no address", err)
		a.edeText = err.Error()
	case errors.Is(err, errLoop):
		s.tally.loop.Add(1)
		s.warn("names get no address", err)
		a.edeText = errLoop.Error()
	case errors.Is(err, upstream.ErrNoServer):
		s.warn("names get no answer", err)
		a.edeText = upstream.ErrNoServer.Error()
	case errors.As(err, &server) && server.told != (dns.EDNS0_EDE{}):
		a.ede, a.edeText = server.told.InfoCode, server.told.ExtraText
	case errors.Is(err, syscall.ETIMEDOUT), server != nil:
		a.ede = dns.ExtendedErrorCodeNoReachableAuthority
	case errors.As(err, &errno): // of all servers: mostly for lack of an uplink
		s.warn("names get no answer", err)
		a.ede, a.edeText = dns.ExtendedErrorCodeNetworkError, errno.Error()
	}
	return a
}

// warn logs at most once a minute what does not go well.
func (s *Server) warn(what string, err error) {
	table := s.conf.Table
	now, quiet := table.now().Sub(table.epoch), s.quiet.Load()
	if now >= time.Duration(quiet) && s.quiet.CompareAndSwap(quiet, int64(now+time.Minute)) {
		s.conf.Logger.Warn(what, "err", err)
	}
}
