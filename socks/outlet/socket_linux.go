package outlet

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixgate/socks/datagram"
)

// socket is a kernel's socket for datagrams of one or both families that is
// asked for all it knows of them.
type socket struct {
	conn *net.UDPConn // or one of pings
	raw  syscall.RawConn
	six  bool // of AF_INET6, so that it takes IPv4 in mapped addresses

	mu       sync.Mutex // guards what follows: one sends at a time
	control  []byte
	to4      unix.SockaddrInet4
	to6      unix.SockaddrInet6
	set      [2]header // what the socket sends with, IPv4 and IPv6
	send     sending   // what is being sent
	sendOnce func(fd uintptr)
}

// header is what of a datagram's IP header is set on a socket: it seldom
// changes from one to the next.
type header struct {
	tos, ttl uint8
	whole    bool
}

// sending is a call of Send.
type sending struct {
	b      datagram.Batch
	to     netip.AddrPort
	failed func(*PathError)
	err    error
}

// option is a socket option.
type option struct{ level, name, value int }

// headerOptions are those of header, IPv4 and IPv6: tos, ttl, whole, and what
// the last is set to for no and yes.
var headerOptions = [2]struct{ level, tos, ttl, whole, no, yes int }{
	{unix.SOL_IP, unix.IP_TOS, unix.IP_TTL, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT, unix.IP_PMTUDISC_DO},
	{unix.SOL_IPV6, unix.IPV6_TCLASS, unix.IPV6_UNICAST_HOPS, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_WANT, unix.IPV6_PMTUDISC_DO},
}

// telling are the options by which a socket tells all that it knows, IPv4 and
// IPv6.
var telling = [2][]option{
	{{unix.SOL_IP, unix.IP_RECVERR, 1}, {unix.SOL_IP, unix.IP_RECVTOS, 1}, {unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT}},
	{{unix.SOL_IPV6, unix.IPV6_RECVERR, 1}, {unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1}},
}

// hopsLeft are those for pings beside them: users look at that.
var hopsLeft = [2]option{{unix.SOL_IP, unix.IP_RECVTTL, 1}, {unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1}}

// newSocket takes conn for its own, with more options.
func newSocket(conn *net.UDPConn, more ...option) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, err
	}
	s := &socket{conn: conn, raw: raw}
	s.sendOnce = s.sendLocked
	if err := s.setUp(more); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) setUp(more []option) error {
	var failed error
	err := s.raw.Control(func(fd uintptr) {
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if s.six = domain == unix.AF_INET6; err != nil {
			failed = err
			return
		}
		needed, wanted := telling[0], more
		if s.six {
			needed, wanted = telling[1], append(more, telling[0]...) // for IPv4 beside it, where the socket has that
		}
		for _, o := range needed {
			if err := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); err != nil {
				failed = err
			}
		}
		for _, o := range wanted {
			unix.SetsockoptInt(int(fd), o.level, o.name, o.value) // nothing depends on it
		}
	})
	return errors.Join(err, failed)
}

// Send sends b to to, where the socket is not connected. An error is about b,
// and may be a PathError; failed gets those of earlier datagrams.
func (s *socket) Send(b datagram.Batch, to netip.AddrPort, failed func(*PathError)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send = sending{b: b, to: to, failed: failed}
	if err := s.raw.Control(s.sendOnce); err != nil {
		return err
	}
	return s.send.err
}

// sendLocked sends what is to be sent.
func (s *socket) sendLocked(fd uintptr) {
	b := s.send.b
	s.setHeaderLocked(int(fd), b)
	err := s.sendMessageLocked(int(fd), b)
	if b.Size > 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EIO)) {
		for one := range b.Each { // larger than the path takes, or too many
			err = s.sendMessageLocked(int(fd), one)
		}
	}
	if errors.Is(err, unix.EMSGSIZE) {
		err = tooLarge(int(fd), b, s.send.failed)
	}
	s.send.err = err
}

// tooLarge returns the error that the kernel keeps for a datagram that does
// not fit its path, or nil where another goroutine got it, and tells of it.
func tooLarge(fd int, b datagram.Batch, failed func(*PathError)) error {
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

// setHeaderLocked makes the socket send what b says of the IP header.
func (s *socket) setHeaderLocked(fd int, b datagram.Batch) {
	family := 0
	if s.six && !s.send.to.Addr().Is4() {
		family = 1
	}
	is, want, names := &s.set[family], header{b.TOS, max(b.TTL, 1), b.Whole}, headerOptions[family]
	if *is == want {
		return
	}
	// These cannot fail, and would do no harm.
	if is.tos != want.tos {
		unix.SetsockoptInt(fd, names.level, names.tos, int(want.tos))
	}
	if is.ttl != want.ttl {
		unix.SetsockoptInt(fd, names.level, names.ttl, int(want.ttl))
	}
	if is.whole != want.whole {
		value := names.no
		if want.whole {
			value = names.yes
		}
		unix.SetsockoptInt(fd, names.level, names.whole, value)
	}
	*is = want
}

func (s *socket) sendMessageLocked(fd int, b datagram.Batch) error {
	s.control = s.control[:0]
	if b.Size > 0 {
		s.control = appendSize(s.control, uint16(b.Size))
	}
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	_, err := unix.SendmsgN(fd, b.Payload, s.control, s.addressLocked(s.send.to), flags)
	if isLate(err) { // of an earlier datagram, perhaps, and told once
		drain(fd, s.send.failed)
		_, err = unix.SendmsgN(fd, b.Payload, s.control, s.addressLocked(s.send.to), flags)
	}
	return err
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

// appendSize appends the control message by which the kernel cuts a payload
// into datagrams of this many bytes.
func appendSize(c []byte, size uint16) []byte {
	return appendMessage(c, unix.IPPROTO_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, size))
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

// read returns what came in next, and from where, if anything did. It is
// recvmsg(2) without what unix.Recvmsg does beside it: a getsockopt(2) for each
// address, and to allocate that.
func read(fd uintptr, buf []byte) (datagram.Batch, netip.AddrPort, error) {
	var (
		control [controlRoom]byte
		from    unix.RawSockaddrInet6 // with room for one of IPv4
		vector  = unix.Iovec{Base: &buf[0]}
		message = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&from)), Namelen: unix.SizeofSockaddrInet6, Iov: &vector, Control: &control[0]}
	)
	vector.SetLen(len(buf))
	message.SetIovlen(1)
	message.SetControllen(len(control))
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&message)), unix.MSG_DONTWAIT)
	if errno != 0 {
		return datagram.Batch{}, netip.AddrPort{}, errno
	}
	b := datagram.Batch{Payload: buf[:n], TTL: 64}
	for rest := control[:message.Controllen]; len(rest) > 0; {
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
			if b.Size = int(binary.NativeEndian.Uint32(data)); b.Size >= int(n) {
				b.Size = 0
			}
		}
	}
	return b, source(&from), nil
}

// source reads an address that is of IPv4 if its family says so.
func source(from *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&from.Port))[:])
	switch from.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(from)).Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(from.Addr).Unmap(), port)
	}
	return netip.AddrPort{}
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
				b, from, err := read(fd, buf[:])
				switch {
				case err == nil:
					take(b, from)
				case errors.Is(err, unix.EAGAIN):
					return false
				case errors.Is(err, unix.EINTR):
				default: // what an earlier datagram met; there may be one of a large one's
					if !drain(int(fd), failed) && !isLate(err) {
						return true
					}
				}
			}
		})
		if errors.Is(err, net.ErrClosed) || err == nil {
			return
		}
	}
}

func (s *socket) close() error { return s.conn.Close() }
