package stack

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// cut returns the fragments of a UDP datagram from a client, of these many
// bytes of data each, and the whole.
func cut(ipv4 bool, client byte, id uint16, payload, size int) (parts [][]byte, whole []byte) {
	head := unhex("45000000 00000000 40110000" + ends4)
	head[15] = client
	if !ipv4 {
		head = unhex("60000000 00001140" + ends6)
		head[23] = client
	}
	data := append(unhex("03e80035 0000 0000"), bytes.Repeat([]byte("0123456789abcdef"), (payload+15)/16)[:payload]...)
	binary.BigEndian.PutUint16(data[4:], uint16(len(data)))
	for at := 0; at < len(data); at += size {
		part := data[at:min(len(data), at+size)]
		parts = append(parts, piece(head, id, part, at, at+len(part) < len(data)))
	}
	whole = append(bytes.Clone(head), data...)
	setLength(whole)
	return parts, whole
}

// piece returns a fragment of a packet with this header.
func piece(head []byte, id uint16, part []byte, at int, more bool) []byte {
	b := bytes.Clone(head)
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[4:], id)
		field := uint16(at / 8)
		if more {
			field |= 0x2000
		}
		binary.BigEndian.PutUint16(b[6:], field)
	} else {
		field := uint16(at)
		if more {
			field |= 1
		}
		b[6] = 44
		b = append(b, 17, 0, byte(field>>8), byte(field), 0, 0, byte(id>>8), byte(id))
	}
	b = append(b, part...)
	setLength(b)
	return b
}

func setLength(b []byte) {
	if b[0]>>4 == 6 {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		return
	}
	ip := header.IPv4(b)
	ip.SetTotalLength(uint16(len(b)))
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
}

// mend feeds m with a packet that is a fragment.
func (m *mender) feed(t *testing.T, b []byte) (packet, bool) {
	t.Helper()
	p, ok := parsePacket(b)
	if !ok {
		t.Fatalf("% x is no packet", b)
	}
	f, ok := p.fragment()
	if !ok {
		t.Fatalf("% x is no fragment", b)
	}
	return m.mend(f)
}

// Fragments in any order, some of them twice, become the packet.
func TestMend(t *testing.T) {
	for _, ipv4 := range []bool{true, false} {
		for _, size := range []int{1200, 64, 8} {
			m := newMender(time.Now, &counters{})
			parts, whole := cut(ipv4, 2, 7, size*maxFragments/2, size)
			parts = append(parts, parts[0])
			rand.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			var got []packet
			for _, b := range parts {
				if p, ok := m.feed(t, b); ok {
					got = append(got, p)
				}
			}
			if len(got) != 1 || !got[0].mended || len(got[0].bytes) != len(whole) || !bytes.Equal(got[0].payload, whole[len(whole)-len(got[0].payload):]) {
				t.Errorf("IPv4 %t, %d bytes each: %d packets", ipv4, size, len(got))
			}
			if len(m.packets) > 1 { // the one sent twice may have come last
				t.Errorf("%d packets are left", len(m.packets))
			}
		}
	}
}

// What contradicts itself is dropped whole (RFC 5722, section 4).
func TestMendRefuses(t *testing.T) {
	head := unhex("45000000 00000000 40110000" + ends4)
	options := append(unhex("46000000 00000000 40110000"+ends4), 1, 1, 1, 0)
	data := make([]byte, 2000)
	for name, parts := range map[string][][]byte{
		"overlap":            {piece(head, 1, data[:16], 0, true), piece(head, 1, data[:16], 8, true)},
		"overlap in front":   {piece(head, 1, data[:16], 8, true), piece(head, 1, data[:16], 0, true)},
		"two ends":           {piece(head, 1, data[:16], 16, false), piece(head, 1, data[:16], 32, false)},
		"behind the end":     {piece(head, 1, data[:16], 16, false), piece(head, 1, data[:16], 32, true)},
		"an end before data": {piece(head, 1, data[:16], 32, true), piece(head, 1, data[:16], 16, false)},
		"odd length":         {piece(head, 1, data[:15], 0, true)},
		"empty":              {piece(head, 1, nil, 8, false)},
		"longer than IP":     {piece(head, 1, data[:1000], 65000, false)},
		"options too many":   {piece(head, 1, data[:8], 65504, false), piece(options, 1, data[:8], 0, true)},
		"too long behind":    {piece(options, 1, data[:8], 0, true), piece(head, 1, data[:8], 65504, false)},
	} {
		counters := &counters{}
		m := newMender(time.Now, counters)
		for _, b := range parts {
			if _, ok := m.feed(t, b); ok {
				t.Errorf("%s: a packet", name)
			}
		}
		if len(m.packets) != 0 || len(m.age) != 0 || len(m.byClient) != 0 || counters.droppedFragments.Load() != uint64(len(parts)) {
			t.Errorf("%s: %d packets left, %d fragments dropped", name, len(m.packets), counters.droppedFragments.Load())
		}
	}
}

