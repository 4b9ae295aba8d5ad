package outlet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/proxy"

	"sixgate/socks"
	"sixgate/socks/datagram"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hosts is a resolver that knows some names, and remembers what it was asked.
type hosts struct {
	known map[string]string
	mu    sync.Mutex
	asked []string // guarded by mu
}

func (h *hosts) LookupNetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.asked, name) {
		h.asked = append(h.asked, name)
	}
	ip, err := netip.ParseAddr(h.known[name])
	if err != nil || network != "ip" && networkOf(ip) != network {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return []netip.Addr{ip}, nil
}

// node is a small SOCKS gateway on loopback that dials directly.
type node struct {
	hosts
	addr socks.Addr
	mu   sync.Mutex
	seen []socks.Addr // requests, guarded by mu

	noUDP bool
}

// newNode runs a node at ip until the test ends.
func newNode(t *testing.T, ip string, known map[string]string) *node {
	t.Helper()
	ln := listen(t, ip)
	n := &node{hosts: hosts{known: known}, addr: socks.AddrFromAddrPort(ln.Addr().(*net.TCPAddr).AddrPort())}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- (&socks.Server{Handler: n}).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

func listen(t *testing.T, ip string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func (n *node) ServeSOCKS(ctx context.Context, r *socks.Request) {
	n.mu.Lock()
	n.seen = append(n.seen, r.Dest())
	n.mu.Unlock()
	direct := NewDirect(DirectConfig{Resolver: n})
	switch r.Command() {
	case socks.CommandUDPAssociate:
		n.serveUDP(ctx, r, direct)
		return
	case socks.CommandBind:
		n.serveBind(ctx, r, direct)
		return
	case socks.CommandResolvePTR:
		direct.Vet = NewGuard(nil, nil, nil).Vet
		if name, err := direct.ResolvePTR(ctx, r.Dest().IP); err != nil {
			r.Refuse(err)
		} else {
			r.Resolved(socks.Addr{Name: name})
		}
		return
	}
	far, err := direct.Dial(ctx, "tcp", r.Dest())
	if err != nil {
		r.Refuse(err)
		return
	}
	defer far.Close()
	near, err := r.Accept(far.LocalAddr().(*net.TCPAddr).AddrPort())
	if err != nil {
		return
	}
	join(ctx, near, far)
}

func (n *node) serveUDP(ctx context.Context, r *socks.Request, direct *Direct) {
	if n.noUDP {
		r.Refuse(syscall.EOPNOTSUPP)
		return
	}
	far, err := direct.ListenPacket(ctx)
	if err != nil {
		r.Refuse(err)
		return
	}
	near, err := r.Associate()
	if err != nil {
		far.Close()
		return
	}
	defer near.Close()
	defer context.AfterFunc(ctx, func() { near.Close() })()
	defer far.Close()
	far.Forward(func(b datagram.Batch, from socks.Addr) { near.Send(b, from) })
	near.Forward(func(b datagram.Batch, dest socks.Addr) {
		if far.Find(ctx, dest) == nil {
			far.Send(b, dest)
		}
	})
	<-near.Done()
}

func (n *node) serveBind(ctx context.Context, r *socks.Request, direct *Direct) {
	b, err := direct.Bind(ctx, r.Dest())
	if err != nil {
		r.Refuse(err)
		return
	}
	defer b.Close()
	r.Announce(b.Addr())
	far, peer, err := b.Accept(ctx)
	if err != nil {
		r.Refuse(err)
		return
	}
	defer far.Close()
	if near, err := r.Accept(peer); err == nil {
		join(ctx, near, far)
	}
}

// join relays until both have ended.
func join(ctx context.Context, near, far net.Conn) {
	defer near.Close()
	defer context.AfterFunc(ctx, func() { near.Close(); far.Close() })()
	var wg sync.WaitGroup
	for _, p := range [][2]net.Conn{{near, far}, {far, near}} {
		wg.Go(func() {
			io.Copy(p[0], p[1])
			p[0].(*net.TCPConn).CloseWrite()
		})
	}
	wg.Wait()
}

// echoServer sends back what comes, and returns its address and a channel of
// where its clients come from.
func echoServer(t *testing.T, ip string) (netip.AddrPort, <-chan netip.AddrPort) {
	ln := listen(t, ip)
	from := make(chan netip.AddrPort, 10)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			from <- conn.RemoteAddr().(*net.TCPAddr).AddrPort()
			wg.Go(func() {
				defer conn.Close()
				io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().(*net.TCPAddr).AddrPort(), from
}

func exchange(t *testing.T, conn net.Conn) {
	t.Helper()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, "hello")
	if c, ok := conn.(interface{ CloseWrite() error }); !ok {
		t.Errorf("%T cannot half-close", conn)
	} else if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Each of the hops has the other family than the one before it. The name of
// the target is known to the last alone, that of each hop to the one before.
func TestChain(t *testing.T) {
	for _, target := range []string{"127.0.0.1", "::1"} {
		t.Run(target, func(t *testing.T) {
			echo, from := echoServer(t, target)
			third := newNode(t, "127.0.0.1", map[string]string{"target.test": target})
			second := newNode(t, "::1", map[string]string{"third.test": "127.0.0.1"})
			first := newNode(t, "127.0.0.1", map[string]string{"second.test": "::1"})
			local := &hosts{known: map[string]string{"first.test": "127.0.0.1"}}

			var way Outlet = NewDirect(DirectConfig{Resolver: local})
			way = NewVia(way, socks.Client{Server: socks.Addr{Name: "first.test", Port: first.addr.Port}}, nil)
			way = NewVia(way, socks.Client{Server: socks.Addr{Name: "second.test", Port: second.addr.Port}}, nil)
			way = NewVia(way, socks.Client{Server: socks.Addr{Name: "third.test", Port: third.addr.Port}}, nil)

			conn, err := way.Dial(t.Context(), "tcp", socks.Addr{Name: "target.test", Port: echo.Port()})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := conn.LocalAddr().String(), (<-from).String(); got != want {
				t.Errorf("LocalAddr %s, but the target sees %s", got, want)
			}
			if b, ok := conn.(*boundConn); !ok || b.TCPConn == nil {
				t.Errorf("%T does not splice", conn)
			}
			exchange(t, conn)
			for _, h := range []struct {
				*hosts
				want string
			}{{local, "first.test"}, {&first.hosts, "second.test"}, {&second.hosts, "third.test"}, {&third.hosts, "target.test"}} {
				if !slices.Equal(h.asked, []string{h.want}) {
					t.Errorf("looked up %v, want %s alone", h.asked, h.want)
				}
			}
		})
	}
}

// What the last hop says of a failure is what the chain says.
func TestChainRefusals(t *testing.T) {
	closed := listen(t, "127.0.0.1")
	closed.Close()
	last := newNode(t, "127.0.0.1", nil)
	first := newNode(t, "::1", nil)
	chain := NewVia(NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: first.addr}, nil), socks.Client{Server: last.addr}, nil)
	for _, tt := range []struct {
		dest  socks.Addr
		errno syscall.Errno
	}{
		{socks.AddrFromAddrPort(closed.Addr().(*net.TCPAddr).AddrPort()), syscall.ECONNREFUSED},
		{socks.Addr{Name: "unknown.test", Port: 80}, syscall.EHOSTUNREACH},
	} {
		_, err := chain.Dial(t.Context(), "tcp", tt.dest)
		var refused *socks.ReplyError
		if !errors.Is(err, tt.errno) || !errors.As(err, &refused) || refused.Hop != last.addr {
			t.Errorf("%s: %v, want %v of %s", tt.dest, err, tt.errno, last.addr)
		}
	}
	// A hop that is not there is the refusal of the hop before it.
	gone := socks.AddrFromAddrPort(closed.Addr().(*net.TCPAddr).AddrPort())
	_, err := NewVia(chain, socks.Client{Server: gone}, nil).Dial(t.Context(), "tcp", name)
	var refused *socks.ReplyError
	if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &refused) || refused.Hop != last.addr {
		t.Errorf("missing hop: %v", err)
	}
}

func TestViaUDP(t *testing.T) {
	_, err := NewVia(Reject{}, socks.Client{Server: name}, nil).Reach(t.Context(), "udp", netip.AddrPort{}, name)
	if !errors.Is(err, syscall.EACCES) {
		t.Errorf("got %v", err)
	}
}

func TestViaRejected(t *testing.T) {
	_, err := NewVia(Reject{}, socks.Client{Server: name}, nil).Dial(t.Context(), "tcp", name)
	if !errors.Is(err, syscall.EACCES) {
		t.Errorf("got %v", err)
	}
}

// A hop that accepts and says nothing costs the deadline, no more.
func TestViaSilentHop(t *testing.T) {
	ln := listen(t, "127.0.0.1")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	hop := socks.AddrFromAddrPort(ln.Addr().(*net.TCPAddr).AddrPort())
	_, err := NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: hop}, nil).Dial(ctx, "tcp", name)
	if !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("got %v", err)
	}
}

