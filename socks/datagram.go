package socks

import (
	"cmp"
	"errors"
	"fmt"
	"syscall"

	"sixgate/socks/datagram"
)

// AppendDatagram appends the UDP request header (RFC 1928, section 7) for
// addr, and the payload.
func AppendDatagram(b []byte, addr Addr, payload []byte) []byte {
	return append(addr.AppendTo(append(b, 0, 0, 0)), payload...)
}

// ParseDatagram splits a datagram with a UDP request header. One that is a
// fragment is EOPNOTSUPP: such are dropped by who does not reassemble.
func ParseDatagram(b []byte) (addr Addr, payload []byte, err error) {
	if len(b) < 4 {
		return Addr{}, nil, fmt.Errorf("parsing a UDP header of %d octets: %w", len(b), syscall.EPROTO)
	}
	if b[2] != 0 {
		return Addr{}, nil, fmt.Errorf("parsing fragment %#02x of a datagram: %w", b[2], syscall.EOPNOTSUPP)
	}
	b = b[3:]
	n, err := addrLen(b)
	if err != nil {
		return Addr{}, nil, err
	}
	addr, err = parseAddr(b[:n])
	return addr, b[n:], err
}

// addrLen returns how many of the octets of b, at least one, are ATYP, address
// and port.
func addrLen(b []byte) (n int, err error) {
	switch b[0] {
	case atypIPv4:
		n = 1 + 4 + 2
	case atypIPv6:
		n = 1 + 16 + 2
	case atypDomain:
		if len(b) > 1 {
			n = 1 + 1 + int(b[1]) + 2
		}
	default:
		return 0, fmt.Errorf("parsing address type %#02x: %w", b[0], syscall.EAFNOSUPPORT)
	}
	if n == 0 || n > len(b) {
		return 0, fmt.Errorf("parsing an address cut after %d octets: %w", len(b), syscall.EPROTO)
	}
	return n, nil
}

// EachUnwrapped calls take with the datagrams of b without their headers, those
// in a row that go to one address at a time. It uses b's payload up, and returns
// how many it has dropped, as fragments or malformed ones.
func EachUnwrapped(b datagram.Batch, take func(b datagram.Batch, addr Addr)) (fragments, malformed int) {
	run := unwrapped{room: b.Payload[:0]}
	for one := range b.Each {
		addr, payload, err := ParseDatagram(one.Payload)
		if errors.Is(err, syscall.EOPNOTSUPP) {
			fragments++
			continue
		}
		if err != nil {
			malformed++
			continue
		}
		if !run.continues(payload, addr) {
			run.end(take)
			run.addr, run.size = addr, len(payload)
		}
		// Without headers before it, this comes before what is yet to be read.
		run.room = append(run.room, payload...)
		run.count++
	}
	run.end(take)
	return fragments, malformed
}

// unwrapped are datagrams in a row, without their headers.
type unwrapped struct {
	room  []byte
	addr  Addr
	size  int // of each but the last
	count int
}

func (u *unwrapped) continues(payload []byte, addr Addr) bool {
	return 0 < u.count && u.count < datagram.MaxBatch && addr == u.addr && len(payload) > 0 && len(payload) <= u.size && len(u.room) == u.count*u.size
}

func (u *unwrapped) end(take func(datagram.Batch, Addr)) {
	if u.count == 0 {
		return
	}
	b := datagram.Batch{Payload: u.room, TTL: datagram.DefaultTTL}
	if u.count > 1 {
		b.Size = u.size
	}
	take(b, u.addr)
	u.room, u.count = u.room[len(u.room):], 0
}

// EachWrapped calls send with the datagrams of b behind headers for addr, as
// many at a time as the kernel sends in one go.
func EachWrapped(b datagram.Batch, addr Addr, send func(datagram.Batch) error) error {
	buf := datagram.Take()
	defer buf.Give()
	var failed error
	out, header, count := buf[:0], addr.AppendTo([]byte{0, 0, 0}), 0
	flush := func() {
		w := datagram.Batch{Payload: out, TTL: datagram.DefaultTTL}
		if count > 1 {
			w.Size = b.Size + len(header)
		}
		failed = cmp.Or(failed, send(w))
		out, count = buf[:0], 0
	}
	for one := range b.Each {
		if size := len(header) + len(one.Payload); count == datagram.MaxBatch || count > 0 && len(out)+size > datagram.MaxJoined {
			flush()
		}
		out = append(append(out, header...), one.Payload...)
		count++
	}
	flush()
	return failed
}
