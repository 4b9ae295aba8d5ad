package outlet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"sixgate/socks"
	"sixgate/socks/datagram"
)

// reachVia returns the Peer of a client, and what it hears.
func reachVia(t *testing.T, v *Via, client string, dest socks.Addr) (Peer, *sink) {
	t.Helper()
	p, err := v.Reach(t.Context(), "udp", netip.MustParseAddrPort(client), dest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, sinkOf(p)
}

// sends has p send to c, and returns from which port that gets it.
func sends(t *testing.T, p Peer, c *net.UDPConn) netip.AddrPort {
	t.Helper()
	if err := p.Send(datagram.Batch{Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	return from(t, c)
}

func associations(n *node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.seen)
}

// Behind three hops, one port of a client is one port to all its peers, and no
// other client's (RFC 4787, section 4.1). Each peer gets the answers of its own.
func TestChainKeepsThePort(t *testing.T) {
	last := newNode(t, "127.0.0.1", map[string]string{"one.test": "127.0.0.1"})
	second, first := newNode(t, "::1", nil), newNode(t, "127.0.0.1", nil)
	way := NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: first.addr}, nil)
	way = NewVia(way, socks.Client{Server: second.addr}, nil)
	chain := NewVia(way, socks.Client{Server: last.addr}, nil)

	one, two, three := far(t, "127.0.0.1:0"), far(t, "127.0.0.1:0"), far(t, "127.0.0.2:0")
	named := socks.Addr{Name: "one.test", Port: destOf(one).Port}
	const client = "192.0.2.2:1000"
	var port netip.AddrPort
	for i, tt := range []struct {
		dest socks.Addr
		far  *net.UDPConn
	}{{named, one}, {destOf(two), two}, {destOf(three), three}} {
		p, heard := reachVia(t, chain, client, tt.dest)
		at := sends(t, p, tt.far)
		if i == 0 {
			port = at
		} else if at != port {
			t.Errorf("%s is sent to from %s, and what came before from %s", tt.dest, at, port)
		}
		answer := fmt.Sprint("of ", tt.dest)
		tt.far.WriteToUDPAddrPort([]byte(answer), at)
		if b := next(t, heard.came); string(b.Payload) != answer {
			t.Errorf("%s answers %q", tt.dest, b.Payload)
		}
	}
	if n := associations(last); n != 1 {
		t.Errorf("the last hop was asked %d times", n)
	}
	p, _ := reachVia(t, chain, "192.0.2.2:1001", destOf(one))
	if at := sends(t, p, one); at == port {
		t.Error("two ports of a client have one at the far end")
	}
}

// Answers tell an address alone, so that of two peers of which one may be the
// other, each has a port of its own.
func TestChainTellsNamesApart(t *testing.T) {
	n := newNode(t, "127.0.0.1", map[string]string{"one.test": "127.0.0.1", "also.test": "127.0.0.1"})
	v := NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: n.addr}, nil)
	c := far(t, "127.0.0.1:0")
	ports := map[netip.AddrPort]*sink{}
	for _, dest := range []socks.Addr{destOf(c), {Name: "one.test", Port: destOf(c).Port}, {Name: "also.test", Port: destOf(c).Port}} {
		p, heard := reachVia(t, v, "192.0.2.2:1000", dest)
		ports[sends(t, p, c)] = heard
	}
	if len(ports) != 3 {
		t.Errorf("three peers at one address have %d ports", len(ports))
	}
	for at, heard := range ports {
		c.WriteToUDPAddrPort([]byte(at.String()), at)
		if b := next(t, heard.came); string(b.Payload) != at.String() {
			t.Errorf("%q came where %s was meant", b.Payload, at)
		}
	}
}

// An UDP ASSOCIATE ends with the last peer of its client's port, and the next
// one has another.
func TestChainPortEnds(t *testing.T) {
	n := newNode(t, "127.0.0.1", nil)
	v := NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: n.addr}, nil)
	one, two := far(t, "127.0.0.1:0"), far(t, "127.0.0.1:0")
	const client = "192.0.2.2:1000"
	first, _ := reachVia(t, v, client, destOf(one))
	second, heard := reachVia(t, v, client, destOf(two))
	first.Close()
	first.Close() // again does no harm
	at := sends(t, second, two)
	two.WriteToUDPAddrPort([]byte("still"), at)
	next(t, heard.came)
	if n := associations(n); n != 1 {
		t.Errorf("%d associations, want one", n)
	}
	second.Close()
	next(t, second.Done())
	if len(v.ports.opened) > 0 {
		t.Errorf("%d clients are remembered", len(v.ports.opened))
	}
	third, _ := reachVia(t, v, client, destOf(one))
	sends(t, third, one)
	if n := associations(n); n != 2 {
		t.Errorf("%d associations, want a second one", n)
	}
}

