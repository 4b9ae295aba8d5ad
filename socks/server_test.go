package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type handlerFunc func(ctx context.Context, r *Request)

func (f handlerFunc) ServeSOCKS(ctx context.Context, r *Request) { f(ctx, r) }

// bnd is where the echoing handler says that it has dialled from.
var bnd = netip.MustParseAddrPort("192.0.2.7:7")

// echo accepts a CONNECT, and sends back what the client sends until it ends.
func echo(_ context.Context, r *Request) {
	if r.Command() != CommandConnect {
		r.Refuse(syscall.EOPNOTSUPP)
		return
	}
	conn, err := r.Accept(bnd)
	if err != nil {
		return
	}
	defer conn.Close()
	io.Copy(conn, conn)
}

// start runs s on a loopback listener until the test ends, and returns its
// address.
func start(t *testing.T, s *Server) net.Addr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, ln)
	return ln.Addr()
}

func serve(t *testing.T, s *Server, ln net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	var stopped atomic.Bool
	stop = func() {
		cancel()
		if stopped.Swap(true) {
			return
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func dial(t *testing.T, to net.Addr) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial(to.Network(), to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn.(*net.TCPConn)
}

// transcripts are whole conversations: what the client sends, then closes its
// half, and all that the server says until it closes.
var transcripts = []struct{ what, client, server string }{
	{"no-auth, IPv4", "05 01 00 05 01 00 01 c0000201 0050", "05 00 05 00 00 01 c0000207 0007"},
	{"no-auth, IPv6", "05 01 00 05 01 00 04 20010db8000000000000000000000001 0050", "05 00 05 00 00 01 c0000207 0007"},
	{"no-auth, name", "05 01 00 05 01 00 03 01 61 0050", "05 00 05 00 00 01 c0000207 0007"},
	{"early data", "05 01 00 05 01 00 03 01 61 0050 6869", "05 00 05 00 00 01 c0000207 0007 6869"},
	{"RSV", "05 01 00 05 01 ff 03 01 61 0050", "05 00 05 00 00 01 c0000207 0007"},
	{"curl's methods", "05 02 00 01 05 01 00 03 01 61 0050", "05 00 05 00 00 01 c0000207 0007"},
	{"no-auth last and twice", "05 04 02 80 00 00 05 01 00 03 01 61 0050", "05 00 05 00 00 01 c0000207 0007"},

	{"GSSAPI only", "05 01 01", "05 ff"},
	{"private method", "05 01 7e", "05 ff"},
	{"private method, pipelined", "05 01 7e 05 01 00 03 01 61 0050", "05 ff"},
	{"no methods", "05 00", "05 ff"},
	{"TLS", "16 03 01 02 00", ""},
	{"nothing", "", ""},
	{"greeting cut", "05 02 00", ""},
	{"request cut", "05 01 00 05 01 00 03 02 61", "05 00"},

	{"SOCKS4", "04 01 0050 c0000201 00", "00 5a 0007 c0000207"},
	{"SOCKS4 with a user and early data", "04 01 0050 c0000201 626f6200 6869", "00 5a 0007 c0000207 6869"},
	{"SOCKS4A", "04 01 0050 00000001 00 6100", "00 5a 0007 c0000207"},
	{"SOCKS4A, IPv6 literal", "04 01 0050 000000ff 00 3a3a3100", "00 5a 0007 c0000207"},
	{"SOCKS4A, no name", "04 01 0050 00000001 00 00", "00 5b 0000 00000000"},
	{"SOCKS4A, bad name", "04 01 0050 00000001 00 612062 00", "00 5b 0000 00000000"},
	{"SOCKS4, 0.0.0.0", "04 01 0050 00000000 00", "00 5b 0000 00000000"},
	{"SOCKS4, port 0", "04 01 0000 c0000201 00", "00 5b 0000 00000000"},
	{"SOCKS4, unknown command", "04 03 0050 c0000201 00", "00 5b 0000 00000000"},
	{"SOCKS4, long USERID", "04 01 0050 c0000201" + strings.Repeat("61", 256), "00 5b 0000 00000000"},
	{"SOCKS4, cut", "04 01 0050 c0000201 61", ""},

	{"other version", "05 01 00 04 01 00 01 c0000201 0050", "05 00 05 01 00 01 00000000 0000"},
	{"BIND", "05 01 00 05 02 00 01 c0000201 0050", "05 00 05 07 00 01 00000000 0000"},
	{"UDP ASSOCIATE", "05 01 00 05 03 00 01 00000000 0000", "05 00 05 07 00 01 00000000 0000"},
	{"Tor's RESOLVE_PTR of a name", "05 01 00 05 f1 00 03 01 61 0050", "05 00 05 08 00 01 00000000 0000"},
	{"UDP ASSOCIATE for anywhere", "05 01 00 05 03 00 03 01 30 0050", "05 00 05 07 00 01 00000000 0000"},
	{"UDP ASSOCIATE for nothing", "05 01 00 05 03 00 03 00 0050", "05 00 05 07 00 01 00000000 0000"},
	{"unknown command", "05 01 00 05 09 00 01 c0000201 0050", "05 00 05 07 00 01 00000000 0000"},
	{"Tor's RESOLVE", "05 01 00 05 f0 00 03 01 61 0050", "05 00 05 07 00 01 00000000 0000"},
	{"unknown address type", "05 01 00 05 01 00 02 c0000201 0050", "05 00 05 08 00 01 00000000 0000"},
	{"no name", "05 01 00 05 01 00 03 00 0050", "05 00 05 04 00 01 00000000 0000"},
	{"name with a NUL", "05 01 00 05 01 00 03 03 610062 0050", "05 00 05 04 00 01 00000000 0000"},
	{"port 0", "05 01 00 05 01 00 01 c0000201 0000", "05 00 05 01 00 01 00000000 0000"},
	{"0.0.0.0", "05 01 00 05 01 00 01 00000000 0050", "05 00 05 02 00 01 00000000 0000"},
	{"::", "05 01 00 05 01 00 04 00000000000000000000000000000000 0050", "05 00 05 02 00 01 00000000 0000"},
	{"broadcast", "05 01 00 05 01 00 01 ffffffff 0050", "05 00 05 02 00 01 00000000 0000"},
	{"multicast", "05 01 00 05 01 00 01 e0000001 0050", "05 00 05 02 00 01 00000000 0000"},
	{"IPv6 multicast", "05 01 00 05 01 00 04 ff020000000000000000000000000001 0050", "05 00 05 02 00 01 00000000 0000"},
	{"link-local", "05 01 00 05 01 00 04 fe800000000000000000000000000001 0050", "05 00 05 02 00 01 00000000 0000"},
}

func TestTranscripts(t *testing.T) {
	addr := start(t, &Server{Handler: handlerFunc(echo)})
	for _, tt := range transcripts {
		t.Run(tt.what, func(t *testing.T) {
			conn := dial(t, addr)
			if _, err := conn.Write(unhex(t, tt.client)); err != nil {
				t.Fatal(err)
			}
			conn.CloseWrite()
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.Equal(got, unhex(t, tt.server)) {
				t.Errorf("got % x, %v, want %s", got, err, tt.server)
			}
		})
	}
}

// Each octet comes by its own Read, and late.
func TestTranscriptsByteByByte(t *testing.T) {
	for _, tt := range transcripts {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				go func() {
					defer server.Close()
					if s := (&Server{Handler: handlerFunc(echo), HandshakeTimeout: time.Minute}); !s.serve(t.Context(), server, newSlots(1, new(atomic.Uint64))) {
						hangUp(t.Context(), server)
					}
				}()
				go func() {
					for _, b := range unhex(t, tt.client) {
						client.Write([]byte{b}) // the server may have closed
						time.Sleep(50 * time.Millisecond)
					}
					client.Close()
				}()
				got, _ := io.ReadAll(client) // a closed pipe is an error to its closer
				if !bytes.Equal(got, unhex(t, tt.server)) {
					t.Errorf("got % x, want %s", got, tt.server)
				}
			})
		})
	}
}

