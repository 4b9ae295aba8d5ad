package datagram

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a kernel's socket for datagrams of one or both families that is
// asked for all it knows of them.
//
// Its system calls never wait, and are made without telling Go's scheduler of
// them: for a call of a few microseconds that costs as much again.
type Socket struct {
	file  *os.File // a blocking one, so that Go's own poller leaves it alone
	raw   syscall.RawConn
	six   bool // of AF_INET6, so that it takes IPv4 in mapped addresses
	joins bool // the owner gets several datagrams of one size at a time
	owner Owner
	busy  bool // whether its last turn was a whole one; for its Poller

	mu       sync.Mutex // guards what follows: one sends at a time
	control  []byte
	set      [2]header // what the socket sends with, IPv4 and IPv6
	send     sending   // what is being sent
	sendOnce func(fd uintptr)
}

// Owner is whom a Socket tells what it hears. None of its methods may wait.
type Owner interface {
	// Took gets what comes in, one call at a time.
	Took(b Batch, from netip.AddrPort)
	// Failed gets what became of what was sent.
	Failed(*PathError)
	// Broke tells that nothing comes in any more.
	Broke()
}

// header is what of a datagram's IP header is set on a socket: it seldom
// changes from one to the next.
type header struct {
	tos, ttl uint8
	whole    bool
}

// sending is a call of Send.
type sending struct {
	b   Batch
	to  netip.AddrPort
	err error
}

// Option is a socket option.
type Option struct{ Level, Name, Value int }

// Backlog is how much may wait at a socket, in bytes of the kernel's memory, which
// bounds what all sockets hold by udp_mem, too: the default holds 1 ms of a
// gigabit, and this 20 ms, for which others may have a processor to themselves.
const Backlog = 4 << 20

// headerOptions are those of header, IPv4 and IPv6: tos, ttl, whole, and what
// the last is set to for no and yes.
var headerOptions = [2]struct{ level, tos, ttl, whole, no, yes int }{
	{unix.SOL_IP, unix.IP_TOS, unix.IP_TTL, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT, unix.IP_PMTUDISC_DO},
	{unix.SOL_IPV6, unix.IPV6_TCLASS, unix.IPV6_UNICAST_HOPS, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_WANT, unix.IPV6_PMTUDISC_DO},
}

// telling are the options by which a socket tells all that it knows, IPv4 and
// IPv6.
var telling = [2][]Option{
	{{unix.SOL_IP, unix.IP_RECVERR, 1}, {unix.SOL_IP, unix.IP_RECVTOS, 1}, {unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT}},
	{{unix.SOL_IPV6, unix.IPV6_RECVERR, 1}, {unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1}},
}

// OpenSocket returns a socket of a family and a protocol for its owner, set up
// by control, which may be nil, and with more options.
func OpenSocket(family, protocol int, control func(network, address string, c syscall.RawConn) error, owner Owner, more ...Option) (*Socket, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &Socket{file: os.NewFile(uintptr(fd), "datagrams"), six: family == unix.AF_INET6, joins: protocol == 0, owner: owner}
	s.sendOnce = s.sendLocked
	if s.raw, err = s.file.SyscallConn(); err == nil && control != nil {
		err = control("udp", "", s.raw)
	}
	if err == nil {
		err = s.setUp(more)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Socket) setUp(more []Option) error {
	needed, wanted := telling[0], more
	if s.six {
		needed, wanted = telling[1], append(more, telling[0]...) // for IPv4 beside it, where the socket has that
	}
	return s.with(func(fd int) error {
		var failed error
		for _, o := range needed {
			if err := unix.SetsockoptInt(fd, o.Level, o.Name, o.Value); err != nil {
				failed = err
			}
		}
		for _, o := range wanted {
			unix.SetsockoptInt(fd, o.Level, o.Name, o.Value) // nothing depends on it
		}
		return failed
	})
}

// with calls f with the descriptor.
func (s *Socket) with(f func(fd int) error) (failed error) {
	err := s.raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

// Bind gives the socket an address and a port, or any port where that is 0. An
// invalid address is all of the host.
func (s *Socket) Bind(at netip.AddrPort) error {
	return s.with(func(fd int) error {
		if s.six {
			to := &unix.SockaddrInet6{Port: int(at.Port())}
			if at.Addr().IsValid() {
				to.Addr = at.Addr().As16()
				to.ZoneId = zone(at.Addr().Zone())
			}
			return os.NewSyscallError("bind", unix.Bind(fd, to))
		}
		to := &unix.SockaddrInet4{Port: int(at.Port())}
		if at.Addr().IsValid() {
			to.Addr = at.Addr().As4()
		}
		return os.NewSyscallError("bind", unix.Bind(fd, to))
	})
}

// zone returns the index of a device by its name; 0: there is none.
func zone(name string) uint32 {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return uint32(device.Index)
}

// Connect makes to the only one that the socket hears.
func (s *Socket) Connect(to netip.Addr) error {
	return s.with(func(fd int) error {
		if s.six {
			return os.NewSyscallError("connect", unix.Connect(fd, &unix.SockaddrInet6{Addr: to.As16()}))
		}
		return os.NewSyscallError("connect", unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4()}))
	})
}

