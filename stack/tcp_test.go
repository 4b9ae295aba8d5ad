package stack_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"sixgate/stack"
	"sixgate/stack/stacktest"
)

func TestTCPEcho(t *testing.T) {
	for family, fake := range fakes {
		t.Run(family, func(t *testing.T) {
			host, device := stacktest.New(t)
			type ends struct{ client, dest, local, remote string }
			seen := make(chan ends, 1)
			s, stop := start(t, stack.Config{Device: device, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
				c := accept(t, r)
				seen <- ends{r.Client().String(), r.Dest().String(), c.LocalAddr().String(), c.RemoteAddr().String()}
				io.Copy(struct{ io.Writer }{c}, c)
			}}})
			c := dial(t, host, fake)
			if n := s.Endpoints(); n != 1 {
				t.Errorf("%d endpoints, want 1", n)
			}
			data := make([]byte, 1<<20)
			rand.NewChaCha8([32]byte{1}).Read(data)
			go func() {
				c.Write(data)
				c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			if sha256.Sum256(got) != sha256.Sum256(data) {
				t.Errorf("%d bytes came back, of %d", len(got), len(data))
			}
			client := c.LocalAddr().String()
			if got, want := receive(t, seen, "request"), (ends{client, fake.String(), fake.String(), client}); got != want {
				t.Errorf("addresses: %v, want %v", got, want)
			}
			stop()
			if n := s.Endpoints(); n != 0 {
				t.Errorf("%d endpoints after the end", n)
			}
			if n := s.Counters(); n.TCPRequests != 1 || n.TCPAccepted != 1 || n.Received == 0 || n.Sent == 0 {
				t.Errorf("counters: %+v", n)
			}
		})
	}
}

// One side ends its direction; the other direction still carries data.
func TestTCPHalfClose(t *testing.T) {
	const late = "after the FIN"
	tests := map[string]func(first, second tcpConn) error{
		"client first": func(client, _ tcpConn) error { return exchangeAfterFIN(client, late) },
		"server first": func(_, server tcpConn) error { return exchangeAfterFIN(server, late) },
	}
	for name, side := range tests {
		t.Run(name, func(t *testing.T) {
			host, device := stacktest.New(t)
			result := make(chan error, 1)
			accepted := make(chan tcpConn)
			finished := make(chan struct{})
			start(t, stack.Config{Device: device, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
				accepted <- accept(t, r)
				<-finished
			}}})
			defer close(finished)
			client := dial(t, host, fake4)
			server := receive(t, accepted, "connection")
			other := server
			if name == "server first" {
				other = client
			}
			go func() { result <- side(client, server) }()
			if got, err := io.ReadAll(other); err != nil || len(got) != 0 {
				t.Fatalf("before the FIN: %q, %v", got, err)
			}
			if _, err := other.Write([]byte(late)); err != nil {
				t.Fatal(err)
			}
			other.CloseWrite()
			if err := receive(t, result, "end"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// exchangeAfterFIN sends a FIN and reads want.
func exchangeAfterFIN(c tcpConn, want string) error {
	if err := c.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err == nil && string(got) != want {
		err = errors.New("got " + string(got))
	}
	return err
}

func TestTCPReset(t *testing.T) {
	for _, byClient := range []bool{true, false} {
		host, device := stacktest.New(t)
		accepted := make(chan tcpConn)
		finished := make(chan struct{})
		_, stop := start(t, stack.Config{Device: device, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
			accepted <- accept(t, r)
			<-finished
		}}})
		client := dial(t, host, fake6)
		server := receive(t, accepted, "connection")
		from, at := client, server
		if !byClient {
			from, at = server, client
		}
		from.SetLinger(0)
		from.Close()
		for range 2 { // an RST is not forgotten
			if n, err := at.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("by client %t: %d, %v", byClient, n, err)
			}
		}
		if _, err := from.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("by client %t: read after Close: %v", byClient, err)
		}
		close(finished)
		stop()
	}
}

