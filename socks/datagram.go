package socks

import (
	"fmt"
	"syscall"
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
