package endpoint

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// sockets returns both ends of a connection.
func sockets(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); other.Close() })
	return c.(*net.TCPConn), other.(*net.TCPConn)
}

// TestSink writes more than the kernel has room for.
func TestSink(t *testing.T) {
	near, far := sockets(t)
	near.SetWriteBuffer(8 << 10)
	sink, ok := newSink(near)
	if !ok {
		t.Fatal("no sink")
	}
	if _, ok := newSink(new(bytes.Buffer)); ok {
		t.Error("a sink of no socket")
	}
	sent := make([]byte, 4<<20)
	rand.Read(sent)
	got := make(chan []byte)
	go func() {
		b, err := io.ReadAll(far)
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	for b := range bytes.SplitSeq(sent, []byte("7")) { // none to 64 KiB and more
		for _, b := range [][]byte{b, []byte("7")} {
			if n, err := sink.Write(b); err != nil || n != len(b) {
				t.Fatalf("wrote %d of %d: %v", n, len(b), err)
			}
		}
	}
	near.CloseWrite()
	if b := <-got; !bytes.Equal(b, append(sent, '7')) {
		t.Errorf("%d bytes came, others than the %d that went", len(b), len(sent)+1)
	}
}

// TestSinkFails has nobody take what is written.
func TestSinkFails(t *testing.T) {
	near, far := sockets(t)
	sink, _ := newSink(near)
	near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	sent := make([]byte, 64<<20)
	if n, err := sink.Write(sent); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(sent) {
		t.Errorf("beyond the deadline: %d, %v", n, err)
	}
	near.SetWriteDeadline(time.Now().Add(time.Minute))
	far.SetLinger(0)
	far.Close()
	var err error
	for err == nil {
		_, err = sink.Write(sent[:1])
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("after a reset: %v", err)
	}
	near.Close()
	if _, err := sink.Write(sent[:1]); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
