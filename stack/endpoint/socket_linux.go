package endpoint

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxChunk is how much of a socket's data becomes one packet: 45 segments of
// 1448 bytes, which is what remains of 1500 with timestamps. What netstack
// sends at once ends some 160 bytes short of 64 KiB, and what is longer by a
// little would become two packets, one of them tiny.
const maxChunk = 45 * 1448

// socket is a stream socket of the kernel as a tcpip.Payloader: netstack takes
// Len bytes out of it, straight into memory of its own. It must be able to,
// since it asks for ever until it has them.
type socket struct {
	raw syscall.RawConn
	len int   // bytes known to be there
	err error // of a read

	// look and read are what raw runs; they pass on values by the fields
	// below, as a closure for each call would be garbage.
	look func(fd uintptr) bool
	read func(fd uintptr)
	into []byte
	n    int
}

// newSocket is false where r is no stream socket of the kernel.
func newSocket(r io.Reader) (*socket, bool) {
	stream, ok := r.(interface {
		syscall.Conn
		CloseRead() error
	})
	if !ok {
		return nil, false
	}
	raw, err := stream.SyscallConn()
	if err != nil {
		return nil, false
	}
	s := &socket{raw: raw}
	s.look = s.lookFD
	s.read = s.readFD
	return s, true
}

// await waits for data, until the read deadline of the socket. At its end the
// error is io.EOF.
func (s *socket) await() error {
	if err := s.raw.Read(s.look); err != nil {
		return err
	}
	return s.err
}

// nowhere is what a look at data is said to go to, which it does not.
var nowhere [maxChunk]byte

// lookFD reports whether there is data, the end or an error. With MSG_TRUNC,
// Linux counts what it would copy, and copies nothing (tcp(7)).
func (s *socket) lookFD(fd uintptr) bool {
	s.len, s.err = again(func() (int, error) {
		return receive(fd, nowhere[:], unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
	})
	switch {
	case s.err == unix.EAGAIN:
		return false
	case s.err != nil:
		s.len, s.err = 0, os.NewSyscallError("recvfrom", s.err)
	case s.len == 0:
		s.err = io.EOF
	}
	return true
}

// receive is recv(2) that never waits, made without telling Go's scheduler of
// it: for a call of a few microseconds that costs as much again.
func receive(fd uintptr, b []byte, flags uintptr) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// again calls try until no signal interrupts it.
func again(try func() (int, error)) (int, error) {
	for {
		if n, err := try(); err != unix.EINTR {
			return n, err
		}
	}
}

// Len implements tcpip.Payloader.
func (s *socket) Len() int { return s.len }

// Read implements tcpip.Payloader. Unlike the socket's own, it goes on after
// the read deadline, as what was announced must come.
func (s *socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.into = p
	if err := s.raw.Control(s.read); err != nil {
		s.err = err
	}
	s.into = nil
	if s.err != nil {
		return 0, s.err
	}
	s.len -= s.n
	return s.n, nil
}

// readFD reads into s.into.
func (s *socket) readFD(fd uintptr) {
	s.n, s.err = again(func() (int, error) { return receive(fd, s.into, unix.MSG_DONTWAIT) })
	switch {
	case s.err != nil:
		s.err = os.NewSyscallError("read", s.err)
	case s.n == 0:
		s.err = io.ErrUnexpectedEOF // somebody else has read, too
	}
}

// sink is a stream socket of the kernel that is written to as receive reads:
// without telling Go's scheduler.
type sink struct {
	raw   syscall.RawConn
	rest  []byte // to be written
	err   error  // of a write
	write func(fd uintptr) bool
}

// newSink is false where w is no stream socket of the kernel.
func newSink(w io.Writer) (*sink, bool) {
	stream, ok := w.(interface {
		syscall.Conn
		CloseWrite() error
	})
	if !ok {
		return nil, false
	}
	raw, err := stream.SyscallConn()
	if err != nil {
		return nil, false
	}
	s := &sink{raw: raw}
	s.write = s.writeFD
	return s, true
}

// Write waits until there is room for all of b, until the write deadline.
func (s *sink) Write(b []byte) (int, error) {
	s.rest, s.err = b, nil
	err := s.raw.Write(s.write)
	if err == nil {
		err = s.err
	}
	n := len(b) - len(s.rest)
	s.rest = nil
	return n, err
}

func (s *sink) writeFD(fd uintptr) bool {
	for len(s.rest) > 0 {
		n, err := again(func() (int, error) { return transmit(fd, s.rest) })
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			s.err = os.NewSyscallError("write", err)
			return true
		}
		s.rest = s.rest[n:]
	}
	return true
}

// transmit is send(2) as receive is recv(2).
func transmit(fd uintptr, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