// LocalPort returns the port that the socket has; for pings, that is the
// identifier.
func (s *Socket) LocalPort() uint16 {
	var local netip.AddrPort
	s.with(func(fd int) error {
		a, err := unix.Getsockname(fd)
		local = addrPortOf(a)
		return err
	})
	return local.Port()
}

// Send sends b to to, where the socket is not connected. An error is about b,
// and may be a PathError; the owner gets those of earlier datagrams.
func (s *Socket) Send(b Batch, to netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send = sending{b: b, to: to}
	if s.raw.Control(s.sendOnce) != nil {
		return net.ErrClosed // nothing else is in its way
	}
	return s.send.err
}

// sendLocked sends what is to be sent.
func (s *Socket) sendLocked(fd uintptr) {
	b := s.send.b
	s.setHeaderLocked(int(fd), b)
	err := s.sendMessageLocked(fd, b)
	if b.Size > 0 && (err == unix.EINVAL || err == unix.EMSGSIZE || err == unix.EIO) {
		for one := range b.Each { // larger than the path takes, or too many
			err = s.sendMessageLocked(fd, one)
		}
	}
	if err == unix.EMSGSIZE {
		s.send.err = tooLarge(int(fd), b, s.owner.Failed)
	} else if err != 0 {
		s.send.err = err
	}
}

// setHeaderLocked makes the socket send what b says of the IP header.
func (s *Socket) setHeaderLocked(fd int, b Batch) {
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

func (s *Socket) sendMessageLocked(fd uintptr, b Batch) syscall.Errno {
	s.control = s.control[:0]
	if b.Size > 0 {
		s.control = appendSize(s.control, uint16(b.Size))
	}
	errno := sendMessage(fd, b.Payload, s.control, s.send.to, s.six)
	// It may be of an earlier datagram, and is told once; another may have come
	// since.
	for first := true; isLate(errno) && (drain(int(fd), s.owner.Failed) || first); first = false {
		errno = sendMessage(fd, b.Payload, s.control, s.send.to, s.six)
	}
	return errno
}

func (s *Socket) Close() error { return s.file.Close() }

// sendMessage is sendmsg(2) to to, where that is valid, and never waits.
func sendMessage(fd uintptr, payload, control []byte, to netip.AddrPort, six bool) syscall.Errno {
	var (
		room    unix.RawSockaddrInet6 // with room for one of IPv4
		vector  = unix.Iovec{Base: unsafe.SliceData(payload)}
		message = unix.Msghdr{Iov: &vector, Control: unsafe.SliceData(control)}
	)
	vector.SetLen(len(payload))
	message.SetIovlen(1)
	message.SetControllen(len(control))
	if to.IsValid() {
		message.Name = (*byte)(unsafe.Pointer(&room))
		message.Namelen = putAddress(&room, to, six)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&message)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return errno
}

// putAddress writes an address, of IPv4 as IPv6 maps it if six, and returns its
// size in bytes.
func putAddress(room *unix.RawSockaddrInet6, a netip.AddrPort, six bool) uint32 {
	if six {
		*room = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.Addr().As16()}
		putPort(&room.Port, a.Port())
		return unix.SizeofSockaddrInet6
	}
	four := (*unix.RawSockaddrInet4)(unsafe.Pointer(room))
	*four = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
	putPort(&four.Port, a.Port())
	return unix.SizeofSockaddrInet4
}

// putPort writes a port in the order of the network.
func putPort(room *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(room))[:], port)
}

// addressOf reads an address that is of IPv4 if its family says so.
func addressOf(room *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&room.Port))[:])
	switch room.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(room)).Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(room.Addr).Unmap(), port)
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