// Who never sends the rest loses only his own, and all that waits is bounded.
func TestMendIsBounded(t *testing.T) {
	m := newMender(time.Now, &counters{})
	good, _ := cut(true, 200, 1, 100, 64)
	m.feed(t, good[0])
	for id := range uint16(1000) {
		bad, _ := cut(true, 3, id, 100, 64)
		m.feed(t, bad[0])
	}
	if n := len(m.packets); n != maxMendingPerClient+1 {
		t.Errorf("%d packets wait for the rest", n)
	}
	if _, ok := m.feed(t, good[1]); !ok {
		t.Error("a flood of one client has pushed out another's packet")
	}
	for client := range byte(100) {
		for id := range uint16(10) {
			bad, _ := cut(false, client, id, 100, 64)
			m.feed(t, bad[0])
		}
	}
	if n := len(m.packets); n != maxMending || len(m.age) != n {
		t.Errorf("%d packets wait for the rest, %d in order", n, len(m.age))
	}
}

// Large ones are bounded by what they hold, and the latest stays.
func TestMendIsBoundedInBytes(t *testing.T) {
	const large = 60_000
	m := newMender(time.Now, &counters{})
	for client := range byte(maxMendingBytes/large + 10) {
		parts, _ := cut(true, client, 7, 64_000, large)
		for range 2 { // a copy takes no room
			m.feed(t, parts[0])
		}
	}
	if n := len(m.packets); n != maxMendingBytes/large || m.bytes != n*large || len(m.age) != n {
		t.Errorf("%d packets of %d bytes wait for the rest, %d in order", n, m.bytes, len(m.age))
	}
	parts, _ := cut(true, maxMendingBytes/large+9, 7, 64_000, large)
	if _, ok := m.feed(t, parts[1]); !ok {
		t.Error("the latest was pushed out")
	}
	if n := len(m.packets); m.bytes != n*large {
		t.Errorf("%d packets hold %d bytes", n, m.bytes)
	}
}

// An identification may come again after a while.
func TestMendForgets(t *testing.T) {
	now := time.Now()
	m := newMender(func() time.Time { return now }, &counters{})
	parts, _ := cut(true, 2, 1, 100, 64)
	m.feed(t, parts[0])
	now = now.Add(mendingTime + time.Second)
	if _, ok := m.feed(t, parts[1]); ok {
		t.Error("put together with what came long ago")
	}
	if _, ok := m.feed(t, parts[0]); !ok {
		t.Error("not put together with what came just now")
	}
}

// Whatever fragments come, what is put together is a packet of theirs.
func FuzzMend(f *testing.F) {
	for _, ipv4 := range []bool{true, false} {
		parts, _ := cut(ipv4, 2, 7, 100, 64)
		f.Add(parts[0], parts[1])
		f.Add(parts[1], parts[0])
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		m := newMender(time.Now, &counters{})
		for _, b := range [][]byte{first, second} {
			p, ok := parsePacket(b)
			if !ok {
				continue
			}
			part, ok := p.fragment()
			if !ok {
				continue
			}
			if p, ok := m.mend(part); ok && len(p.bytes) > len(first)+len(second) {
				t.Errorf("%d bytes out of %d and %d", len(p.bytes), len(first), len(second))
			}
		}
	})
}
