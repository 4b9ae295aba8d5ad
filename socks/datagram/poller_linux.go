package datagram

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poller receives for many sockets in one goroutine, which lives while there is
// any: to wake one for each datagram would cost more than to receive it. The
// zero Poller is ready for use.
type Poller struct {
	mu      sync.Mutex
	sockets map[int32]*Socket // by descriptor; guarded by mu
	life    *life             // nil while there are no sockets; guarded by mu
}

// life is that of a Poller's goroutine.
type life struct {
	file  *os.File // of epoll(7), on which Go's own poller waits
	raw   syscall.RawConn
	ended chan struct{} // closed at the end
}

// Watch makes the owner of s get what comes in, until Leave.
func (p *Poller) Watch(s *Socket) error {
	err := p.add(s)
	if err != nil {
		p.Leave(s)
		return fmt.Errorf("watching a socket: %w", err)
	}
	return nil
}

func (p *Poller) add(s *Socket) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life == nil {
		if err := p.beginLocked(); err != nil {
			return err
		}
	}
	return s.with(func(fd int) (err error) {
		p.sockets[int32(fd)] = s
		if failed := p.life.raw.Control(func(epoll uintptr) {
			err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
		}); failed != nil {
			return failed
		}
		return err
	})
}

func (p *Poller) beginLocked() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	unix.SetNonblock(fd, true) // without which Go would not wait for it
	l := &life{file: os.NewFile(uintptr(fd), "epoll"), ended: make(chan struct{})}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return err
	}
	p.life, p.sockets = l, make(map[int32]*Socket)
	go p.run(l)
	return nil
}

// Leave forgets s, which is not yet closed. Where it was the last one it waits
// for the goroutine to end.
func (p *Poller) Leave(s *Socket) {
	p.mu.Lock()
	s.with(func(fd int) error {
		delete(p.sockets, int32(fd))
		return nil
	})
	last := p.life
	if len(p.sockets) > 0 || last == nil {
		p.mu.Unlock()
		return
	}
	p.life = nil
	p.mu.Unlock()
	last.file.Close()
	<-last.ended
}

const (
	// maxEvents is how many sockets are told of at a time.
	maxEvents = 64
	// maxReceived is how many messages are taken from a socket before it is the
	// next one's turn. Each may be many datagrams.
	maxReceived = 16
)

// run receives until l's descriptor is closed.
func (p *Poller) run(l *life) {
	defer close(l.ended)
	var (
		events  [maxEvents]unix.EpollEvent
		ready   [maxEvents]*Socket
		inbox   = newInbox()
		current *Socket
	)
	receive := func(fd uintptr) { inbox.receive(fd, current) }
	for l.raw.Read(func(fd uintptr) bool {
		for {
			n := pollEvents(fd, events[:])
			if n == 0 {
				return false
			}
			p.find(events[:n], ready[:n])
			for _, current = range ready[:n] {
				if current != nil {
					current.raw.Control(receive) // fails if it has been closed
				}
			}
		}
	}) == nil {
	}
}

// find looks up the sockets of events.
func (p *Poller) find(events []unix.EpollEvent, sockets []*Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range events {
		sockets[i] = p.sockets[events[i].Fd]
	}
}

// pollEvents is epoll_wait(2) without waiting.
func pollEvents(fd uintptr, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// inbox has room for what comes in.
type inbox struct {
	messages [maxReceived]message
	slots    [maxReceived]slot
}

// message is a struct mmsghdr (recvmmsg(2)).
type message struct {
	unix.Msghdr
	size uint32
}

// slot is where a message is put.
type slot struct {
	payload Buffer
	control [controlRoom]byte
	from    unix.RawSockaddrInet6 // with room for one of IPv4
	vector  unix.Iovec
}

// controlRoom is room for what the kernel tells of a datagram or an error.
const controlRoom = 256

func newInbox() *inbox {
	in := &inbox{}
	for i := range in.slots {
		s, m := &in.slots[i], &in.messages[i]
		s.vector.Base = &s.payload[0]
		s.vector.SetLen(len(s.payload))
		m.Name, m.Iov, m.Control = (*byte)(unsafe.Pointer(&s.from)), &s.vector, &s.control[0]
		m.SetIovlen(1)
		in.reset(i)
	}
	return in
}

// reset makes room in a slot again, whose sizes recvmmsg has overwritten.
func (in *inbox) reset(i int) {
	in.messages[i].Namelen = unix.SizeofSockaddrInet6
	in.messages[i].SetControllen(controlRoom)
}

// receive hands what has come in, or what the network tells, to the owner of a
// socket.
func (in *inbox) receive(fd uintptr, s *Socket) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&in.messages[0])), maxReceived, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR:
		drain(int(fd), s.owner.Failed) // there may be errors alone
		return
	default: // what an earlier datagram met, of which the queue of errors may tell more
		if !drain(int(fd), s.owner.Failed) && !isLate(errno) {
			s.owner.Broke()
		}
		return
	}
	b, from := in.read(0)
	for i := 1; i < int(n); i++ {
		next, source := in.read(i)
		if s.joins && source == from && continues(b, next) {
			b.Size = cmp.Or(b.Size, len(b.Payload))
			b.Payload = append(b.Payload, next.Payload...) // its slot has room
			continue
		}
		s.owner.Took(b, from)
		b, from = next, source
	}
	s.owner.Took(b, from)
	for i := range int(n) {
		in.reset(i)
	}
}

// continues reports whether next can be the end of b: the kernel sends the
// client datagrams of one size, but for a shorter last one, in one go.
func continues(b, next Batch) bool {
	size := cmp.Or(b.Size, len(b.Payload))
	return next.Size == 0 && len(next.Payload) > 0 && len(next.Payload) <= size && len(b.Payload)%size == 0 &&
		next.TOS == b.TOS && next.TTL == b.TTL && len(b.Payload)+len(next.Payload) <= MaxJoined
}

// read returns what is in a slot.
func (in *inbox) read(i int) (Batch, netip.AddrPort) {
	m, s := &in.messages[i], &in.slots[i]
	b := Batch{Payload: s.payload[:m.size], TTL: DefaultTTL}
	for rest := s.control[:m.Controllen]; len(rest) > 0; {
		h, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			break
		}
		rest = next
		switch (Option{int(h.Level), int(h.Type), 0}) {
		case Option{unix.SOL_IP, unix.IP_TTL, 0}, Option{unix.SOL_IPV6, unix.IPV6_HOPLIMIT, 0}:
			b.TTL = uint8(binary.NativeEndian.Uint32(data))
		case Option{unix.SOL_IP, unix.IP_TOS, 0}: // one octet
			b.TOS = data[0]
		case Option{unix.SOL_IPV6, unix.IPV6_TCLASS, 0}:
			b.TOS = uint8(binary.NativeEndian.Uint32(data))
		case Option{unix.IPPROTO_UDP, unix.UDP_GRO, 0}:
			if b.Size = int(binary.NativeEndian.Uint32(data)); b.Size >= int(m.size) {
				b.Size = 0
			}
		}
	}
	return b, addressOf(&s.from)
}