func TestHTTPClient(t *testing.T) {
	conn := dial(t, start(t, &Server{Handler: handlerFunc(echo)}))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	conn.CloseWrite()
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.0 400 ") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRequest(t *testing.T) {
	seen := make(chan *Request, 1)
	conn := dial(t, start(t, &Server{Handler: handlerFunc(func(ctx context.Context, r *Request) {
		seen <- r
		r.Refuse(fmt.Errorf("dialling: %w", syscall.ECONNREFUSED))
		if _, err := r.Accept(bnd); err == nil {
			t.Error("a second answer")
		}
	})}))
	conn.Write(unhex(t, "05 01 00 05 01 00 03 01 41 0050"))
	got, err := io.ReadAll(conn)
	if want := unhex(t, "05 00 05 05 00 01 00000000 0000"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got % x, %v, want % x", got, err, want)
	}
	r := <-seen
	if r.Client().String() != conn.LocalAddr().String() || r.Command() != CommandConnect || r.Dest() != (Addr{Name: "a", Port: 80}) || r.User() != "" {
		t.Errorf("request of %s: %d %s", r.Client(), r.Command(), r.Dest())
	}
}

// A reply that the client has not read yet survives the octets that the server
// has not read.
func TestRefuseWithEarlyData(t *testing.T) {
	addr := start(t, &Server{Handler: handlerFunc(func(context.Context, *Request) {})})
	conn := dial(t, addr)
	conn.Write(append(unhex(t, "05 01 00 05 01 00 03 01 61 0050"), make([]byte, 100_000)...))
	got, err := io.ReadAll(conn)
	if want := unhex(t, "05 00 05 01 00 01 00000000 0000"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got % x, %v, want % x", got, err, want)
	}
}

