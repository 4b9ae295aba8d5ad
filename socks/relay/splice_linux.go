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
	few := newFew(in, out, moved)
	for {
		n, err := few.copy()
		for n == fewBytes && err == nil {
			n, err = copyMany(in, out, moved)
			n = min(n, fewBytes)
		}
		if n == 0 || err != nil {
			return err
		}
	}
}

// few carries portions from in to out that are worth no pipe. Its functions are
// made once, not for each of them.
type few struct {
	in, out     syscall.RawConn
	moved       func(int64)
	read, write func(fd uintptr) (done bool)

	buf  *[fewBytes]byte // nil while there is no portion
	n    int             // bytes of the portion
	rest []byte          // of it, to be written
	err  error           // of the latest call
}

func newFew(in, out syscall.RawConn, moved func(int64)) *few {
	f := &few{in: in, out: out, moved: moved}
	f.read, f.write = f.readOnce, f.writeAll
	return f
}

// copy carries one portion. No bytes are the end.
func (f *few) copy() (n int, err error) {
	if err := f.in.Read(f.read); err != nil {
		return 0, err
	}
	if f.buf == nil {
		return 0, f.err
	}
	err = f.out.Write(f.write)
	fews.Put(f.buf)
	f.buf, f.rest = nil, nil
	if err == nil {
		err = f.err
	}
	return f.n, err
}

// readOnce takes a buffer for what fd has, if anything: the wait is not to keep
// one from others.
func (f *few) readOnce(fd uintptr) bool {
	buf := fews.Get().(*[fewBytes]byte)
	if f.n, f.err = retry(func() (int, error) { return unix.Read(int(fd), buf[:]) }); f.n <= 0 {
		fews.Put(buf)
		return f.err != unix.EAGAIN
	}
	f.buf, f.rest = buf, buf[:f.n]
	return true
}

func (f *few) writeAll(fd uintptr) bool {
	for len(f.rest) > 0 {
		var n int
		if n, f.err = retry(func() (int, error) { return unix.Write(int(fd), f.rest) }); f.err != nil {
			return f.err != unix.EAGAIN
		}
		f.rest = f.rest[n:]
		f.moved(int64(n))
	}
	return true
}

// copyMany does by a pipe what few does by a buffer.
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