func TestBoundTo(t *testing.T) {
	echo, _ := echoServer(t, "127.0.0.1")
	tcp, err := net.Dial("tcp", echo.String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	one, two := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::2]:2")
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	for _, tt := range []struct {
		conn  net.Conn
		bound socks.Addr
		want  string
	}{
		{tcp, socks.AddrFromAddrPort(one), one.String()},
		{tcp, socks.Addr{}, tcp.LocalAddr().String()},
		{tcp, socks.Addr{IP: netip.IPv4Unspecified()}, tcp.LocalAddr().String()},
		{tcp, socks.Addr{IP: netip.IPv6Unspecified(), Port: 7}, tcp.LocalAddr().String()},
		{tcp, name, tcp.LocalAddr().String()},
		{boundTo(tcp, socks.AddrFromAddrPort(one)), socks.AddrFromAddrPort(two), two.String()},
		{boundTo(tcp, socks.AddrFromAddrPort(one)), socks.Addr{}, one.String()},
		{pipe, socks.AddrFromAddrPort(one), "pipe"},
	} {
		if got := boundTo(tt.conn, tt.bound).LocalAddr().String(); got != tt.want {
			t.Errorf("%T bound to %v is local at %s, want %s", tt.conn, tt.bound, got, tt.want)
		}
	}
}