func TestAcceptedIsTCP(t *testing.T) {
	tcp := make(chan bool, 1)
	conn := dial(t, start(t, &Server{Handler: handlerFunc(func(ctx context.Context, r *Request) {
		c, err := r.Accept(bnd)
		_, ok := c.(*net.TCPConn)
		tcp <- ok && err == nil
	})}))
	conn.Write(unhex(t, "05 01 00 05 01 00 03 01 61 0050"))
	if !<-tcp {
		t.Error("the accepted connection cannot splice")
	}
}

func TestClientGoneCancelsDial(t *testing.T) {
	for _, how := range []string{"FIN", "RST"} {
		t.Run(how, func(t *testing.T) {
			pending, cause := make(chan struct{}), make(chan error)
			conn := dial(t, start(t, &Server{Handler: handlerFunc(func(ctx context.Context, r *Request) {
				close(pending)
				<-ctx.Done()
				cause <- context.Cause(ctx)
			})}))
			conn.Write(unhex(t, "05 01 00 05 01 00 03 01 61 0050"))
			<-pending
			if how == "RST" {
				// An RST discards what the client has not read.
				io.ReadFull(conn, make([]byte, 2))
				conn.SetLinger(0)
			}
			conn.Close()
			if err := <-cause; !errors.Is(err, errGone) {
				t.Errorf("cause: %v", err)
			}
		})
	}
}

// A client may send, and even end, before the reply.
func TestEarlyDataWhileDialling(t *testing.T) {
	pending, sent := make(chan struct{}), make(chan struct{})
	conn := dial(t, start(t, &Server{Handler: handlerFunc(func(ctx context.Context, r *Request) {
		close(pending)
		<-sent
		if ctx.Err() != nil {
			t.Error("cancelled")
		}
		echo(ctx, r)
	})}))
	conn.Write(unhex(t, "05 01 00 05 01 00 03 01 61 0050"))
	<-pending
	conn.Write([]byte("early"))
	conn.CloseWrite()
	close(sent)
	got, err := io.ReadAll(conn)
	if want := append(unhex(t, "05 00 05 00 00 01 c0000207 0007"), "early"...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got % x, %v, want % x", got, err, want)
	}
}

func TestClients(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		served bool
	}{{"127.0.0.0/8", true}, {"192.0.2.0/24", false}} {
		s := &Server{
			Handler: handlerFunc(echo),
			Access:  func() *Access { return &Access{Clients: []netip.Prefix{netip.MustParsePrefix(tt.prefix)}} },
		}
		conn := dial(t, start(t, s))
		conn.Write(unhex(t, "05 01 00"))
		_, err := io.ReadFull(conn, make([]byte, 2))
		if (err == nil) != tt.served {
			t.Errorf("clients %s: %v", tt.prefix, err)
		}
		if counted := s.Counters().NotAdmitted == 1; counted == tt.served {
			t.Errorf("clients %s: %+v", tt.prefix, s.Counters())
		}
		conn.Close()
	}
}

// pipes is a listener in memory.
type pipes struct {
	accepts chan net.Conn
	closed  chan struct{}
	once    atomic.Bool
}

