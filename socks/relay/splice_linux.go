package relay

import (
	"net"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// spliceSize is the pipe that io.Copy's own splice takes, too. As pipes are
// held only while bytes move, few are within the memory that Linux allows a
// user (pipe-user-pages-soft); what is beyond it gets small ones.
const spliceSize = 1 << 20

// pipe holds bytes on their way between two sockets, in the kernel.
type pipe struct{ r, w int }

var pipes = sync.Pool{New: func() any {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return (*pipe)(nil)
	}
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, spliceSize) // a smaller one will do
	p := &pipe{fds[0], fds[1]}
	runtime.AddCleanup(p, func(fds [2]int) {
		unix.Close(fds[0])
		unix.Close(fds[1])
	}, fds)
	return p
}}

// rawConn returns the socket behind c, or nil where there is none.
func rawConn(c net.Conn) syscall.RawConn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// fewBytes is what is cheaper to copy than to splice: what people type, and
// what programs ask and answer.
const fewBytes = 16 << 10

var fews = sync.Pool{New: func() any { return new([fewBytes]byte) }}

// splice carries bytes from in to out until in ends, and tells moved of each
// portion. io.Copy does the same, but holds two pipes for each idle session.
func splice(in, out syscall.RawConn, moved func(int64)) error {
	for {
		n, err := copyFew(in, out, moved)
		for n == fewBytes && err == nil {
			n, err = copyMany(in, out, moved)
			n = min(n, fewBytes)
		}
		if n == 0 || err != nil {
			return err
		}
	}
}

// copyFew waits for bytes from in, and only then takes a buffer for them. No
// bytes are the end.
func copyFew(in, out syscall.RawConn, moved func(int64)) (n int, err error) {
	var buf *[fewBytes]byte
	waited := in.Read(func(fd uintptr) bool {
		buf = fews.Get().(*[fewBytes]byte)
		if n, err = retry(func() (int, error) { return unix.Read(int(fd), buf[:]) }); n <= 0 {
			fews.Put(buf)
			buf = nil // the wait is not to keep it from others
		}
		return err != unix.EAGAIN
	})
	if waited != nil {
		return 0, waited
	}
	if buf == nil {
		return 0, err
	}
	defer fews.Put(buf)
	rest := buf[:n]
	waited = out.Write(func(fd uintptr) bool {
		for len(rest) > 0 {
			var m int
			if m, err = retry(func() (int, error) { return unix.Write(int(fd), rest) }); err != nil {
				return err != unix.EAGAIN
			}
			rest = rest[m:]
			moved(int64(m))
		}
		return true
	})
	if waited != nil {
		err = waited
	}
	return n, err
}

// copyMany does by a pipe what copyFew does by a buffer.
func copyMany(in, out syscall.RawConn, moved func(int64)) (n int, err error) {
	p, n, err := fill(in)
	if n == 0 || err != nil {
		return 0, err
	}
	if err := p.drain(out, n, moved); err != nil {
		return n, err // p is not empty, and no longer of use
	}
	pipes.Put(p)
	return n, nil
}

// fill waits for bytes from in, and only then takes a pipe for them. No bytes
// are the end.
func fill(in syscall.RawConn) (p *pipe, n int, err error) {
	waited := in.Read(func(fd uintptr) bool {
		if p = pipes.Get().(*pipe); p == nil {
			err = syscall.EMFILE
			return true
		}
		n, err = move(int(fd), p.w, spliceSize)
		if n <= 0 {
			pipes.Put(p)
			p = nil // the wait is not to keep it from the collector
		}
		return err != unix.EAGAIN
	})
	if waited != nil {
		return nil, 0, waited
	}
	return p, n, err
}

// drain sends the n bytes that p holds.
func (p *pipe) drain(out syscall.RawConn, n int, moved func(int64)) (err error) {
	waited := out.Write(func(fd uintptr) bool {
		for n > 0 {
			var m int
			if m, err = move(p.r, int(fd), n); err != nil {
				return err != unix.EAGAIN
			}
			n -= m
			moved(int64(m))
		}
		return true
	})
	if waited != nil {
		return waited
	}
	return err
}

func move(from, to, max int) (int, error) {
	return retry(func() (int, error) {
		n, err := unix.Splice(from, nil, to, nil, max, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})
}

// retry calls call until no signal interrupts it.
func retry(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}
