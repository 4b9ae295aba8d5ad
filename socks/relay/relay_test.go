package relay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var day = Limits{Idle: 24 * time.Hour, HalfClosed: 24 * time.Hour}

// tcpPair returns the two ends of a connection over loopback.
func tcpPair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
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
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

type result struct {
	up, down int64
	err      error
}

func (c *Counts) result(err error) result { return result{c.Up.Load(), c.Down.Load(), err} }

// startStream relays between two loopback connections and returns their outer
// ends.
func startStream(t *testing.T, ctx context.Context) (client, far *net.TCPConn, done chan result) {
	t.Helper()
	client, near := tcpPair(t)
	out, far := tcpPair(t)
	done = make(chan result, 1)
	go func() {
		var counts Counts
		done <- counts.result(Stream(ctx, near, out, day, &counts))
	}()
	return client, far, done
}

func TestStreamCarriesBothWaysAndHalfCloses(t *testing.T) {
	client, far, done := startStream(t, t.Context())
	request, answer := make([]byte, 1<<20), make([]byte, 3<<20)
	rand.Read(request)
	rand.Read(answer)
	go func() {
		client.Write(request)
		client.CloseWrite()
	}()
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, request) {
		t.Fatalf("far read %d bytes, %v; want %d", len(got), err, len(request))
	}
	go func() {
		far.Write(answer)
		far.Close()
	}()
	got, err = io.ReadAll(client)
	if err != nil || !bytes.Equal(got, answer) {
		t.Fatalf("client read %d bytes, %v; want %d", len(got), err, len(answer))
	}
	want := result{up: 1 << 20, down: 3 << 20}
	if r := <-done; r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
}

// A far host that goes away without a word is noticed, unlike the many that are
// asked for little and say farewell.
func TestStreamKeepsFarAlive(t *testing.T) {
	client, near := tcpPair(t)
	out, far := tcpPair(t)
	if err := out.SetKeepAlive(false); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var counts Counts
		done <- Stream(t.Context(), near, out, day, &counts)
	}()
	awaitKeepAlive(t, out)
	client.Close()
	far.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// awaitKeepAlive waits until TCP asks a silent peer of c for a sign of life.
func awaitKeepAlive(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var on, idle int
		raw.Control(func(fd uintptr) {
			on, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			idle, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		})
		if on == 1 && idle == 60 {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("SO_KEEPALIVE is %d, TCP_KEEPIDLE %d", on, idle)
		}
	}
}

func TestStreamPassesOnResets(t *testing.T) {
	for _, tt := range []string{"client", "far"} {
		t.Run(tt, func(t *testing.T) {
			client, far, done := startStream(t, t.Context())
			aborted, other := client, far
			if tt == "far" {
				aborted, other = far, client
			}
			other.Write([]byte("unread data turns a close into a reset"))
			aborted.SetLinger(0)
			aborted.Close()
			if _, err := io.ReadAll(other); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("other side read %v, want a reset", err)
			}
			if r := <-done; r.err == nil {
				t.Error("the relay took a reset for an end")
			}
		})
	}
}

// TestStreamDrainsAfterLateReset: the far host ends, and forgets the connection
// while the client still has to read.
func TestStreamDrainsAfterLateReset(t *testing.T) {
	client, near := tcpPair(t)
	out, far := tcpPair(t)
	answer := make([]byte, 32<<10) // fits into the receive buffer
	rand.Read(answer)
	far.Write(answer)
	far.CloseWrite()
	out.Write([]byte("x")) // unread data makes the close a reset
	for {                  // until the reset has arrived behind the end
		far.Close()
		if gone(out) {
			break
		}
	}
	done := make(chan result, 1)
	go func() {
		var counts Counts
		done <- counts.result(Stream(t.Context(), near, out, day, &counts))
	}()
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, answer) {
		t.Errorf("client read %d bytes, %v; want %d", len(got), err, len(answer))
	}
	client.Close()
	if r := <-done; r.err != nil || r.down != int64(len(answer)) {
		t.Errorf("got %+v", r)
	}
}

func TestStreamEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client, far, done := startStream(t, ctx)
	cancel()
	for _, c := range []net.Conn{client, far} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %v, want a reset", err)
		}
	}
	if r := <-done; !errors.Is(r.err, context.Canceled) {
		t.Errorf("got %v", r.err)
	}
}

// halfConn is one end of a connection in memory that can close for writing.
type halfConn struct {
	net.Conn          // reads, with deadlines
	w        net.Conn // writes
}

func (c halfConn) Write(b []byte) (int, error) { return c.w.Write(b) }
func (c halfConn) CloseWrite() error           { return c.w.Close() }
func (c halfConn) Close() error                { c.w.Close(); return c.Conn.Close() }