func newPipes() *pipes { return &pipes{accepts: make(chan net.Conn), closed: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepts:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	if !l.once.Swap(true) {
		close(l.closed)
	}
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipes) dial() net.Conn {
	client, server := net.Pipe()
	l.accepts <- server
	return client
}

// The deadline is of the whole handshake: a client that sends an octet now and
// then does not extend it.
func TestHandshakeDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		stop := serve(t, &Server{Handler: handlerFunc(echo)}, ln)
		conn, began := ln.dial(), time.Now()
		for {
			if _, err := conn.Write([]byte{5}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took > handshakeTimeout+lingerTime+time.Second {
			t.Errorf("a slow client was left alone after %s", took)
		}
		stop()
	})
}

func TestNoDeadlineAfterHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		stop := serve(t, &Server{Handler: handlerFunc(echo)}, ln)
		conn := ln.dial()
		conn.Write(unhex(t, "05 01 00"))
		io.ReadFull(conn, make([]byte, 2))
		conn.Write(unhex(t, "05 01 00 03 01 61 0050"))
		io.ReadFull(conn, make([]byte, 10))
		time.Sleep(time.Hour)
		conn.Write([]byte{1})
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		conn.Close()
		stop()
	})
}

// A newcomer takes the place of the oldest handshake.
func TestMaxHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		stop := serve(t, &Server{Handler: handlerFunc(echo), MaxHandshakes: 2}, ln)
		connect := func(conn net.Conn) error {
			conn.Write(unhex(t, "05 01 00"))
			io.ReadFull(conn, make([]byte, 2))
			conn.Write(unhex(t, "05 01 00 03 01 61 0050"))
			_, err := io.ReadFull(conn, make([]byte, 10))
			return err
		}
		done := ln.dial()
		if err := connect(done); err != nil {
			t.Fatal(err)
		}
		first := ln.dial()
		synctest.Wait()
		second := ln.dial()
		synctest.Wait()
		third := ln.dial()
		synctest.Wait()
		if _, err := first.Read(make([]byte, 1)); err == nil {
			t.Error("the oldest handshake goes on")
		}
		for what, conn := range map[string]net.Conn{"second": second, "third": third} {
			if err := connect(conn); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := done.Write([]byte("a")); err != nil {
			t.Error("a handshake that is over was counted")
		}
		for _, conn := range []net.Conn{first, second, third, done} {
			conn.Close()
		}
		stop()
	})
}

// from is a connection from an address.
type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(f.addr), 1))
}

// Ten thousand clients of one source that never finish their handshakes do not
// keep out who asks before, among and after them.
func TestFloodOfHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		stop := serve(t, &Server{Handler: handlerFunc(echo)}, ln)
		dial := func(addr string) net.Conn {
			client, server := net.Pipe()
			ln.accepts <- from{server, addr}
			return client
		}
		before := dial("192.0.2.2")
		before.Write([]byte{version})
		var flood []net.Conn
		for range 10_000 {
			conn := dial("192.0.2.1")
			conn.SetDeadline(time.Now().Add(time.Millisecond)) // it may have lost its slot already
			conn.Write([]byte{version, 1})
			flood = append(flood, conn)
		}
		after := dial("192.0.2.1")
		after.Write([]byte{version})
		for what, conn := range map[string]net.Conn{"before": before, "after": after} {
			conn.Write(unhex(t, "01 00"))
			io.ReadFull(conn, make([]byte, 2))
			conn.Write(unhex(t, "05 01 00 03 01 61 0050"))
			if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil {
				t.Errorf("the client %s the flood: %v", what, err)
			}
			conn.Close()
		}
		for _, conn := range flood {
			conn.Close()
		}
		stop()
	})
}

