package datagram

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// tooLarge returns the error that the kernel keeps for a datagram that does
// not fit its path, or nil where another goroutine got it, and tells of it.
func tooLarge(fd int, b Batch, failed func(*PathError)) error {
	for {
		switch e := nextError(fd); {
		case e == nil:
			return nil
		case e.errno == unix.EMSGSIZE && !e.offender.IsValid():
			e.quoted = b.Payload[:min(len(b.Payload), maxQuoted)]
			return e
		default:
			failed(e)
		}
	}
}

// drain hands all errors in a socket's queue to failed, and reports whether
// there was any.
func drain(fd int, failed func(*PathError)) (any bool) {
	for e := nextError(fd); e != nil; e = nextError(fd) {
		failed(e)
		any = true
	}
	return any
}

// isLate reports whether err may be what became of an earlier datagram.
func isLate(err error) bool {
	switch err {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.ENOPROTOOPT, unix.EPROTO, unix.EOPNOTSUPP:
		return true
	}
	return false
}

// maxQuoted is more of a payload than a client is told again.
const maxQuoted = 1280

// nextError takes an error out of a socket's queue; it is nil where that is
// empty.
func nextError(fd int) *PathError {
	var control [controlRoom]byte
	var quoted [maxQuoted]byte
	for {
		n, m, _, to, err := unix.Recvmsg(fd, quoted[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return nil
		}
		for rest := control[:m]; len(rest) > 0; {
			h, data, next, err := unix.ParseOneSocketControlMessage(rest)
			if err != nil {
				break
			}
			rest = next
			six := h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVERR
			if len(data) < extendedError || !six && (h.Level != unix.SOL_IP || h.Type != unix.IP_RECVERR) {
				continue
			}
			e := parseError(data, addrPortOf(to))
			e.quoted = append([]byte(nil), quoted[:n]...)
			return e
		}
	}
}

// extendedError is the size of a struct sock_extended_err, in bytes: errno,
// origin, type, code, padding, info, data (recvmsg(2), ip(7)); the address of
// who told it follows.
const extendedError = 16

// What ICMP says that its errno does not (RFC 792; RFC 1812, section 5.2.7.1;
// RFC 4443, section 3.3).
const (
	typeUnreachable4  = 3
	typeTimeExceeded4 = 11
	typeTimeExceeded6 = 3
)

func parseError(b []byte, dest netip.AddrPort) *PathError {
	e := &PathError{dest: dest, errno: syscall.Errno(binary.NativeEndian.Uint32(b))}
	origin, kind, code := b[4], b[5], b[6]
	info := int(binary.NativeEndian.Uint32(b[8:]))
	headers := 20 + 8 // of IP and UDP, or ICMP
	if dest.Addr().Is6() {
		headers = 40 + 8
	}
	if e.errno == unix.EMSGSIZE {
		e.room = max(0, info-headers)
	}
	switch origin {
	case unix.SO_EE_ORIGIN_ICMP:
		e.hops = kind == typeTimeExceeded4
		if kind == typeUnreachable4 && (code == 9 || code == 10 || code == 13) {
			e.errno = unix.EACCES // prohibited; the kernel has EHOSTUNREACH and the like
		}
	case unix.SO_EE_ORIGIN_ICMP6:
		e.hops = kind == typeTimeExceeded6
	default:
		return e
	}
	if e.offender = parseOffender(b[extendedError:]); e.offender == dest.Addr() {
		e.offender = netip.Addr{}
	}
	return e
}

// parseOffender reads a struct sockaddr_in or sockaddr_in6.
func parseOffender(b []byte) netip.Addr {
	if len(b) < 8 {
		return netip.Addr{}
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET:
		return netip.AddrFrom4([4]byte(b[4:]))
	case family == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrFrom16([16]byte(b[8:])).Unmap()
	}
	return netip.Addr{}
}
