package outlet

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"sixgate/socks/datagram"
)

// socket is a kernel's socket for datagrams of one or both families that is
// asked for all it knows of them.
type socket struct {
	conn *net.UDPConn // or one of pings
	raw  syscall.RawConn
	six  bool // of AF_INET6, so that it takes IPv4 in mapped addresses

	mu      sync.Mutex // guards what follows: one sends at a time
	control []byte
	to4     unix.SockaddrInet4
	to6     unix.SockaddrInet6
	whole4  bool // what may not be fragmented, by family
	whole6  bool
}

// option is a socket option.
type option struct{ level, name, value int }

// telling are the options by which a socket tells all that it knows, by
// family.
var (
	telling4 = []option{
		{unix.SOL_IP, unix.IP_RECVERR, 1},
		{unix.SOL_IP, unix.IP_RECVTOS, 1},
		{unix.SOL_IP, unix.IP_RECVTTL, 1},
		{unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT},
	}
	telling6 = []option{
		{unix.SOL_IPV6, unix.IPV6_RECVERR, 1},
		{unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1},
		{unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1},
		{unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_WANT},
	}
)

// newSocket takes conn for its own.
func newSocket(conn *net.UDPConn) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, err
	}
	s := &socket{conn: conn, raw: raw}
	if err := s.setUp(); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) setUp() error {
	var failed error
	err := s.raw.Control(func(fd uintptr) {
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if s.six = domain == unix.AF_INET6; err != nil {
			failed = err
			return
		}
		needed, more := telling4, []option(nil)
		if s.six {
			needed, more = telling6, telling4 // one of pings has no use for these
		}
		for _, o := range needed {
			if err := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); err != nil {
				failed = err
			}
		}
		for _, o := range append(more, option{unix.IPPROTO_UDP, unix.UDP_GRO, 1}) {
			unix.SetsockoptInt(int(fd), o.level, o.name, o.value) // nothing depends on it
		}
	})
	return errors.Join(err, failed)
}

// send sends p to to, where the socket is not connected. An error is about p,
// and may be a PathError; failed gets those of earlier ones.
func (s *socket) send(p datagram.Batch, to netip.AddrPort, failed func(*PathError)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sent error
	err := s.raw.Control(func(fd uintptr) {
		s.setWholeLocked(int(fd), to.Addr(), p.Whole)
		sent = s.sendLocked(int(fd), p, to)
		if p.Size > 0 && (errors.Is(sent, unix.EINVAL) || errors.Is(sent, unix.EMSGSIZE) || errors.Is(sent, unix.EIO)) {
			sent = s.sendEachLocked(int(fd), p, to) // larger than the path takes, or too many
		}
		if errors.Is(sent, unix.EMSGSIZE) {
			sent = tooLarge(int(fd), p, failed)
		}
	})
	return errors.Join(err, sent)
}

// tooLarge returns the error that the kernel keeps for a datagram that does
// not fit its path, or nil where another goroutine got it, and tells of it.
func tooLarge(fd int, p datagram.Batch, failed func(*PathError)) error {
	for {
		switch e := nextError(fd); {
		case e == nil:
			return nil
		case e.errno == unix.EMSGSIZE && !e.offender.IsValid():
			e.quoted = p.Payload[:min(len(p.Payload), maxQuoted)]
			return e
		default:
			failed(e)
		}
	}
}

// setWholeLocked forbids the fragmentation of what is sent to an address, or
// allows it.
func (s *socket) setWholeLocked(fd int, to netip.Addr, whole bool) {
	switch {
	case !s.six || to.Is4():
		if s.whole4 != whole {
			s.whole4 = whole
			unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, pick(whole, unix.IP_PMTUDISC_DO, unix.IP_PMTUDISC_DONT))
		}
	case s.whole6 != whole:
		s.whole6 = whole
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, pick(whole, unix.IPV6_PMTUDISC_DO, unix.IPV6_PMTUDISC_WANT))
	}
}

func pick(first bool, a, b int) int {
	if first {
		return a
	}
	return b
}

func (s *socket) sendEachLocked(fd int, p datagram.Batch, to netip.AddrPort) error {
	var failed error
	for one := range p.Each {
		if err := s.sendLocked(fd, one, to); err != nil {
			failed = err
		}
	}
	return failed
}