// A flood costs its own source its slots, of IPv6 its /64, and nobody else. One
// of many sources costs the oldest theirs.
func TestSlotsAreShared(t *testing.T) {
	closed := func(c from) bool {
		c.SetReadDeadline(time.Now().Add(-time.Second))
		_, err := c.Read(nil)
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	for _, tt := range []struct {
		what, sources string
		lost          int // of the first ones
	}{
		{"one", "2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 192.0.2.1 192.0.2.1 192.0.2.2", 2},
		{"many", "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7 192.0.2.8 192.0.2.9", 4},
		{"many, with two each", "192.0.2.1 192.0.2.2 192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.3 192.0.2.4", 2},
	} {
		t.Run(tt.what, func(t *testing.T) {
			var displaced atomic.Uint64
			s := newSlots(5, &displaced)
			var conns []from
			var gives []func()
			for addr := range strings.FieldsSeq(tt.sources) {
				near, far := net.Pipe()
				defer far.Close()
				conns = append(conns, from{near, addr})
				gives = append(gives, s.take(conns[len(conns)-1]))
			}
			for i, conn := range conns {
				if got, want := closed(conn), i < tt.lost; got != want {
					t.Errorf("connection %d of %s: closed %v", i, conn.addr, got)
				}
			}
			for _, give := range gives {
				give()
			}
			if int(displaced.Load()) != tt.lost {
				t.Errorf("%d were displaced", displaced.Load())
			}
			if s.taken != 0 || len(s.bySource) != 0 {
				t.Errorf("%d slots taken by %v", s.taken, s.bySource)
			}
		})
	}
}

// told is a TCP listener that tells when a connection of it is closed.
type told struct {
	net.Listener
	closed chan struct{}
}

type toldConn struct {
	*net.TCPConn
	once sync.Once
	tell func()
}

func (l *told) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &toldConn{TCPConn: conn.(*net.TCPConn), tell: func() { l.closed <- struct{}{} }}, nil
}

func (c *toldConn) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(c.tell)
	return err
}

// A client that leaves after any of its octets, by an end or a reset, is seen
// off: nothing waits for it or for its destination.
func TestClientsThatLeave(t *testing.T) {
	users, err := NewUsers(map[string]Password{"u": mustPassword(t, "p")})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Handler: handlerFunc(func(ctx context.Context, r *Request) {
		switch r.Command() {
		case CommandUDPAssociate:
			echoDatagrams(ctx, r)
		case CommandBind:
			r.Announce(bnd)
			fallthrough
		default:
			<-ctx.Done() // the dial goes on until the client has gone
		}
	})}
	for what, words := range map[string]string{
		"CONNECT":       "05 01 02 01 01 75 01 70 05 01 00 03 01 61 0050",
		"BIND":          "05 01 02 01 01 75 01 70 05 02 00 03 01 61 0050",
		"UDP ASSOCIATE": "05 01 02 01 01 75 01 70 05 03 00 01 00000000 0000",
		"SOCKS4A":       "04 01 0050 00000001 75 00 61 00",
	} {
		t.Run(what, func(t *testing.T) {
			s.Access = func() *Access {
				if what == "SOCKS4A" {
					return &Access{}
				}
				return &Access{Users: users}
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			all := unhex(t, words)
			closed := make(chan struct{}, 2*(len(all)+1))
			defer serve(t, s, &told{ln, closed})()
			for octets := range len(all) + 1 {
				for _, reset := range []bool{false, true} {
					conn := dial(t, ln.Addr())
					conn.Write(all[:octets])
					if reset {
						conn.SetLinger(0)
					}
					conn.Close()
				}
			}
			for range cap(closed) {
				select {
				case <-closed:
				case <-time.After(9 * time.Second): // less than a handshake may take
					t.Fatal("one is waited for")
				}
			}
		})
	}
}

func TestServeReturnsErrorOfForeignClose(t *testing.T) {
	ln := newPipes()
	ln.Close()
	if err := (&Server{}).Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

// Cancelling ends a handshake at once, and waits for the handlers.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		var handled atomic.Bool
		stop := serve(t, &Server{Handler: handlerFunc(func(ctx context.Context, r *Request) {
			<-ctx.Done()
			time.Sleep(time.Minute)
			handled.Store(true)
		})}, ln)
		half, full := ln.dial(), ln.dial()
		full.Write(unhex(t, "05 01 00"))
		io.ReadFull(full, make([]byte, 2))
		full.Write(unhex(t, "05 01 00 03 01 61 0050"))
		go io.Copy(io.Discard, full)
		synctest.Wait()
		began := time.Now()
		go func() {
			half.Read(make([]byte, 1))
			if took := time.Since(began); took > 0 {
				t.Errorf("a handshake went on for %s", took)
			}
		}()
		stop()
		if !handled.Load() {
			t.Error("Serve did not wait for a handler")
		}
		full.Close()
	})
}
