package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sixgate/socks"
	"sixgate/socks/datagram"
	"sixgate/socks/outlet"
	"sixgate/socks/relay"
	"sixgate/socks/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTypeOf(t *testing.T) {
	v4, v6, mapped := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.1")
	for _, tt := range []struct {
		client, far netip.Addr
		want        Type
	}{{v4, v4, A}, {v4, v6, B}, {v6, v4, C}, {v6, v6, D}, {mapped, mapped, A}} {
		if got := TypeOf(tt.client, tt.far); got != tt.want {
			t.Errorf("TypeOf(%s, %s) = %s, want %s", tt.client, tt.far, got, tt.want)
		}
	}
}

// boundConn is a connection dialled from a given address.
type boundConn struct {
	net.Conn
	bound netip.AddrPort
}

func (c boundConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.bound) }

// world is an outlet to one destination in memory.
type world struct {
	bound  netip.AddrPort
	err    error
	hang   bool
	dialed socks.Addr
	far    net.Conn // the destination's end of the last connection
}

func (w *world) Dial(ctx context.Context, network string, dest socks.Addr) (net.Conn, error) {
	w.dialed = dest
	if w.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if w.err != nil {
		return nil, w.err
	}
	near, far := net.Pipe()
	w.far = far
	return boundConn{near, w.bound}, nil
}

// Reach returns a Peer that is never heard of.
func (w *world) Reach(context.Context, string, netip.AddrPort, socks.Addr) (outlet.Peer, error) {
	return newSilent(), nil
}

// silent is an end of datagrams from which none come.
type silent struct {
	net.Conn
	done chan struct{}
}

func newSilent() *silent { return &silent{done: make(chan struct{})} }

func (s *silent) Send(datagram.Batch) error                       { return nil }
func (s *silent) Forward(func(datagram.Batch) error, func(error)) {}
func (s *silent) Report(error)                                    {}
func (s *silent) Done() <-chan struct{}                           { return s.done }
func (s *silent) LocalAddr() net.Addr                             { return nil }
func (s *silent) RemoteAddr() net.Addr                            { return nil }
func (s *silent) Close() error                                    { close(s.done); return nil }

// pending is a client in memory.
type pending struct {
	client  net.Conn // the client's end, once accepted
	bound   netip.AddrPort
	refused error
	gone    bool
	silent  bool // a client of datagrams, of which none come
	given   chan struct{}
}

func newPending() *pending { return &pending{given: make(chan struct{})} }

func (p *pending) Accept(bound netip.AddrPort) (net.Conn, error) {
	defer close(p.given)
	if p.gone {
		return nil, syscall.ECONNRESET
	}
	if p.silent {
		return newSilent(), nil
	}
	near, client := net.Pipe()
	p.client, p.bound = client, bound
	return near, nil
}

func (p *pending) Refuse(err error) {
	p.refused = err
	close(p.given)
}

// names maps every address of 198.18.0.0/15 to one name.
type names struct {
	name string
	held int
}

func (n *names) Hold(addr netip.Addr) (string, func(), error) {
	if n.name == "" {
		return "", nil, syscall.ECONNREFUSED
	}
	n.held++
	return n.name, func() { n.held-- }, nil
}

// newGateway returns a gateway of one policy, which may leave out times.
func newGateway(t *testing.T, c Config, p Policy) *Gateway {
	t.Helper()
	p.DialTimeout = 10 * time.Second
	p.Stream = relay.Limits{Idle: time.Hour, HalfClosed: time.Minute}
	p.UDPIdle = time.Minute
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	c.Policy = func() *Policy { return &p }
	return New(c)
}

var fakeSession = Session{
	Inlet: "tun", Network: "tcp", Fake: true,
	Client: netip.MustParseAddrPort("192.0.2.2:40000"),
	Dest:   socks.AddrFromAddrPort(netip.MustParseAddrPort("198.18.0.16:80")),
}

func TestServeJoinsByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		bound := netip.MustParseAddrPort("[2001:db8::1]:50000")
		w, n, p := &world{bound: bound}, &names{name: "v6only.test"}, newPending()
		g := newGateway(t, Config{
			Names:  n,
			Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}, Policy{Outlets: map[string]outlet.Outlet{"": w}})
		go g.Serve(t.Context(), fakeSession, p)
		synctest.Wait()
		if want := (socks.Addr{Name: "v6only.test", Port: 80}); w.dialed != want || p.bound != bound || n.held != 1 {
			t.Fatalf("dialled %v, told %v, %d held", w.dialed, p.bound, n.held)
		}
		go p.client.Write([]byte("hello"))
		got := make([]byte, 5)
		if _, err := io.ReadFull(w.far, got); err != nil || string(got) != "hello" {
			t.Fatalf("far read %q, %v", got, err)
		}
		p.client.Close()
		w.far.Close()
		synctest.Wait()
		if n.held != 0 {
			t.Error("the name is still held")
		}
		if c := g.Counters(); c.Joined[Kind{"tcp", B, ""}] != 1 || c.Up != 5 || len(c.Live) != 0 {
			t.Errorf("counters %+v", c)
		}
		for _, want := range []string{"inlet=tun", "client=192.0.2.2:40000", "name=v6only.test", "dest=198.18.0.16:80", "type=B", "up=5"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("log %q lacks %s", log.String(), want)
			}
		}
	})
}