func TestTCPUnknownIsRefused(t *testing.T) {
	for family, fake := range fakes {
		host, device := stacktest.New(t)
		s, _ := start(t, stack.Config{Device: device, Handler: handler{
			admit: func(network string, client, dst netip.AddrPort) bool {
				if network != "tcp" || dst != fake || client.Addr() != host.IPv4 && client.Addr() != host.IPv6 {
					t.Errorf("Admit(%s, %s, %s)", network, client, dst)
				}
				return false
			},
		}})
		if _, err := host.DialTCP(t.Context(), fake); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", family, err)
		}
		if n := s.Counters(); n.TCPUnknown != 1 || n.TCPRequests != 0 {
			t.Errorf("%s: %+v", family, n)
		}
	}
}

// The client hears nothing before the handler accepts.
func TestTCPDialFirst(t *testing.T) {
	host, device := stacktest.New(t)
	wire := newTap(device)
	dialling, dialled, accepted := make(chan struct{}), make(chan struct{}), make(chan struct{})
	start(t, stack.Config{Device: wire, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
		close(dialling)
		<-dialled
		accept(t, r)
		close(accepted)
	}}})
	connected := make(chan error, 1)
	go func() {
		c, err := host.DialTCP(t.Context(), fake4)
		if err == nil {
			c.Close()
		}
		connected <- err
	}()
	receive(t, dialling, "request")
	if len(wire.written) != 0 || len(connected) != 0 {
		t.Error("an answer before Accept")
	}
	close(dialled)
	if err := receive(t, connected, "connection"); err != nil {
		t.Error(err)
	}
	receive(t, accepted, "connection")
	if b := wire.next(t, 6); b[33] != syn|ack {
		t.Errorf("first answer has flags %#02x", b[33])
	}
}

func TestTCPPendingPerClient(t *testing.T) {
	device := newBare()
	release := make(chan struct{})
	served := make(chan netip.Addr, 10)
	s, _ := start(t, stack.Config{Device: device, MaxPending: 3, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
		served <- r.Client().Addr()
		<-release
	}}})
	defer close(release)
	greedy, modest := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	for port := range uint16(5) {
		b := segment(netip.AddrPortFrom(greedy, 1000+port), fake4, syn, 1, 0)
		device.send(b)
		device.send(b) // repeated, it is the same request
	}
	device.send(segment(netip.AddrPortFrom(modest, 1000), fake4, syn, 1, 0))
	count := map[netip.Addr]int{}
	for range 3 {
		count[receive(t, served, "request")]++
	}
	if count[greedy] != 2 || count[modest] != 1 {
		t.Errorf("requests: %v", count)
	}
	if n := s.Counters(); n.TCPRequests != 3 || n.TCPOverLimit != 6 {
		t.Errorf("counters: %+v", n)
	}
}

// A client that does not answer the SYN-ACK is given up, and its place is free.
func TestTCPHandshakeAbandoned(t *testing.T) {
	device := newBare()
	wire := newTap(device)
	result := make(chan error, 1)
	s, _ := start(t, stack.Config{Device: wire, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
		_, err := r.Accept(netip.AddrPort{})
		result <- err
	}}})
	device.send(segment(netip.MustParseAddrPort("192.0.2.2:1000"), fake4, syn, 1, 0))
	if err := receive(t, result, "end of the handshake"); err == nil {
		t.Error("accepted")
	}
	if n := s.Counters(); n.TCPAbandoned != 1 {
		t.Errorf("counters: %+v", n)
	}
}

// A handler that only returns has refused.
func TestTCPUnanswered(t *testing.T) {
	host, device := stacktest.New(t)
	start(t, stack.Config{Device: device, Handler: handler{tcp: func(context.Context, *stack.TCPRequest) {}}})
	if _, err := host.DialTCP(t.Context(), fake6); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}

func TestTCPAnsweredTwice(t *testing.T) {
	host, device := stacktest.New(t)
	second := make(chan error, 1)
	start(t, stack.Config{Device: device, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
		r.Refuse(syscall.ECONNREFUSED)
		r.Refuse(syscall.EHOSTUNREACH)
		_, err := r.Accept(netip.AddrPort{})
		second <- err
	}}})
	if _, err := host.DialTCP(t.Context(), fake4); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	if err := receive(t, second, "second answer"); err == nil {
		t.Error("accepted after Refuse")
	}
}

