package dnsfake

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/miekg/dns"
)

const (
	headerSize = 12   // octets (RFC 1035, section 4.1.1)
	plainSize  = 512  // octets a client without EDNS takes over UDP (RFC 1035, section 4.2.1)
	udpSize    = 1232 // octets of any reply over UDP (DNS flag day 2020; RFC 9715, section 3)
	streamSize = 65535
	maxText    = 128 // octets of an extended error's text
)

// request is a client's query.
type request struct {
	head     dns.MsgHdr
	question []dns.Question // one, or none when it cannot be read
	name     string         // QNAME in the form of key
	opt      *dns.OPT       // nil without EDNS
	client   netip.Addr
	families Families // those of the client's network
	stream   bool
	held     bool // is for a name whose connections must go to the gateway
	paid     bool // has taken a new name of the client's, and not yet used it
}

// answer is what a request gets, but for what is the same in every reply.
type answer struct {
	kind           kind
	rcode          int
	rrs, ns, extra []dns.RR
	truncated      bool
	fake           netip.Addr // that of a fake answer
	of             string     // what it stands for
	ede            uint16     // RFC 8914 INFO-CODE; counts with edeText or if not 0
	edeText        string
}

// parse reads a message from a client. req is nil when it deserves no reply at
// all, and early is not nil when there is nothing to look up for the reply.
func parse(wire []byte) (req *request, early *answer) {
	if len(wire) < headerSize {
		return nil, nil
	}
	flags := binary.BigEndian.Uint16(wire[2:])
	if flags>>15 == 1 { // a response
		return nil, nil
	}
	req = &request{head: dns.MsgHdr{
		Id:               binary.BigEndian.Uint16(wire),
		Opcode:           int(flags >> 11 & 15),
		RecursionDesired: flags>>8&1 == 1,
		CheckingDisabled: flags>>4&1 == 1,
	}}
	var m dns.Msg
	err := m.Unpack(wire)
	if req.head.Opcode != dns.OpcodeQuery {
		if err == nil && len(m.Question) == 1 {
			req.question = m.Question
		}
		return req, &answer{kind: notimp, rcode: dns.RcodeNotImplemented}
	}
	if err != nil || !whole(wire, &m) || !req.takeOPT(&m) {
		return req, &answer{kind: formerr, rcode: dns.RcodeFormatError}
	}
	req.question = m.Question
	req.name = key(m.Question[0].Name)
	if req.opt != nil && req.opt.Version() != 0 {
		return req, &answer{kind: badvers, rcode: dns.RcodeBadVers}
	}
	return req, nil
}

// whole reports whether m has all that wire's header announces, with one
// question (RFC 9619) that is spelled out: the codec takes less.
func whole(wire []byte, m *dns.Msg) bool {
	for i, n := range []int{len(m.Question), len(m.Answer), len(m.Ns), len(m.Extra)} {
		if int(binary.BigEndian.Uint16(wire[4+2*i:])) != n {
			return false
		}
	}
	if len(m.Question) != 1 {
		return false
	}
	at := headerSize
	for at < len(wire) && wire[at] != 0 {
		if wire[at] > 63 { // a pointer, where there is nothing yet to point to
			return false
		}
		at += 1 + int(wire[at])
	}
	return at+1+4 <= len(wire)
}

// takeOPT finds the OPT record and reports whether all is well with it: there is
// at most one, in its section, of the root (RFC 6891, section 6.1.1), and a
// cookie in it has a size that cookies have (RFC 7873, section 5.2.2).
func (req *request) takeOPT(m *dns.Msg) bool {
	for _, rr := range m.Extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		if req.opt != nil || opt.Hdr.Name != "." {
			return false
		}
		for _, option := range opt.Option {
			if c, ok := option.(*dns.EDNS0_COOKIE); ok {
				if size := len(c.Cookie) / 2; size != 8 && (size < 16 || size > 40) { // it is hex
					return false
				}
			}
		}
		req.opt = opt
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeOPT {
				return false
			}
		}
	}
	return true
}

func (req *request) dnssecOK() bool { return req.opt != nil && req.opt.Do() }

// keepalive reports whether the client asks how long its connection may be idle.
// In a datagram that means nothing (RFC 7828, section 3.2.1).
func (req *request) keepalive() bool {
	return req.stream && slices.ContainsFunc(req.opt.Option, func(option dns.EDNS0) bool {
		return option.Option() == dns.EDNS0TCPKEEPALIVE
	})
}

// size returns the most octets that the reply may have.
func (req *request) size() int {
	switch {
	case req.stream:
		return streamSize
	case req.opt == nil:
		return plainSize
	}
	return min(max(int(req.opt.UDPSize()), plainSize), udpSize)
}

// reply returns a as the wire form of the reply to req.
func (req *request) reply(a answer) []byte {
	m := &dns.Msg{
		MsgHdr: dns.MsgHdr{
			Id:                 req.head.Id,
			Response:           true,
			Opcode:             req.head.Opcode,
			Truncated:          a.truncated,
			RecursionDesired:   req.head.RecursionDesired,
			RecursionAvailable: true,
			CheckingDisabled:   req.head.CheckingDisabled,
			Rcode:              a.rcode,
		},
		Compress: true,
		Question: req.question,
		Answer:   a.rrs,
		Ns:       a.ns,
		Extra:    a.extra,
	}
	opt := req.replyOPT(a)
	m.Extra = append(m.Extra, opt...)
	wire, err := m.Pack()
	if err != nil { // only what upstream said can be unfit to send
		m.Rcode = dns.RcodeServerFailure
	} else if len(wire) <= req.size() {
		return wire
	} else {
		m.Truncated = true
	}
	m.Answer, m.Ns, m.Extra = nil, nil, opt
	if wire, err = m.Pack(); err != nil {
		return nil
	}
	return wire
}

// cut returns the beginning of text, whole characters. Upstream may send more
// than a client takes, who must get it besides a question of any length (RFC
// 8914, section 3).
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// replyOPT returns the OPT record of the reply, as a section: there is one if
// the query had one (RFC 6891, section 7).
func (req *request) replyOPT(a answer) []dns.RR {
	if req.opt == nil {
		return nil
	}
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(udpSize)
	if req.dnssecOK() {
		opt.SetDo()
	}
	if a.ede != 0 || a.edeText != "" {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: a.ede, ExtraText: cut(a.edeText)})
	}
	if a.kind == fake {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeSynthesized})
	}
	if req.keepalive() {
		opt.Option = append(opt.Option, &dns.EDNS0_TCP_KEEPALIVE{Timeout: uint16(streamIdle / (100 * time.Millisecond))})
	}
	return []dns.RR{opt}
}
