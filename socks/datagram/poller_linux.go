package datagram

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poller receives for many sockets in one goroutine, which lives while there is
// any: to wake one for each datagram would cost more than to receive it. Of the
// sockets that a flood comes to, one has its turn each time that all others have
// had theirs. The zero Poller is ready for use.
type Poller struct {
	mu      sync.Mutex
	sockets map[int32]*Socket // by descriptor; guarded by mu
	life    *life             // nil while there are no sockets; guarded by mu
}

// life is that of a Poller's goroutine.
type life struct {
	file  *os.File // of calm, on which Go's own poller waits
	raw   syscall.RawConn
	calm  epoll         // of the other sockets, and of busy
	busy  epoll         // of the sockets that had a whole turn's or more to receive
	ended chan struct{} // closed at the end
}

// newLife returns one whose goroutine is to be started.
func newLife() (*life, error) {
	calm, err := newEpoll()
	if err != nil {
		return nil, err
	}
	unix.SetNonblock(int(calm), true) // without which Go would not wait for it
	l := &life{file: os.NewFile(uintptr(calm), "epoll"), calm: calm, ended: make(chan struct{})}
	if l.raw, err = l.file.SyscallConn(); err == nil {
		l.busy, err = newEpoll()
	}
	if err != nil {
		l.file.Close()
		return nil, err
	}
	if err = calm.add(int(l.busy)); err != nil {
		l.file.Close()
		l.busy.close()
		return nil, err
	}
	return l, nil
}

// move makes s, which has fd, one of the busy sockets if it is not, and else one
// of the others. Where the kernel has no memory for that, it stays.
func (l *life) move(s *Socket, fd int) {
	from, to := l.calm, l.busy
	if s.busy {
		from, to = to, from
	}
	if to.add(fd) == nil {
		from.remove(fd)
		s.busy = !s.busy
	}
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
		l, err := newLife()
		if err != nil {
			return err
		}
		p.life, p.sockets = l, make(map[int32]*Socket)
		go p.run(l)
	}
	return s.with(func(fd int) (err error) {
		p.sockets[int32(fd)] = s
		return p.life.calm.add(fd)
	})
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
	defer l.busy.close()
	t := newTurns(p, l)
	for l.raw.Read(func(uintptr) bool {
		for t.round() {
		}
		return false
	}) == nil {
	}
}

// turns are those of a Poller's sockets to be received from.
type turns struct {
	poller  *Poller
	life    *life
	inbox   *inbox
	events  [maxEvents]unix.EpollEvent
	ready   [maxEvents]*Socket
	current *Socket
	receive func(fd uintptr) // is receiveCurrent
}

func newTurns(p *Poller, l *life) *turns {
	t := &turns{poller: p, life: l, inbox: newInbox()}
	t.receive = t.receiveCurrent
	return t
}

// round gives a turn to the sockets that something has come to, but to one of
// the busy ones only. It reports whether there was any, and may be another.
func (t *turns) round() bool {
	n := t.life.calm.poll(t.events[:])
	busy := slices.ContainsFunc(t.events[:n], func(e unix.EpollEvent) bool { return e.Fd == int32(t.life.busy) })
	lives := t.give(n)
	if busy && lives {
		lives = t.give(t.life.busy.poll(t.events[:1]))
		runtime.Gosched() // there may be no other occasion for long
	}
	return n > 0 && lives
}

// give gives a turn to the sockets of the first n events, unless the life is
// over.
func (t *turns) give(n int) (lives bool) {
	lives = t.find(n)
	for _, t.current = range t.ready[:n] {
		if t.current != nil {
			t.current.raw.Control(t.receive) // fails if it has been closed
		}
	}
	return lives
}

// find looks up the sockets of the first n events. What has come to one that
// has left stays there, and is told of again and again.
func (t *turns) find(n int) (lives bool) {
	t.poller.mu.Lock()
	defer t.poller.mu.Unlock()
	for i, e := range t.events[:n] {
		t.ready[i] = t.poller.sockets[e.Fd]
	}
	return t.poller.life == t.life
}

// receiveCurrent receives from the current socket, and has it be a busy one if
// that was a whole turn's.
func (t *turns) receiveCurrent(fd uintptr) {
	if full := t.inbox.receive(fd, t.current); full != t.current.busy {
		t.life.move(t.current, int(fd))
	}
}

// epoll is a descriptor of epoll(7).
type epoll int

func newEpoll() (epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return epoll(fd), os.NewSyscallError("epoll_create1", err)
}

// add makes e tell when there is something to read from fd.
func (e epoll) add(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(int(e), unix.EPOLL_CTL_ADD, fd, &event))
}

// remove undoes add, as the closing of fd does.
func (e epoll) remove(fd int) { unix.EpollCtl(int(e), unix.EPOLL_CTL_DEL, fd, nil) }

// poll is epoll_wait(2) without waiting.
func (e epoll) poll(events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(e), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (e epoll) close() { unix.Close(int(e)) }

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
// socket. It reports whether the inbox was full.
func (in *inbox) receive(fd uintptr, s *Socket) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&in.messages[0])), maxReceived, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR:
		drain(int(fd), s.owner.Failed) // there may be errors alone
		return false
	default: // what an earlier datagram met, of which the queue of errors may tell more
		if !drain(int(fd), s.owner.Failed) && !isLate(errno) {
			s.owner.Broke()
		}
		return false
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
	return n == maxReceived
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