func TestServeRefuses(t *testing.T) {
	refused := outletError(syscall.ECONNREFUSED)
	for _, tt := range []struct {
		name  string
		world *world
		names *names
		want  error
		reply socks.Reply
	}{
		{"an unknown fake", &world{}, &names{}, syscall.ECONNREFUSED, socks.ConnectionRefused},
		{"a name that is none", &world{}, &names{name: "a b"}, nil, socks.GeneralFailure},
		{"what the far side refuses", &world{err: refused}, &names{name: "x.test"}, syscall.ECONNREFUSED, socks.ConnectionRefused},
		{"what never answers", &world{hang: true}, &names{name: "x.test"}, context.DeadlineExceeded, socks.TTLExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPending()
				var log bytes.Buffer
				g := newGateway(t, Config{
					Names:  tt.names,
					Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
				}, Policy{Outlets: map[string]outlet.Outlet{"": tt.world}})
				g.Serve(t.Context(), fakeSession, p)
				if p.refused == nil || tt.want != nil && !errors.Is(p.refused, tt.want) {
					t.Errorf("refused with %v, want %v", p.refused, tt.want)
				}
				if tt.names.held != 0 {
					t.Error("the name is still held")
				}
				if want := fmt.Sprintf("reply=%q", tt.reply); !strings.Contains(log.String(), want) {
					t.Errorf("log %q lacks %s", log.String(), want)
				}
				if c := g.Counters(); c.Refused[tt.reply] != 1 {
					t.Errorf("counters %+v, want one %v", c, tt.reply)
				}
			})
		})
	}
}

type outletError syscall.Errno

func (e outletError) Error() string { return "dialling x.test:80: " + syscall.Errno(e).Error() }
func (e outletError) Unwrap() error { return syscall.Errno(e) }

func TestServeClosesWhatNobodyTakes(t *testing.T) {
	w, p := &world{}, newPending()
	p.gone = true
	g := newGateway(t, Config{Names: &names{name: "x.test"}}, Policy{Outlets: map[string]outlet.Outlet{"": w}})
	g.Serve(t.Context(), fakeSession, p)
	if _, err := w.far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the far side read %v, want its end", err)
	}
}

func TestServePicksByRule(t *testing.T) {
	far, def := &world{err: syscall.EHOSTUNREACH}, &world{err: syscall.EHOSTUNREACH}
	g := newGateway(t, Config{}, Policy{
		Outlets: map[string]outlet.Outlet{"": def, "far": far},
		Rules:   route.Rules{{Names: []string{"*.far.test"}, Outlet: "far"}},
	})
	for dest, w := range map[string]*world{"a.far.test:80": far, "b.test:80": def} {
		s := fakeSession
		s.Fake = false
		s.Dest, _ = socks.ParseAddr(dest)
		g.Serve(t.Context(), s, newPending())
		if w.dialed != s.Dest {
			t.Errorf("%s went elsewhere", dest)
		}
	}
}

func TestCheckRefusesUnknownOutlets(t *testing.T) {
	def := map[string]outlet.Outlet{"": &world{}}
	for _, p := range []Policy{
		{},
		{Outlets: def, Rules: route.Rules{{Outlet: "nowhere"}}},
	} {
		if err := p.Check(); err == nil {
			t.Errorf("Check of %+v found nothing wrong", p)
		}
	}
}

// A connection may end on its own; of datagrams nobody would say so.
func TestShutdown(t *testing.T) {
	for network, want := range map[string]time.Duration{"tcp": 3 * time.Second, "udp": 0} {
		synctest.Test(t, func(t *testing.T) {
			w, p := &world{}, newPending()
			g := newGateway(t, Config{Names: &names{name: "x.test"}}, Policy{Outlets: map[string]outlet.Outlet{"": w}, UDPIdle: time.Hour})
			s := fakeSession
			s.Network, p.silent = network, network == "udp"
			go g.Serve(t.Context(), s, p)
			<-p.given
			started := time.Now()
			drain, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			g.Shutdown(drain)
			if took := time.Since(started); took != want {
				t.Errorf("%s: a live flow was given %v, want %v", network, took, want)
			}
			late := newPending()
			g.Serve(t.Context(), s, late)
			if !errors.Is(late.refused, syscall.ECONNREFUSED) {
				t.Errorf("%s: a session after Shutdown was refused with %v", network, late.refused)
			}
		})
	}
}
