package dnsfake

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// recentTime is how long a reply is given again as it is. It is short, so
	// that nobody has to tell what a change of rules or files makes wrong.
	recentTime = 5 * time.Second
	// recentRoom is how many replies each of two generations holds.
	recentRoom = 2048
	maxWhat    = 1 + 255 + 4 // octets that a reply depends on
)

// recent has the replies of the last seconds. Most queries are for what another
// client, or the same, has just asked.
type recent struct {
	mu       sync.RWMutex // guards what follows
	now, old map[string]*recentReply
}

// recentReply is a reply without what each query has of its own. It does not
// change once it is made.
type recentReply struct {
	wire     []byte
	question int   // where the question ends in wire
	ttls     []int // where the TTLs are in wire
	kind     kind
	name     string // QNAME in the form of key
	made     time.Time
	life     time.Duration
	hosts    uint64     // the generation that it was made with
	policy   *Policy    // likewise
	fake     netip.Addr // that of kind fake
	of       string     // the name that fake stands for
	ttl      time.Duration
}

func newRecent() *recent {
	return &recent{now: make(map[string]*recentReply), old: make(map[string]*recentReply)}
}

// get returns the reply for what, nil if there is none.
func (r *recent) get(what []byte) *recentReply {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if one, ok := r.now[string(what)]; ok {
		return one
	}
	return r.old[string(what)]
}

func (r *recent) put(what []byte, one *recentReply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.now) >= recentRoom {
		r.old, r.now = r.now, make(map[string]*recentReply)
	}
	r.now[string(what)] = one
}

// plain reads a query without anything out of the ordinary: it returns where its
// name ends, and whether there is an OPT record, and with DO set. Others take
// the long way.
func plain(wire []byte) (end int, opt, do, ok bool) {
	const qr, opcode = 1 << 7, 15 << 3
	if len(wire) < headerSize || wire[2]&(qr|opcode) != 0 ||
		binary.BigEndian.Uint64(wire[4:])&^1 != 1<<48 { // one question, an additional record or none
		return 0, false, false, false
	}
	for end = headerSize; end < len(wire) && wire[end] != 0; end += 1 + int(wire[end]) {
		if wire[end] > 63 {
			return 0, false, false, false
		}
	}
	end++
	rest := end + 4
	switch opt = wire[11] == 1; {
	case end-headerSize > 255 || rest > len(wire):
	case !opt:
		return end, false, false, true
	case len(wire) == rest+11 && wire[rest] == 0 && binary.BigEndian.Uint16(wire[rest+1:]) == dns.TypeOPT &&
		wire[rest+6] == 0 && binary.BigEndian.Uint16(wire[rest+9:]) == 0: // version 0, no options
		return end, true, wire[rest+7]>>7 == 1, true
	}
	return 0, false, false, false
}

// what appends to b what a reply depends on: the question, and how it is asked.
// There is nothing when the query is out of the ordinary.
func (s *Server) what(b, query []byte, families Families) []byte {
	end, opt, do, ok := plain(query)
	if !ok {
		return b
	}
	always := s.always()
	how := byte(0)
	for i, set := range []bool{opt, do, query[3]>>4&1 == 1, families.IPv4, families.IPv6, always.IPv4, always.IPv6} {
		if set {
			how |= 1 << i
		}
	}
	b = append(b, how)
	for _, c := range query[headerSize:end] { // lengths are below letters
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return append(b, query[end:end+4]...)
}

// again appends to b the reply to query that was given to the same a short time
// ago, and renews what it promises. There is nothing when it does not hold now.
func (s *Server) again(b, query []byte, one *recentReply, client netip.Addr) []byte {
	age := s.conf.Table.now().Sub(one.made)
	if age < 0 || age >= one.life || one.hosts != s.hostsGeneration() || one.policy != s.conf.Policy() || s.way(client, one.name) != ToHost {
		return b
	}
	if one.fake.IsValid() {
		pair, err := s.conf.Table.Issue(one.of, one.ttl)
		if err != nil || one.fake != pair.IPv4 && one.fake != pair.IPv6 {
			return b
		}
	}
	start := len(b)
	b = append(b, one.wire...)
	wire := b[start:]
	copy(wire, query[:2])             // ID
	wire[2] = wire[2]&^1 | query[2]&1 // RD
	copy(wire[headerSize:], query[headerSize:one.question])
	for _, at := range one.ttls {
		ttl := binary.BigEndian.Uint32(wire[at:])
		binary.BigEndian.PutUint32(wire[at:], ttl-min(ttl, uint32(age/time.Second)))
	}
	s.count(one.kind)
	return b
}

// remember completes one, whose making began before a was looked for, with a and
// its wire form, and keeps it for queries that ask the same.
func (s *Server) remember(one recentReply, query, reply []byte, req *request, a answer) {
	var room [maxWhat]byte
	what := s.what(room[:0], query, req.families)
	whole := len(reply) > 0 && len(reply) <= plainSize && reply[2]>>1&1 == 0 // TC
	if len(what) == 0 || !whole || a.ede != 0 || a.edeText != "" {
		return
	}
	if s.way(req.client, req.name) != ToHost {
		return // by rules, of which again knows only that there is one
	}
	switch a.kind {
	case fake, real, nodata, nxdomain, local:
	default:
		return
	}
	one.wire, one.kind, one.name, one.fake, one.of = reply, a.kind, req.name, a.fake, a.of
	one.question = headerSize + len(what) - 1
	one.ttls = findTTLs(reply, one.question)
	one.life = recentTime
	for _, at := range one.ttls {
		ttl := time.Duration(binary.BigEndian.Uint32(reply[at:])) * time.Second
		one.life = min(one.life, ttl)
		if a.of != "" {
			one.ttl = ttl
		}
	}
	s.recent.put(what, &one)
}

// findTTLs returns where the TTLs are in a message of ours, whose records begin
// at at. That of an OPT record is none (RFC 6891, section 6.1.3).
func findTTLs(wire []byte, at int) (ttls []int) {
	for at < len(wire) {
		for wire[at] != 0 && wire[at] < 64 {
			at += 1 + int(wire[at])
		}
		if wire[at] != 0 { // a pointer
			at++
		}
		at++
		if binary.BigEndian.Uint16(wire[at:]) != dns.TypeOPT {
			ttls = append(ttls, at+4)
		}
		at += 10 + int(binary.BigEndian.Uint16(wire[at+8:]))
	}
	return ttls
}
