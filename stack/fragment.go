package stack

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Bounds of what waits for the rest of its packet. Of packets that never get
// whole, those of one client drown each other and nobody else's.
const (
	maxMending          = 256              // packets
	maxMendingPerClient = 16               // the same of one source address
	maxMendingBytes     = 4 << 20          // of data in all of them, as Linux has it
	maxFragments        = 64               // of a packet: each link takes 1280 bytes (RFC 8200, section 5)
	mendingTime         = 30 * time.Second // Linux's, and half of that in RFC 8200, section 4.5
)

// fragment is what makes a packet a part of another one (RFC 791, section
// 3.2; RFC 8200, section 4.5).
type fragment struct {
	key    fragmentKey
	offset int // of data in the whole, in bytes
	more   bool
	data   []byte
	head   []byte // what comes before data in the whole: the IP header, and of IPv6 extensions
	next   int    // where in head the protocol of data is told, for IPv6
}

type fragmentKey struct {
	ends
	protocol uint8
	id       uint32
}

// fragment returns how p is a part of another packet, if it is.
func (p packet) fragment() (fragment, bool) {
	if p.network == header.IPv4ProtocolNumber {
		ip := header.IPv4(p.bytes)
		if !ip.More() && ip.FragmentOffset() == 0 {
			return fragment{}, false
		}
		return fragment{
			key:    fragmentKey{ends: p.ends(), protocol: ip.Protocol(), id: uint32(ip.ID())},
			offset: int(ip.FragmentOffset()),
			more:   ip.More(),
			head:   p.bytes[:ip.HeaderLength()],
			data:   p.bytes[ip.HeaderLength():ip.TotalLength()],
		}, true
	}
	return p.fragmentIPv6()
}

func (p packet) fragmentIPv6() (fragment, bool) {
	b := p.bytes[:header.IPv6MinimumSize+int(header.IPv6(p.bytes).PayloadLength())]
	next, at := 6, header.IPv6MinimumSize // where the next header is told, and where it is
	for {
		switch header.IPv6ExtensionHeaderIdentifier(b[next]) {
		case header.IPv6HopByHopOptionsExtHdrIdentifier,
			header.IPv6RoutingExtHdrIdentifier,
			header.IPv6DestinationOptionsExtHdrIdentifier:
			if len(b) < at+8 {
				return fragment{}, false
			}
			next, at = at, at+8+8*int(b[at+1])
		case header.IPv6FragmentExtHdrIdentifier:
			if len(b) < at+fragmentHeader {
				return fragment{}, false
			}
			offset := binary.BigEndian.Uint16(b[at+2:])
			return fragment{
				key:    fragmentKey{ends: p.ends(), protocol: b[at], id: binary.BigEndian.Uint32(b[at+4:])},
				offset: int(offset &^ 7),
				more:   offset&1 != 0,
				head:   b[:at],
				next:   next,
				data:   b[at+fragmentHeader:],
			}, true
		default:
			return fragment{}, false
		}
	}
}

// mender puts packets together. It is for one goroutine.
type mender struct {
	now      func() time.Time
	counters *counters
	packets  map[fragmentKey]*mending
	byClient map[netip.Addr]int // how many of packets; no zero values
	age      []fragmentKey      // of packets, the oldest first
	bytes    int                // of data in packets
}

// mending is a packet of which some is there.
type mending struct {
	since time.Time
	head  []byte
	next  int
	size  int // of the data; 0: not yet known
	have  int // of it, in bytes
	parts []part
}

// part is some data of a packet.
type part struct {
	offset int
	data   []byte
}

func newMender(now func() time.Time, counters *counters) *mender {
	return &mender{now: now, counters: counters, packets: make(map[fragmentKey]*mending), byClient: make(map[netip.Addr]int)}
}

// mend returns the packet that f, which p is, makes whole.
func (m *mender) mend(f fragment) (packet, bool) {
	old := m.packets[f.key]
	if old != nil && m.now().Sub(old.since) > mendingTime {
		m.giveUp(f.key)
		old = nil
	}
	if old == nil {
		m.makeRoom(f.key.from)
		old = &mending{since: m.now()}
		m.packets[f.key] = old
		m.byClient[f.key.from]++
		m.age = append(m.age, f.key)
	}
	before := old.have
	if !old.add(f) {
		m.counters.droppedFragments.Add(1)
		m.giveUp(f.key)
		return packet{}, false
	}
	m.bytes += old.have - before
	if old.size == 0 || old.have < old.size || old.head == nil {
		for m.bytes > maxMendingBytes {
			m.giveUp(m.age[0])
		}
		return packet{}, false
	}
	m.drop(f.key)
	p, ok := parsePacket(old.whole(f.key.protocol))
	p.mended = true
	return p, ok
}

// add takes a copy of what f has. It is false where f contradicts what is
// there: data that overlaps may be meant to deceive (RFC 5722, section 4).
func (m *mending) add(f fragment) bool {
	end := f.offset + len(f.data)
	switch {
	case len(f.data) == 0, f.more && len(f.data)%8 != 0,
		max(end, m.size)+max(len(f.head), len(m.head)) > f.key.maxPacket(),
		len(m.parts) == maxFragments, m.size > 0 && end > m.size,
		!f.more && m.size > 0 && m.size != end:
		return false
	}
	for _, other := range m.parts {
		if f.offset == other.offset && len(f.data) == len(other.data) {
			return true // sent twice
		}
		if f.offset < other.offset+len(other.data) && other.offset < end || !f.more && other.offset >= end {
			return false
		}
	}
	if !f.more {
		m.size = end
	}
	if f.offset == 0 {
		m.head, m.next = slices.Clone(f.head), f.next
	}
	m.parts = append(m.parts, part{f.offset, slices.Clone(f.data)})
	m.have += len(f.data)
	return true
}

// whole returns the packet.
func (m *mending) whole(protocol uint8) []byte {
	slices.SortFunc(m.parts, func(a, b part) int { return cmp.Compare(a.offset, b.offset) })
	b := m.head
	for _, part := range m.parts {
		b = append(b, part.data...)
	}
	if header.IPVersion(b) == header.IPv4Version {
		ip := header.IPv4(b)
		ip.SetTotalLength(uint16(len(b)))
		ip.SetFlagsFragmentOffset(0, 0)
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
		return b
	}
	b[m.next] = protocol
	header.IPv6(b).SetPayloadLength(uint16(len(b) - header.IPv6MinimumSize))
	return b
}

// makeRoom drops the oldest packet of a client that has too many, or of all.
func (m *mender) makeRoom(client netip.Addr) {
	full, greedy := len(m.packets) >= maxMending, m.byClient[client] >= maxMendingPerClient
	if !full && !greedy {
		return
	}
	for _, key := range m.age {
		if !greedy || key.from == client {
			m.giveUp(key)
			return
		}
	}
}

// giveUp drops a packet that did not get whole.
func (m *mender) giveUp(key fragmentKey) {
	m.counters.droppedFragments.Add(uint64(len(m.packets[key].parts)))
	m.drop(key)
}

func (m *mender) drop(key fragmentKey) {
	m.bytes -= m.packets[key].have
	delete(m.packets, key)
	if m.byClient[key.from]--; m.byClient[key.from] == 0 {
		delete(m.byClient, key.from)
	}
	m.age = slices.DeleteFunc(m.age, func(k fragmentKey) bool { return k == key })
}
