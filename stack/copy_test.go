package stack_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixgate/stack"
	"sixgate/stack/stacktest"
)

// netstackPair returns the client's and the gateway's end of a connection.
func netstackPair(t *testing.T) (client, near tcpConn) {
	t.Helper()
	host, device := stacktest.New(t)
	accepted := make(chan tcpConn)
	start(t, stack.Config{Device: device, Handler: handler{tcp: func(ctx context.Context, r *stack.TCPRequest) {
		accepted <- accept(t, r)
		<-ctx.Done()
	}}})
	return dial(t, host, fake4), receive(t, accepted, "connection")
}

// kernelPair returns the gateway's and the server's end of a connection over
// loopback.
func kernelPair(t *testing.T) (out, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{dialled, accepted} {
		c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { c.Close() })
	}
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

// pour writes size random bytes in pieces of any length, then a FIN, and
// returns their hash.
func pour(t *testing.T, c interface {
	io.Writer
	CloseWrite() error
}, size int) [sha256.Size]byte {
	random := rand.New(rand.NewPCG(1, uint64(size)))
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{2}).Read(data)
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 1+random.IntN(200_000))
		if _, err := c.Write(rest[:n]); err != nil {
			t.Error(err)
			break
		}
		rest = rest[n:]
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	return sha256.Sum256(data)
}

// copied is what io.Copy returned.
type copied struct {
	n   int64
	err error
}

func copying(dst io.Writer, src io.Reader) chan copied {
	done := make(chan copied, 1)
	go func() {
		n, err := io.Copy(dst, src)
		done <- copied{n, err}
	}()
	return done
}

func TestCopyBothWays(t *testing.T) {
	const size = 4 << 20
	client, near := netstackPair(t)
	out, far := kernelPair(t)
	for _, way := range []struct {
		name string
		from interface {
			io.Writer
			CloseWrite() error
		}
		src, dst net.Conn
		to       io.Reader
	}{
		{"to the kernel", client, near, out, far},
		{"from the kernel", far, out, near, client},
	} {
		done := copying(way.dst, way.src)
		hash := make(chan [sha256.Size]byte, 1)
		go func() { hash <- pour(t, way.from, size) }()
		ended := make(chan copied, 1)
		go func() {
			ended <- <-done
			way.dst.(interface{ CloseWrite() error }).CloseWrite()
		}()
		got, err := io.ReadAll(way.to)
		if err != nil || sha256.Sum256(got) != <-hash {
			t.Errorf("%s: %d bytes of %d, %v", way.name, len(got), size, err)
		}
		if n := <-ended; n.n != size || n.err != nil {
			t.Errorf("%s: Copy: %d, %v", way.name, n.n, n.err)
		}
	}
}

// What is no socket is read as it is.
func TestCopyFromMemory(t *testing.T) {
	client, near := netstackPair(t)
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	done := copying(near, struct{ io.Reader }{bytes.NewReader(data)})
	got := make([]byte, len(data))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes: %v", len(got), err)
	}
	if n := <-done; n.n != int64(len(data)) || n.err != nil {
		t.Errorf("%d, %v", n.n, n.err)
	}
}

// A deadline of the source ends a copy, and not the connections.
func TestCopyDeadline(t *testing.T) {
	client, near := netstackPair(t)
	out, far := kernelPair(t)
	near.SetReadDeadline(time.Now())
	out.SetReadDeadline(time.Now())
	for range 2 {
		if _, err := io.Copy(out, near); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("to the kernel: %v", err)
		}
		if _, err := io.Copy(near, out); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("from the kernel: %v", err)
		}
	}
	for _, way := range []struct{ from, src, dst, to net.Conn }{{client, near, out, far}, {far, out, near, client}} {
		way.src.SetReadDeadline(time.Time{})
		done := copying(way.dst, way.src)
		way.from.Write([]byte("x"))
		if _, err := io.ReadFull(way.to, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		way.src.SetReadDeadline(time.Now())
		if n := <-done; n.n != 1 || !errors.Is(n.err, os.ErrDeadlineExceeded) {
			t.Errorf("moved deadline: %d, %v", n.n, n.err)
		}
	}
}

func TestCopyReset(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		client, near := netstackPair(t)
		out, _ := kernelPair(t)
		done := copying(out, near)
		client.SetLinger(0)
		client.Close()
		if n := <-done; !errors.Is(n.err, syscall.ECONNRESET) {
			t.Errorf("got %v", n.err)
		}
	})
	t.Run("server", func(t *testing.T) {
		_, near := netstackPair(t)
		out, far := kernelPair(t)
		done := copying(near, out)
		far.SetLinger(0)
		far.Close()
		if n := <-done; !errors.Is(n.err, syscall.ECONNRESET) {
			t.Errorf("got %v", n.err)
		}
	})
}

// Closing either connection ends a copy that waits for it.
func TestCopyClosed(t *testing.T) {
	t.Run("source", func(t *testing.T) {
		_, near := netstackPair(t)
		out, _ := kernelPair(t)
		done := copying(near, out)
		out.Close()
		if n := <-done; !errors.Is(n.err, net.ErrClosed) {
			t.Errorf("got %v", n.err)
		}
	})
	t.Run("destination", func(t *testing.T) {
		_, near := netstackPair(t)
		out, far := kernelPair(t)
		near.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		for err := error(nil); err == nil; { // until the client's window is full
			_, err = near.Write(make([]byte, 1<<20))
		}
		near.SetWriteDeadline(time.Now().Add(patience))
		done := copying(near, out)
		go io.Copy(far, endless{})
		near.Close()
		if n := <-done; !errors.Is(n.err, net.ErrClosed) {
			t.Errorf("got %v", n.err)
		}
	})
}

// endless is a Reader without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// Urgent data leave a mark at which the kernel reports nothing to read.
func TestCopyUrgent(t *testing.T) {
	client, near := netstackPair(t)
	out, far := kernelPair(t)
	done := copying(near, out)
	raw, err := far.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	far.Write([]byte("before"))
	raw.Control(func(fd uintptr) { err = unix.Send(int(fd), []byte("!"), unix.MSG_OOB) })
	if err != nil {
		t.Fatal(err)
	}
	far.Write([]byte("after"))
	far.CloseWrite()
	if n := <-done; n.err != nil {
		t.Error(n.err)
	}
	near.CloseWrite()
	if got, err := io.ReadAll(client); err != nil || string(got) != "beforeafter" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Await tells of data, the end and the deadline, and takes nothing.
func TestAwait(t *testing.T) {
	client, conn := netstackPair(t)
	near := conn.(interface {
		tcpConn
		Await() error
	})
	near.SetReadDeadline(time.Now())
	if err := near.Await(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	near.SetReadDeadline(time.Now().Add(time.Minute))
	awaited := make(chan error, 1)
	go func() { awaited <- near.Await() }()
	client.Write([]byte("word"))
	if err := receive(t, awaited, "the end of Await"); err != nil {
		t.Errorf("with data: %v", err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(near, got); err != nil || string(got) != "word" {
		t.Errorf("read %q, %v", got, err)
	}
	client.CloseWrite()
	if err := near.Await(); err != nil {
		t.Errorf("with the end: %v", err)
	}
	if _, err := near.Read(got); err != io.EOF {
		t.Errorf("read %v, want EOF", err)
	}
}