func (s *socket) sendLocked(fd int, p datagram.Batch, to netip.AddrPort) error {
	c := s.control[:0]
	if !s.six || to.Addr().Is4() {
		c = appendControl(c, unix.SOL_IP, unix.IP_TTL, int32(max(p.TTL, 1)))
		c = appendControl(c, unix.SOL_IP, unix.IP_TOS, int32(p.TOS))
	} else {
		c = appendControl(c, unix.SOL_IPV6, unix.IPV6_HOPLIMIT, int32(max(p.TTL, 1)))
		c = appendControl(c, unix.SOL_IPV6, unix.IPV6_TCLASS, int32(p.TOS))
	}
	if p.Size > 0 {
		c = appendControl16(c, unix.IPPROTO_UDP, unix.UDP_SEGMENT, uint16(p.Size))
	}
	s.control = c
	_, err := unix.SendmsgN(fd, p.Payload, c, s.addressLocked(to), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if isLate(err) { // maybe of an earlier one; the error queue tells
		_, err = unix.SendmsgN(fd, p.Payload, c, s.addressLocked(to), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	return err
}

// isLate reports whether err may be what became of an earlier datagram.
func isLate(err error) bool {
	switch err {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EMSGSIZE, unix.EACCES, unix.ENOPROTOOPT, unix.EPROTO, unix.EOPNOTSUPP:
		return true
	}
	return false
}

// addressLocked returns to for the kernel, or nil for a connected socket.
func (s *socket) addressLocked(to netip.AddrPort) unix.Sockaddr {
	switch {
	case !to.IsValid():
		return nil
	case s.six:
		s.to6.Addr, s.to6.Port = to.Addr().As16(), int(to.Port())
		return &s.to6
	}
	s.to4.Addr, s.to4.Port = to.Addr().As4(), int(to.Port())
	return &s.to4
}

func appendControl(c []byte, level, kind int, value int32) []byte {
	var data [4]byte
	binary.NativeEndian.PutUint32(data[:], uint32(value))
	return appendMessage(c, level, kind, data[:])
}

func appendControl16(c []byte, level, kind int, value uint16) []byte {
	var data [2]byte
	binary.NativeEndian.PutUint16(data[:], value)
	return appendMessage(c, level, kind, data[:])
}

// wordSize is that of the length in a cmsghdr, in bytes.
const wordSize = strconv.IntSize / 8

// appendMessage appends a control message, as cmsg(3) has it.
func appendMessage(c []byte, level, kind int, data []byte) []byte {
	var head [wordSize + 8]byte
	if wordSize == 8 {
		binary.NativeEndian.PutUint64(head[:], uint64(unix.CmsgLen(len(data))))
	} else {
		binary.NativeEndian.PutUint32(head[:], uint32(unix.CmsgLen(len(data))))
	}
	binary.NativeEndian.PutUint32(head[wordSize:], uint32(level))
	binary.NativeEndian.PutUint32(head[wordSize+4:], uint32(kind))
	end := len(c) + unix.CmsgSpace(len(data))
	c = append(append(c, head[:]...), data...)
	for len(c) < end {
		c = append(c, 0)
	}
	return c
}

// controlRoom is room for what the kernel tells of a datagram or an error.
const controlRoom = 256

// read returns what came in next, and from where, if anything did.
func read(fd int, buf []byte) (datagram.Batch, netip.AddrPort, error) {
	var control [controlRoom]byte
	n, m, _, from, err := unix.Recvmsg(fd, buf, control[:], unix.MSG_DONTWAIT)
	if err != nil {
		return datagram.Batch{}, netip.AddrPort{}, err
	}
	b := datagram.Batch{Payload: buf[:n], TTL: 64}
	for rest := control[:m]; len(rest) > 0; {
		h, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			break
		}
		rest = next
		switch (option{int(h.Level), int(h.Type), 0}) {
		case option{unix.SOL_IP, unix.IP_TTL, 0}, option{unix.SOL_IPV6, unix.IPV6_HOPLIMIT, 0}:
			b.TTL = uint8(binary.NativeEndian.Uint32(data))
		case option{unix.SOL_IP, unix.IP_TOS, 0}: // one octet
			b.TOS = data[0]
		case option{unix.SOL_IPV6, unix.IPV6_TCLASS, 0}:
			b.TOS = uint8(binary.NativeEndian.Uint32(data))
		case option{unix.IPPROTO_UDP, unix.UDP_GRO, 0}:
			if b.Size = int(binary.NativeEndian.Uint32(data)); b.Size >= n {
				b.Size = 0
			}
		}
	}
	return b, addrPortOf(from), nil
}

func addrPortOf(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
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

// receive calls take with what comes in, and failed with what the network
// tells, until the socket is closed. A buffer is held only while something is
// there.
func (s *socket) receive(take func(datagram.Batch, netip.AddrPort), failed func(*PathError)) {
	for {
		err := s.raw.Read(func(fd uintptr) bool {
			buf := datagram.Take()
			defer buf.Give()
			for {
				b, from, err := read(int(fd), buf[:])
				switch {
				case err == nil:
					take(b, from)
				case errors.Is(err, unix.EAGAIN):
					for e := nextError(int(fd)); e != nil; e = nextError(int(fd)) {
						failed(e)
					}
					return false
				case !isLate(err) && !errors.Is(err, unix.EINTR):
					return true
				}
			}
		})
		if errors.Is(err, net.ErrClosed) || err == nil {
			return
		}
	}
}

func (s *socket) close() error { return s.conn.Close() }
