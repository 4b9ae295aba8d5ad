package outlet

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixgate/socks"
	"sixgate/socks/datagram"
)

// patience is when a test that hangs gives up.
const patience = time.Minute

// sink keeps what a Peer hands over.
type sink struct {
	came   chan datagram.Batch
	failed chan error
}

func sinkOf(p Peer) *sink {
	s := &sink{make(chan datagram.Batch, 100), make(chan error, 100)}
	p.Forward(func(b datagram.Batch) error {
		b.Payload = bytes.Clone(b.Payload)
		s.came <- b
		return nil
	}, func(err error) { s.failed <- err })
	return s
}

// next returns what comes next from c, or fails the test.
func next[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing comes")
	}
	return v
}

// reach returns the Peer at a name or an address.
func reach(t *testing.T, d *Direct, client string, dest socks.Addr) Peer {
	t.Helper()
	p, err := d.Reach(t.Context(), "udp", netip.MustParseAddrPort(client), dest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// far is a socket that a Peer reaches.
func far(t *testing.T, at string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func destOf(c *net.UDPConn) socks.Addr {
	return socks.AddrFromAddrPort(socks.AddrPortOf(c.LocalAddr()))
}

// from returns where the next datagram to c comes from.
func from(t *testing.T, c *net.UDPConn) netip.AddrPort {
	t.Helper()
	_, source, err := c.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(source.Addr().Unmap(), source.Port())
}

// One port of a client is one port to all its peers of both families, and no
// other client's (RFC 4787, section 4.1).
func TestPortIsKept(t *testing.T) {
	d := NewDirect(DirectConfig{Resolver: &hosts{known: map[string]string{"also.test": "127.0.0.1"}}, Ports: NewPorts(PortsConfig{})})
	one, other, six := far(t, "127.0.0.1:0"), far(t, "127.0.0.1:0"), far(t, "[::1]:0")
	ports := map[string]uint16{}
	for _, client := range []string{"192.0.2.2:1000", "192.0.2.2:1001", "192.0.2.3:1000"} {
		for _, c := range []*net.UDPConn{one, other, six} {
			p := reach(t, d, client, destOf(c))
			if err := p.Send(datagram.Batch{Payload: []byte("x"), TTL: 64}); err != nil {
				t.Fatal(err)
			}
			port := from(t, c).Port()
			if known := ports[client]; known != 0 && port != known {
				t.Errorf("client %s has ports %d and %d", client, known, port)
			}
			ports[client] = port
		}
	}
	if a, b, c := ports["192.0.2.2:1000"], ports["192.0.2.2:1001"], ports["192.0.2.3:1000"]; a == b || b == c || a == c {
		t.Errorf("clients share ports: %v", ports)
	}
	// Another name of an address that the client already talks to: an answer to
	// one port could be for either.
	name := socks.Addr{Name: "also.test", Port: destOf(one).Port}
	p := reach(t, d, "192.0.2.2:1000", name)
	p.Send(datagram.Batch{Payload: []byte("x"), TTL: 64})
	if port := from(t, one).Port(); port == ports["192.0.2.2:1000"] {
		t.Error("two names of an address have one port")
	}
}

// A client's port is kept where it is free, and is not a server's.
func TestPortIsTheClients(t *testing.T) {
	d := NewDirect(DirectConfig{Resolver: &hosts{}, Ports: NewPorts(PortsConfig{})})
	c := far(t, "127.0.0.1:0")
	ask := func(client netip.AddrPort) uint16 {
		p := reach(t, d, client.String(), destOf(c))
		if err := p.Send(datagram.Batch{Payload: []byte("x"), TTL: 64}); err != nil {
			t.Fatal(err)
		}
		return from(t, c).Port()
	}
	one, other := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	var port, got uint16
	for range 100 { // any of these may be taken
		free := far(t, "127.0.0.1:0")
		port = destOf(free).Port
		free.Close()
		if got = ask(netip.AddrPortFrom(one, port)); got == port {
			break
		}
	}
	if got != port {
		t.Errorf("port %d became %d", port, got)
	}
	if got := ask(netip.AddrPortFrom(other, port)); got == port {
		t.Errorf("two clients have port %d", port)
	}
	if d.Ports.Reserved = func(p uint16) bool { return p == port }; ask(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.4"), port)) == port {
		t.Errorf("port %d, which is reserved, was taken", port)
	}
	if got := ask(netip.AddrPortFrom(one, 123)); got <= lastSystemPort {
		t.Errorf("port 123 became %d", got)
	}
}

// A Peer is heard from its other ports, and nobody else is heard.
func TestPortFilters(t *testing.T) {
	d := NewDirect(DirectConfig{Resolver: &hosts{}, Ports: NewPorts(PortsConfig{})})
	asked, elsewhere, stranger := far(t, "127.0.0.1:0"), far(t, "127.0.0.1:0"), far(t, "127.0.0.2:0")
	p := reach(t, d, "192.0.2.2:1000", destOf(asked))
	got := sinkOf(p)
	p.Send(datagram.Batch{Payload: []byte("x"), TTL: 64})
	port := from(t, asked)
	for _, c := range []*net.UDPConn{stranger, asked, elsewhere} {
		if _, err := c.WriteToUDPAddrPort([]byte(c.LocalAddr().String()), port); err != nil {
			t.Fatal(err)
		}
	}
	if b := next(t, got.came); string(b.Payload) != asked.LocalAddr().String() || b.Port != 0 {
		t.Errorf("got %q from port %d", b.Payload, b.Port)
	}
	if b := next(t, got.came); string(b.Payload) != elsewhere.LocalAddr().String() || b.Port != destOf(elsewhere).Port {
		t.Errorf("got %q from port %d", b.Payload, b.Port)
	}
}

// meeting is a Direct whose strangers are met as they come.
func meeting(t *testing.T) (d *Direct, met chan netip.AddrPort) {
	met = make(chan netip.AddrPort, 100)
	d = NewDirect(DirectConfig{Resolver: &hosts{}, Ports: NewPorts(PortsConfig{Meet: func(client, from netip.AddrPort) bool {
		met <- from
		return client == netip.MustParseAddrPort("192.0.2.2:1000")
	}})})
	return d, met
}

// Who is met is heard from the beginning, by the port that has heard of it, and
// for good once it is answered.
func TestPortMeets(t *testing.T) {
	d, met := meeting(t)
	asked, stranger, other := far(t, "127.0.0.1:0"), far(t, "127.0.0.2:0"), far(t, "127.0.0.3:0")
	reach(t, d, "192.0.2.2:1000", destOf(asked))
	p := reach(t, d, "192.0.2.2:1000", destOf(asked)) // which takes a second port
	p.Send(datagram.Batch{Payload: []byte("x"), TTL: 64})
	port, own := from(t, asked), sinkOf(p)
	say := func(c *net.UDPConn, what ...string) {
		for _, w := range what {
			if _, err := c.WriteToUDPAddrPort([]byte(w), port); err != nil {
				t.Fatal(err)
			}
		}
	}
	peers := map[*net.UDPConn]Peer{}
	for _, c := range []*net.UDPConn{stranger, other} {
		say(c, "one", strings.Repeat("2", maxStrange), "three")
		say(asked, "mark")
		next(t, own.came) // so all have come
		if at := next(t, met); at != socks.AddrPortOf(c.LocalAddr()) {
			t.Fatalf("met %s", at)
		}
		peers[c] = reach(t, d, "192.0.2.2:1000", destOf(c))
		got := sinkOf(peers[c])
		for _, want := range []string{"one", "three"} {
			if b := next(t, got.came); string(b.Payload) != want {
				t.Errorf("got %q, want %q", b.Payload, want)
			}
		}
		say(c, "four")
		if b := next(t, got.came); string(b.Payload) != "four" {
			t.Errorf("got %q", b.Payload)
		}
	}
	if err := peers[stranger].Send(datagram.Batch{Payload: []byte("answer"), TTL: 64}); err != nil {
		t.Fatal(err)
	}
	if at := from(t, stranger); at != port {
		t.Errorf("answered by %s, which was spoken to at %s", at, port)
	}
	for c, answered := range map[*net.UDPConn]bool{stranger: true, other: false} {
		p := peers[c].(*peer)
		p.port.part(p.remote, p.stranger) // its time is over
		select {
		case <-peers[c].Done():
			if answered {
				t.Error("the one that was answered has ended")
			}
		default:
			if !answered {
				t.Error("the one that was not answered goes on")
			}
		}
	}
	if len(met) != 0 {
		t.Errorf("%d were met twice", len(met))
	}
}

// Strangers are few, and none keeps a port open.
func TestPortMeetsFew(t *testing.T) {
	d, met := meeting(t)
	asked := far(t, "127.0.0.1:0")
	p := reach(t, d, "192.0.2.2:1000", destOf(asked))
	p.Send(datagram.Batch{Payload: []byte("x"), TTL: 64})
	port := from(t, asked)
	got := sinkOf(p)
	greet := func(c *net.UDPConn) {
		if _, err := c.WriteToUDPAddrPort([]byte("x"), port); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxStrangers + 2 {
		greet(far(t, fmt.Sprintf("127.0.1.%d:0", i+1)))
	}
	greet(asked)
	next(t, got.came) // so all have come
	if len(met) != maxStrangers {
		t.Errorf("%d strangers were met, want %d", len(met), maxStrangers)
	}
	first := <-met
	met1 := reach(t, d, "192.0.2.2:1000", socks.AddrFromAddrPort(first))
	o := met1.(*peer).port
	p.Close()
	if o.keep(datagram.Batch{}, netip.MustParseAddrPort("127.0.2.1:1")) {
		t.Error("strangers alone keep a port")
	}
	met1.Close()
	if o.heard(first) {
		t.Error("who has gone is a stranger still")
	}
}

// Who is not let in is forgotten, and asked about again.
func TestPortMeetsNot(t *testing.T) {
	d, met := meeting(t)
	asked, stranger := far(t, "127.0.0.1:0"), far(t, "127.0.0.2:0")
	p := reach(t, d, "192.0.2.2:1001", destOf(asked))
	p.Send(datagram.Batch{Payload: []byte("x"), TTL: 64})
	port := from(t, asked)
	for range 2 {
		if _, err := stranger.WriteToUDPAddrPort([]byte("x"), port); err != nil {
			t.Fatal(err)
		}
		next(t, met)
	}
}

// What ICMP tells reaches the Peer that it is about.
func TestPortRefused(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		d := NewDirect(DirectConfig{Resolver: &hosts{}, Ports: NewPorts(PortsConfig{})})
		closed, open := far(t, at), far(t, at)
		closed.Close()
		p, other := reach(t, d, "192.0.2.2:1000", destOf(closed)), reach(t, d, "192.0.2.2:1000", destOf(open))
		got := sinkOf(p)
		sinkOf(other)
		if err := p.Send(datagram.Batch{Payload: []byte("anyone?"), TTL: 64}); err != nil {
			t.Fatal(err)
		}
		err := next(t, got.failed)
		var path *datagram.PathError
		if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &path) || string(path.Quoted()) != "anyone?" || path.Offender().IsValid() {
			t.Errorf("%s: %v", at, err)
		}
		if err := other.Send(datagram.Batch{Payload: []byte("x"), TTL: 64}); err != nil {
			t.Errorf("to another: %v", err)
		}
		from(t, open)
	}
}

// Several datagrams go in one call and come in one call, and stay themselves.
func TestPortBatches(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		d := NewDirect(DirectConfig{Resolver: &hosts{}, Ports: NewPorts(PortsConfig{})})
		c := far(t, at)
		p := reach(t, d, "192.0.2.2:1000", destOf(c))
		sent := datagram.Batch{Payload: []byte("aaaabbbbcc"), Size: 4, TTL: 64, Whole: true}
		if err := p.Send(sent); err != nil {
			t.Fatal(err)
		}
		for one := range sent.Each {
			buf := make([]byte, 10)
			n, err := c.Read(buf)
			if err != nil || !bytes.Equal(buf[:n], one.Payload) {
				t.Errorf("%s: got %q, %v", at, buf[:n], err)
			}
		}
	}
}

// What does not fit the path is sent in fragments, or comes back as an error
// that tells what would fit.
func TestPortTooLarge(t *testing.T) {
	for at, headers := range map[string]int{"127.0.0.1:0": 28, "[::1]:0": 48} {
		d := NewDirect(DirectConfig{Resolver: &hosts{}, Ports: NewPorts(PortsConfig{})})
		c := far(t, at)
		p := reach(t, d, "192.0.2.2:1000", destOf(c))
		got := sinkOf(p)
		const most = 65535 - 28 // more than lo takes, with its MTU of 65536, in no family's packet
		large := make([]byte, most)
		err := p.Send(datagram.Batch{Payload: large, TTL: 64})
		if n, failed := c.Read(make([]byte, 1<<16)); err != nil || failed != nil || n != most {
			t.Errorf("%s: %v, and %d bytes arrived, %v", at, err, n, failed)
		}
		if headers == 28 {
			continue // it fits the MTU of lo
		}
		if err = p.Send(datagram.Batch{Payload: large, TTL: 64, Whole: true}); err == nil {
			err = next(t, got.failed)
		}
		var path *datagram.PathError
		if !errors.As(err, &path) || !errors.Is(err, syscall.EMSGSIZE) || path.Room() != 65536-headers {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// The last Peer of a port closes it, and a Peer closed is closed.
func TestPortCloses(t *testing.T) {
	d := NewDirect(DirectConfig{Resolver: &hosts{}, Ports: NewPorts(PortsConfig{})})
	one, other := far(t, "127.0.0.1:0"), far(t, "127.0.0.1:0")
	p, q := reach(t, d, "192.0.2.2:1000", destOf(one)), reach(t, d, "192.0.2.2:1000", destOf(other))
	p.Close()
	p.Close()
	<-p.Done()
	if err := q.Send(datagram.Batch{Payload: []byte("x"), TTL: 64}); err != nil {
		t.Errorf("after another was closed: %v", err)
	}
	q.Close()
	if err := q.Send(datagram.Batch{Payload: []byte("x"), TTL: 64}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after all were closed: %v", err)
	}
	if len(d.Ports.opened) != 0 {
		t.Errorf("left: %v", d.Ports.opened)
	}
}

// echo is a far end that sends back what it gets, with the same header.
type echo struct {
	*datagram.Socket
	came chan datagram.Batch
}

func (e *echo) Took(b datagram.Batch, from netip.AddrPort) {
	e.came <- b
	e.Send(b, from)
}

func (e *echo) Failed(*datagram.PathError) {}
func (e *echo) Broke()                     {}

// Hop limit, DSCP and ECN go out as they came in, and come in as they were.
func TestPortHeader(t *testing.T) {
	poller := &datagram.Poller{}
	there := &echo{came: make(chan datagram.Batch, 10)}
	var err error
	if there.Socket, err = datagram.OpenSocket(unix.AF_INET6, 0, nil, there, hopsLeft[:]...); err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := errors.Join(there.Bind(netip.AddrPort{}), poller.Watch(there.Socket)); err != nil {
		t.Fatal(err)
	}
	defer poller.Leave(there.Socket)
	for _, at := range []string{"127.0.0.1", "::1"} {
		d := NewDirect(DirectConfig{Resolver: &hosts{}, Ports: NewPorts(PortsConfig{})})
		p := reach(t, d, "192.0.2.2:1000", socks.Addr{IP: netip.MustParseAddr(at), Port: there.LocalPort()})
		back := sinkOf(p)
		for _, want := range []datagram.Batch{{TOS: 46<<2 | 1, TTL: 9}, {TOS: 2, TTL: 255, Whole: true}, {TTL: 64}} {
			want.Payload = []byte("x")
			if err := p.Send(want); err != nil {
				t.Fatal(err)
			}
			if got := next(t, there.came); got.TOS != want.TOS || got.TTL != want.TTL {
				t.Errorf("%s: traffic class %#x and %d hops, want %#x and %d", at, got.TOS, got.TTL, want.TOS, want.TTL)
			}
			if got := next(t, back.came); got.TOS != want.TOS {
				t.Errorf("%s: traffic class %#x came back, want %#x", at, got.TOS, want.TOS)
			}
		}
	}
}
