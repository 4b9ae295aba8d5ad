package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// serveTCP serves each connection by handle, and counts them.
func serveTCP(t *testing.T, handle func(n int32, conn *dns.Conn)) Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int32
	accept(t, ln, func(conn net.Conn) { handle(n.Add(1), &dns.Conn{Conn: conn}) })
	return Server{Network: "tcp", Addr: netip.MustParseAddrPort(ln.Addr().String())}
}

// echo answers a query without records.
func echo(conn *dns.Conn) bool {
	q, err := conn.ReadMsg()
	return err == nil && conn.WriteMsg(new(dns.Msg).SetReply(q)) == nil
}

func TestConnectionsEnd(t *testing.T) {
	for name, handle := range map[string]func(n int32, conn *dns.Conn){
		"after each reply": func(_ int32, conn *dns.Conn) { echo(conn) },
		"before the second reply": func(n int32, conn *dns.Conn) {
			if echo(conn); n == 1 {
				conn.ReadMsg()
				return
			}
			echo(conn)
		},
		"in the second reply": func(n int32, conn *dns.Conn) {
			if echo(conn); n == 1 {
				conn.ReadMsg()
				conn.Conn.Write([]byte{0, 50, 1, 2, 3})
				return
			}
			echo(conn)
		},
		"of a server that babbles": func(n int32, conn *dns.Conn) {
			if echo(conn); n == 1 {
				conn.Conn.Write([]byte{0, 3, 'a', 'b', 'c'})
				conn.ReadMsg()
				return
			}
			echo(conn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := resolver(t, Config{}, serveTCP(t, handle))
			for i := range 2 {
				if _, err := r.Exchange(t.Context(), query(fmt.Sprintf("n%d.example.", i), dns.TypeA)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestConnectionsThatAreNoUse(t *testing.T) {
	for name, c := range map[string]struct {
		handle  func(n int32, conn *dns.Conn)
		timeout time.Duration
		want    syscall.Errno
	}{
		"closed at once": {func(int32, *dns.Conn) {}, time.Minute, syscall.ECONNRESET},
		"silent":         {func(_ int32, conn *dns.Conn) { conn.ReadMsg(); conn.ReadMsg() }, 50 * time.Millisecond, syscall.ETIMEDOUT},
	} {
		t.Run(name, func(t *testing.T) {
			r := resolver(t, Config{Timeout: c.timeout}, serveTCP(t, c.handle))
			if _, err := r.Exchange(t.Context(), query("a.example.", dns.TypeA)); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestDeadConnectionIsReplaced has the path of a connection die without a word.
func TestDeadConnectionIsReplaced(t *testing.T) {
	server := serveTCP(t, func(n int32, conn *dns.Conn) {
		for echo(conn) && n > 1 {
		}
		for {
			if _, err := conn.ReadMsg(); err != nil {
				return
			}
		}
	})
	r := resolver(t, Config{Timeout: 2 * time.Second}, server)
	for i, want := range []error{nil, syscall.ETIMEDOUT, nil, nil} {
		if _, err := r.Exchange(t.Context(), query(fmt.Sprintf("n%d.example.", i), dns.TypeA)); !errors.Is(err, want) {
			t.Errorf("question %d: %v, want %v", i, err, want)
		}
	}
}

// TestManyQueriesOnOneConnection has as many as the server takes before it
// answers any.
func TestManyQueriesOnOneConnection(t *testing.T) {
	const queries = 100
	var connections atomic.Int32
	server := serveTCP(t, func(n int32, conn *dns.Conn) {
		connections.Store(n)
		var all []*dns.Msg
		for range queries {
			q, err := conn.ReadMsg()
			if err != nil {
				t.Error(err)
				return
			}
			all = append(all, q)
		}
		for i := range all {
			conn.WriteMsg(new(dns.Msg).SetReply(all[queries-1-i]))
		}
		conn.ReadMsg()
	})
	r := resolver(t, Config{}, server)
	var clients sync.WaitGroup
	for i := range queries {
		clients.Go(func() {
			if _, err := r.Exchange(t.Context(), query(fmt.Sprintf("n%d.example.", i), dns.TypeA)); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestIdleConnectionIsClosed is in a bubble, where time passes when all wait.
func TestIdleConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		ended := make(chan time.Time, 1)
		p := &pipeline{ctx: ctx, work: &work, timeout: time.Second, dial: func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			go func() {
				for conn := (&dns.Conn{Conn: far}); echo(conn); {
				}
				ended <- time.Now()
			}()
			return near, nil
		}}
		q, _, err := question{name: "a.example.", qtype: dns.TypeA, qclass: dns.ClassINET}.query(true, true)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := p.exchange(ctx, q); err != nil {
				t.Fatal(err)
			}
			last := time.Now()
			if idle := (<-ended).Sub(last); idle != streamIdle {
				t.Errorf("closed after %v", idle)
			}
		}
		cancel()
		work.Wait()
	})
}

// FuzzStream reads what a server may send to a waiting query.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 12, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 0})
	f.Add([]byte{0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, sent []byte) {
		reply := make(chan []byte, 1)
		s := &stream{waiting: map[uint16]chan []byte{1: reply}}
		if err := s.read(bytes.NewReader(sent)); err == nil {
			t.Error("a stream without end")
		}
		select {
		case wire := <-reply:
			if len(wire) < headerSize || !bytes.Contains(sent, wire) {
				t.Errorf("delivers %x of %x", wire, sent)
			}
		default:
		}
	})
}