// Who comes while the UDP ASSOCIATE is being asked for waits for it, and shares
// what it comes to.
func TestChainPortIsOpenedOnce(t *testing.T) {
	for _, refused := range []bool{false, true} {
		n := newNode(t, "127.0.0.1", nil)
		n.noUDP = refused
		v := NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: n.addr}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var peers sync.WaitGroup
		for i := range 50 {
			peers.Go(func() {
				dest := socks.Addr{IP: netip.MustParseAddr("127.0.0.1"), Port: uint16(1 + i)}
				p, err := v.Reach(ctx, "udp", netip.MustParseAddrPort("192.0.2.2:1000"), dest)
				switch {
				case refused && !errors.Is(err, syscall.EOPNOTSUPP), !refused && err != nil:
					t.Errorf("refused %t: %v", refused, err)
				case err == nil:
					t.Cleanup(func() { p.Close() })
				}
			})
		}
		peers.Wait()
		if n := associations(n); n != 1 {
			t.Errorf("refused %t: asked %d times", refused, n)
		}
		if refused && len(v.ports.opened) > 0 {
			t.Error("a port is left that was never opened")
		}
	}
}

// The end of a hop is the end of all that goes through it, which each peer is
// told; what comes later has a new port.
func TestChainPortEndsWithHop(t *testing.T) {
	ln := listen(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- (&socks.Server{Handler: &node{}}).Serve(ctx, ln) }()
	server := socks.AddrFromAddrPort(socks.AddrPortOf(ln.Addr()))
	v := NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: server}, nil)
	const client = "192.0.2.2:1000"
	type told struct {
		Peer
		*sink
	}
	var all []told
	for i := range 3 {
		p, heard := reachVia(t, v, client, socks.Addr{IP: netip.MustParseAddr("127.0.0.1"), Port: uint16(1 + i)})
		all = append(all, told{p, heard})
	}
	named, heard := reachVia(t, v, client, socks.Addr{Name: "one.test", Port: 4})
	all = append(all, told{named, heard})
	cancel()
	for _, p := range all {
		next(t, p.Done())
		if err := next(t, p.failed); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("told %v", err)
		}
		if err := p.Send(datagram.Batch{Payload: []byte("x")}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("sent with %v", err)
		}
	}
	if err := next(t, served); err != nil {
		t.Error(err)
	}
	_, err := v.Reach(t.Context(), "udp", netip.MustParseAddrPort(client), socks.Addr{IP: netip.MustParseAddr("127.0.0.1"), Port: 9})
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a peer after the end of the hop: %v", err)
	}
}

// Who no longer wants to wait does not, be it the first one, and leaves the others
// alone; with the last one the opening ends.
func TestChainPortIsWaitedFor(t *testing.T) {
	ln := listen(t, "127.0.0.1") // which never answers
	v := NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: socks.AddrFromAddrPort(socks.AddrPortOf(ln.Addr()))}, nil)
	const client = "192.0.2.2:1000"
	reach := func(ctx context.Context, port uint16) <-chan error {
		result := make(chan error, 1)
		go func() {
			_, err := v.Reach(ctx, "udp", netip.MustParseAddrPort(client), socks.Addr{IP: netip.MustParseAddr("127.0.0.1"), Port: port})
			result <- err
		}()
		return result
	}
	var results [3]<-chan error
	var cancels [3]context.CancelFunc
	ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	for i := range results {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		results[i], cancels[i] = reach(ctx, uint16(i+1)), cancel
		if i > 0 {
			continue
		}
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		defer func() {
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("the opening has not ended: %v", err)
			}
		}()
	}
	for i, result := range results {
		cancels[i]()
		if err := next(t, result); !errors.Is(err, context.Canceled) {
			t.Errorf("who has gone got %v", err)
		}
		for _, other := range results[i+1:] {
			select {
			case err := <-other:
				t.Errorf("and another one %v", err)
			default:
			}
		}
	}
	if len(v.ports.opened) > 0 {
		t.Errorf("%d clients are remembered", len(v.ports.opened))
	}
}

// What a relay is refused with is told to all that wait for it.
func TestChainPortIsRefused(t *testing.T) {
	ln := listen(t, "127.0.0.1")
	v := NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: socks.AddrFromAddrPort(socks.AddrPortOf(ln.Addr()))}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	refused := make(chan error, 1)
	go func() {
		_, err := v.Reach(ctx, "udp", netip.MustParseAddrPort("192.0.2.2:1000"), socks.Addr{IP: netip.MustParseAddr("127.0.0.1"), Port: 1})
		refused <- err
	}()
	ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := next(t, refused); err == nil {
		t.Error("a relay of nobody")
	}
	if len(v.ports.opened) > 0 {
		t.Errorf("%d clients are remembered", len(v.ports.opened))
	}
}