// SetReadDeadline succeeds, like that of a socket, when the peer is gone.
func (c halfConn) SetReadDeadline(t time.Time) error {
	if err := c.Conn.SetReadDeadline(t); !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	return nil
}

func halfPipe() (a, b halfConn) {
	r1, w1 := net.Pipe()
	r2, w2 := net.Pipe()
	return halfConn{r1, w2}, halfConn{r2, w1}
}

func TestStreamLimits(t *testing.T) {
	limits := Limits{Idle: 2 * time.Hour, HalfClosed: 5 * time.Minute}
	for _, tt := range []struct {
		name     string
		act      func(client, far net.Conn)
		min, max time.Duration
	}{
		{"idle", func(client, far net.Conn) {}, 2 * time.Hour, 3 * time.Hour},
		{"one busy direction keeps both", func(client, far net.Conn) {
			for range 20 {
				time.Sleep(time.Hour)
				far.Write([]byte("x"))
			}
		}, 22 * time.Hour, 23*time.Hour + time.Minute},
		{"half closed", func(client, far net.Conn) {
			client.(halfConn).CloseWrite()
		}, 5 * time.Minute, 8 * time.Minute},
		{"half closed but busy", func(client, far net.Conn) {
			client.(halfConn).CloseWrite()
			for range 20 {
				time.Sleep(4 * time.Minute)
				far.Write([]byte("x"))
			}
		}, 85 * time.Minute, 88 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, near := halfPipe()
				out, far := halfPipe()
				go io.Copy(io.Discard, client)
				go io.Copy(io.Discard, far)
				go tt.act(client, far)
				started := time.Now()
				err := Stream(t.Context(), near, out, limits, new(Counts))
				if !errors.Is(err, ErrIdle) {
					t.Errorf("got %v, want ErrIdle", err)
				}
				if took := time.Since(started); took < tt.min || took > tt.max {
					t.Errorf("ended after %v, want between %v and %v", took, tt.min, tt.max)
				}
			})
		})
	}
}

// TestStreamStalled has peers that take nothing, so that the relay waits in its
// writes, where no read deadline wakes it.
func TestStreamStalled(t *testing.T) {
	limits := Limits{Idle: 2 * time.Hour, HalfClosed: 5 * time.Minute}
	flood := func(c net.Conn) {
		for {
			if _, err := c.Write(make([]byte, 512)); err != nil {
				return
			}
		}
	}
	for _, tt := range []struct {
		name     string
		act      func(client, far net.Conn)
		min, max time.Duration
	}{
		{"both write and neither reads", func(client, far net.Conn) {
			go flood(client)
			flood(far)
		}, 4 * time.Hour, 5 * time.Hour},
		{"the client has ended and reads nothing", func(client, far net.Conn) {
			client.(halfConn).CloseWrite()
			flood(far)
		}, 10 * time.Minute, 20 * time.Minute},
		{"the client has ended and reads slowly, then nothing", func(client, far net.Conn) {
			client.(halfConn).CloseWrite()
			go flood(far)
			for range 20 {
				time.Sleep(4 * time.Minute)
				io.ReadFull(client, make([]byte, 512))
			}
		}, 90 * time.Minute, 105 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, near := halfPipe()
				out, far := halfPipe()
				started := time.Now()
				go tt.act(client, far)
				err := Stream(t.Context(), near, out, limits, &Counts{})
				if !errors.Is(err, ErrIdle) {
					t.Errorf("got %v, want ErrIdle", err)
				}
				if took := time.Since(started); took < tt.min || took > tt.max {
					t.Errorf("ended after %v, want between %v and %v", took, tt.min, tt.max)
				}
			})
		})
	}
}

// awaitable can be waited for without a read, like a connection of netstack.
type awaitable struct {
	halfConn
	in      *bufio.Reader
	reading *atomic.Int32 // calls of Read
}

func (c awaitable) Await() error {
	if _, err := c.in.Peek(1); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (c awaitable) Read(b []byte) (int, error) {
	c.reading.Add(1)
	defer c.reading.Add(-1)
	return c.in.Read(b)
}

// A session that is silent reads nothing, as that would keep what reads need.
func TestStreamAwaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, near := halfPipe()
		out, far := halfPipe()
		src := awaitable{near, bufio.NewReader(near), new(atomic.Int32)}
		done := make(chan error, 1)
		go func() { done <- Stream(t.Context(), src, out, day, new(Counts)) }()
		for range 3 {
			go client.Write([]byte("words"))
			got := make([]byte, 5)
			if _, err := io.ReadFull(far, got); err != nil || string(got) != "words" {
				t.Fatalf("far read %q, %v", got, err)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if n := src.reading.Load(); n != 0 {
				t.Errorf("%d reads wait in silence, want none", n)
			}
		}
		client.CloseWrite()
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("far read %v, want EOF", err)
		}
		far.CloseWrite()
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("client read %v, want EOF", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
