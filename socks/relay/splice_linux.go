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

// splice carries bytes from in to out until in ends, and tells moved of each
// portion. io.Copy does the same, but holds two pipes for each idle session.
func splice(in, out syscall.RawConn, moved func(int64)) error {
	for {
		p, n, err := fill(in)
		if n == 0 || err != nil {
			return err
		}
		err = p.drain(out, n, moved)
		if err != nil {
			return err // p is not empty, and no longer of use
		}
		pipes.Put(p)
	}
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
	for {
		n, err := unix.Splice(from, nil, to, nil, max, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(n), err
		}
	}
}