// A client that uses its source port again, while the gateway holds the old
// connection in TIME_WAIT, is served at once.
func TestTCPPortReuse(t *testing.T) {
	device := newBare()
	wire := newTap(device)
	start(t, stack.Config{Device: wire, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
		if c := accept(t, r); c != nil {
			c.CloseWrite() // first, so that TIME_WAIT is ours
			io.Copy(io.Discard, c)
		}
	}}})
	client := netip.MustParseAddrPort("192.0.2.2:4321")
	for _, isn := range []uint32{1000, 900000} {
		device.send(segment(client, fake4, syn, isn, 0))
		b := wire.next(t, 6)
		for b[33]&rst != 0 { // of the connection that gives way
			b = wire.next(t, 6)
		}
		if b[33] != syn|ack || binary.BigEndian.Uint32(b[28:]) != isn+1 {
			t.Fatalf("answer to SYN %d: % x", isn, b)
		}
		next := binary.BigEndian.Uint32(b[24:]) + 1
		device.send(segment(client, fake4, ack, isn+1, next))
		for b[33]&fin == 0 {
			b = wire.next(t, 6)
		}
		device.send(segment(client, fake4, fin|ack, isn+1, next+1))
		for binary.BigEndian.Uint32(b[28:]) != isn+2 {
			b = wire.next(t, 6)
		}
	}
}

// open makes a connection of client to fake4 over device, and returns what the
// client acknowledges with its next segment. Its initial sequence number is 1.
func open(t *testing.T, device *bare, wire *tap, client netip.AddrPort) uint32 {
	t.Helper()
	device.send(segment(client, fake4, syn, 1, 0))
	for {
		b := wire.next(t, 6)
		if b[33] == syn|ack && binary.BigEndian.Uint16(b[22:]) == client.Port() {
			next := binary.BigEndian.Uint32(b[24:]) + 1
			device.send(segment(client, fake4, ack, 2, next))
			return next
		}
	}
}

// What a client does not take when its connection is closed is kept for a
// while, and at the cost of its next connections.
func TestTCPLingering(t *testing.T) {
	device := newBare()
	wire := newTap(device)
	requests := make(chan *stack.TCPRequest, 10)
	s, _ := start(t, stack.Config{Device: wire, MaxPending: 3, MaxPendingPerClient: 1, Handler: handler{
		tcp: func(_ context.Context, r *stack.TCPRequest) {
			if r.Client().Port() == 1002 {
				return
			}
			c := accept(t, r)
			requests <- r
			c.Write(make([]byte, 100_000)) // more than the client has room for
			io.Copy(io.Discard, c)
			requests <- r
		},
	}})
	var clients [3]netip.AddrPort
	var next [2]uint32
	for i := range clients {
		clients[i] = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), 1000+uint16(i))
	}
	for i := range next {
		next[i] = open(t, device, wire, clients[i])
		receive(t, requests, "connection")
	}

	device.send(segment(clients[0], fake4, fin|ack, 2, next[0]))
	r := receive(t, requests, "end")
	eventually(t, "limit", func() bool { return r.UserTimeout() == time.Minute })
	device.send(segment(clients[1], fake4, fin|ack, 2, next[1]))
	receive(t, requests, "end")
	eventually(t, "RST", func() bool { return s.Counters().TCPCutOff == 1 })
	device.send(segment(clients[2], fake4, syn, 1, 0))
	if n := s.Counters(); n.TCPOverLimit != 1 || n.TCPRequests != 2 {
		t.Errorf("counters: %+v", n)
	}

	device.send(segment(clients[0], fake4, rst, 3, 0))
	eventually(t, "request", func() bool {
		device.send(segment(clients[2], fake4, syn, 1, 0))
		return s.Counters().TCPRequests == 3
	})
}

// eventually waits until done, or fails the test.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

func TestTCPDeadline(t *testing.T) {
	host, device := stacktest.New(t)
	start(t, stack.Config{Device: device, Handler: handler{tcp: echo(t)}})
	c := dial(t, host, fake4)
	c.SetReadDeadline(time.Now())
	var timeout interface{ Timeout() bool }
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("past deadline: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	woken := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		woken <- err
	}()
	c.SetReadDeadline(time.Now().Add(-time.Second))
	if err := receive(t, woken, "wake-up"); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("moved deadline: %v", err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	c.Write([]byte("still"))
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, []byte("still")) {
		t.Errorf("after the deadline: %q, %v", got, err)
	}
}