// golang.org/x/net/proxy, a client of other hands.
func TestForeignClient(t *testing.T) {
	for _, target := range []string{"127.0.0.1", "::1"} {
		echo, _ := echoServer(t, target)
		n := newNode(t, "127.0.0.1", map[string]string{"target.test": target})
		client, err := proxy.SOCKS5("tcp", n.addr.String(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, dest := range []string{fmt.Sprintf("target.test:%d", echo.Port()), echo.String()} {
			conn, err := client.Dial("tcp", dest)
			if err != nil {
				t.Errorf("%s: %v", dest, err)
				continue
			}
			exchange(t, conn)
		}
		if _, err := client.Dial("tcp", "unknown.test:80"); err == nil {
			t.Error("an unknown name was dialled")
		}
	}
}

// A server that refuses works, one that is gone or speaks otherwise does not,
// and of one that is slow nobody knows.
func TestHealth(t *testing.T) {
	n := newNode(t, "127.0.0.1", nil)
	gone := listen(t, "127.0.0.1")
	gone.Close()
	var mute hosts
	silent := listen(t, "127.0.0.1")
	at := func(ln net.Listener) socks.Addr { return socks.AddrFromAddrPort(socks.AddrPortOf(ln.Addr())) }
	for _, tt := range []struct {
		what   string
		server socks.Addr
		failed uint64
	}{{"refuses", n.addr, 0}, {"is gone", at(gone), 1}, {"is slow", at(silent), 0}} {
		v := NewVia(NewDirect(DirectConfig{Resolver: &mute}), socks.Client{Server: tt.server}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if tt.server == at(silent) {
			go func() {
				if conn, err := silent.Accept(); err == nil {
					cancel()
					conn.Close()
				}
			}()
		}
		_, err := v.Dial(ctx, "tcp", socks.Addr{Name: "unknown.test", Port: 80})
		cancel()
		h := v.Health()
		if err == nil || h.Asked != 1 || h.Failed != tt.failed || (h.Err != nil) != (tt.failed > 0) || h.Server != tt.server {
			t.Errorf("one that %s: %v, health %+v", tt.what, err, h)
		}
	}
}
