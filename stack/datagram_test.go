package stack_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"sixgate/stack"
	"sixgate/stack/stacktest"
)

func TestUDPEcho(t *testing.T) {
	for family, fake := range fakes {
		t.Run(family, func(t *testing.T) {
			host, device := stacktest.New(t)
			s, stop := start(t, stack.Config{Device: device, Handler: handler{udp: func(_ context.Context, f *stack.DatagramFlow) {
				c, err := f.Accept(netip.AddrPort{})
				if err != nil {
					t.Errorf("Accept: %v", err)
					return
				}
				if c.LocalAddr().String() != f.Dest().String() || c.RemoteAddr().String() != f.Client().String() {
					t.Errorf("%s to %s is %s to %s", f.Client(), f.Dest(), c.RemoteAddr(), c.LocalAddr())
				}
				for buf := make([]byte, 65535); ; {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					c.Write(buf[:n])
				}
			}}})
			c, err := host.DialUDP(fake) // connected: it hears nobody but fake
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			longest := 65535 - 8
			if fake.Addr().Is4() {
				longest -= 20
			}
			for _, size := range []int{1, 0, 1400, 9000, longest} { // the last ones in fragments
				sent := bytes.Repeat([]byte{byte(size)}, size)
				if _, err := c.Write(sent); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 65535)
				n, err := c.Read(got)
				if err != nil || !bytes.Equal(got[:n], sent) {
					t.Fatalf("%d bytes: got %d, %v", size, n, err)
				}
			}
			stop()
			if n := s.Counters(); n.DatagramFlows != 1 {
				t.Errorf("counters: %+v", n)
			}
		})
	}
}

// TestUninvited has a host send something first.
func TestUninvited(t *testing.T) {
	for family, fake := range fakes {
		t.Run(family, func(t *testing.T) {
			host, device := stacktest.New(t)
			flows := make(chan *stack.DatagramFlow, 10)
			release := make(chan struct{})
			s, _ := start(t, stack.Config{Device: device, Handler: handler{udp: func(_ context.Context, f *stack.DatagramFlow) {
				flows <- f
				<-release
			}}})
			defer close(release)
			c, err := host.DialUDP(fake)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			client := c.LocalAddr().(*net.UDPAddr).AddrPort()
			for s.Endpoints() < 0 || !s.BeginDatagrams(client, fake) { // until it runs
				time.Sleep(time.Millisecond)
			}
			f := receive(t, flows, "flow")
			if f.Client() != client || f.Dest() != fake {
				t.Errorf("flow of %s to %s", f.Client(), f.Dest())
			}
			if s.BeginDatagrams(client, fake) {
				t.Error("begun twice")
			}
			conn, err := f.Accept(netip.AddrPort{})
			if err != nil {
				t.Fatal(err)
			}
			conn.Write([]byte("first"))
			buf := make([]byte, 100)
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != "first" {
				t.Fatalf("client got %q, %v", buf[:n], err)
			}
			c.Write([]byte("answer"))
			conn.SetDeadline(time.Now().Add(patience))
			if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "answer" {
				t.Fatalf("got %q, %v", buf[:n], err)
			}
			conn.Close()

			// Nobody tells the client that a stranger was refused.
			if !s.BeginDatagrams(client, fake) {
				t.Fatal("not begun again")
			}
			receive(t, flows, "flow").Refuse(syscall.ECONNREFUSED)
			c.Write([]byte("again"))
			f = receive(t, flows, "flow")
			if conn, err = f.Accept(netip.AddrPort{}); err != nil {
				t.Fatal(err)
			}
			conn.Write([]byte("last"))
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != "last" {
				t.Errorf("client got %q, %v", buf[:n], err)
			}
		})
	}
}

// TestUDPFlowThatHasJustEnded wants no datagram lost that comes between the end
// of a flow and the handler's return.
func TestUDPFlowThatHasJustEnded(t *testing.T) {
	for family, fake := range fakes {
		t.Run(family, func(t *testing.T) {
			host, device := stacktest.New(t)
			taken := make(chan string, 2)
			s, _ := start(t, stack.Config{Device: device, Handler: handler{udp: func(ctx context.Context, f *stack.DatagramFlow) {
				c, err := f.Accept(netip.AddrPort{})
				if err != nil {
					t.Errorf("Accept: %v", err)
					return
				}
				carried := false
				c.Forward(func(d stack.Datagrams) error {
					if carried {
						return net.ErrClosed
					}
					carried = true
					taken <- string(d.Payload)
					return nil
				})
				<-c.Done()
			}}})
			c, err := host.DialUDP(fake)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, want := range []string{"first", "second", "third"} {
				if _, err := c.Write([]byte(want)); err != nil {
					t.Fatal(err)
				}
				if got := receive(t, taken, "datagram"); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			if n := s.Counters(); n.DatagramFlows != 3 || n.ICMPSent != 0 {
				t.Errorf("counters: %+v", n)
			}
		})
	}
}

func TestUDPUnknownIsRefused(t *testing.T) {
	for family, fake := range fakes {
		host, device := stacktest.New(t)
		s, _ := start(t, stack.Config{Device: device, Handler: handler{
			admit: func(network string, _, dst netip.AddrPort) bool { return network != "udp" || dst != fake },
		}})
		if err := refusedUDP(host, fake); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", family, err)
		}
		if n := s.Counters(); n.DatagramUnknown != 1 || n.DatagramFlows != 0 {
			t.Errorf("%s: %+v", family, n)
		}
	}
}

// refusedUDP sends a datagram and returns the error that is the answer.
func refusedUDP(host *stacktest.Host, to netip.AddrPort) error {
	c, err := host.DialUDP(to)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("anyone?")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

func TestUDPFlowsPerClient(t *testing.T) {
	host, device := stacktest.New(t)
	serving := make(chan netip.Addr, 3)
	s, _ := start(t, stack.Config{Device: device, MaxDatagramFlows: 3, Handler: handler{udp: func(ctx context.Context, f *stack.DatagramFlow) {
		f.Accept(netip.AddrPort{})
		serving <- f.Client().Addr()
		<-ctx.Done()
	}}})
	for _, to := range []netip.AddrPort{fake4, fake4, fake6} {
		c, err := host.DialUDP(to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("first"))
		receive(t, serving, "flow")
		if to != fake4 {
			continue
		}
		if n := s.Counters().DatagramFlows; n == 2 { // two thirds of 3 are one client's
			if err := refusedUDP(host, fake4); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("third flow of a client: %v", err)
			}
		}
	}
	if n := s.Counters(); n.DatagramFlows != 3 || n.DatagramOverLimit != 1 {
		t.Errorf("counters: %+v", n)
	}
}

// Of many flows that a client begins at once none is lost, even where others
// of it wait for the network.
func TestUDPStarting(t *testing.T) {
	const slow, all = 130, 400
	device := newBare()
	begun := make(chan uint16, all)
	done := make(chan struct{})
	s, stop := start(t, stack.Config{Device: device, Handler: handler{udp: func(_ context.Context, f *stack.DatagramFlow) {
		if f.Client().Port() <= slow {
			<-done
			return
		}
		c, _ := f.Accept(netip.AddrPort{})
		buf := make([]byte, 2)
		if n, err := c.Read(buf); n != 1 || err != nil {
			t.Errorf("%s: %d bytes, %v", f.Client(), n, err)
		}
		begun <- f.Client().Port()
		<-c.Done()
	}}})
	for port := range uint16(all) {
		device.send(datagram(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), port+1), fake4, []byte("x")))
	}
	ports := make(map[uint16]bool)
	for range all - slow {
		ports[receive(t, begun, "flow")] = true
	}
	if len(ports) != all-slow {
		t.Errorf("%d flows began, want %d", len(ports), all-slow)
	}
	if n := s.Counters(); n.DatagramFlows != all || n.DatagramOverLimit != 0 || n.ICMPSent != 0 {
		t.Errorf("counters: %+v", n)
	}
	close(done)
	stop()
}

// A destination may refuse after the flow began.
func TestUDPRefusedLate(t *testing.T) {
	host, device := stacktest.New(t)
	start(t, stack.Config{Device: device, Handler: handler{udp: func(_ context.Context, f *stack.DatagramFlow) {
		c, _ := f.Accept(netip.AddrPort{})
		c.Read(make([]byte, 1))
		f.Refuse(syscall.ECONNREFUSED)
	}}})
	if err := refusedUDP(host, fake6); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}

// datagram returns an IPv4 packet with a UDP datagram.
func datagram(from, to netip.AddrPort, payload []byte) []byte {
	b := append(segment(from, to, 0, 0, 0)[:28], payload...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[9], b[10], b[11] = 17, 0, 0
	binary.BigEndian.PutUint16(b[10:], checksum(b[:20], 0))
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload)))
	b[26], b[27] = 0, 0
	binary.BigEndian.PutUint16(b[26:], checksum(even(b[12:]), 17+8+uint32(len(payload))))
	return b
}

// When there are too many flows, one that nobody answers makes room, such as
// one from a forged source; answered ones stay.
func TestUDPEviction(t *testing.T) {
	device := newBare()
	served := make(chan netip.AddrPort, 100)
	ended := make(chan netip.AddrPort, 100)
	s, stop := start(t, stack.Config{Device: device, MaxDatagramFlows: 3, Handler: handler{udp: func(_ context.Context, f *stack.DatagramFlow) {
		c, _ := f.Accept(netip.AddrPort{})
		if f.Client().Addr() == netip.MustParseAddr("192.0.2.2") {
			c.Write([]byte("answer"))
		}
		served <- f.Client()
		<-c.Done()
		ended <- f.Client()
	}}})
	begin := func(client string) {
		device.send(datagram(netip.MustParseAddrPort(client), fake4, []byte("x")))
		if got := receive(t, served, "flow"); got.String() != client {
			t.Fatalf("flow of %s, want %s", got, client)
		}
	}
	begin("192.0.2.2:1")
	begin("192.0.2.2:2")
	begin("192.0.2.100:1")
	for _, client := range []string{"192.0.2.101:1", "192.0.2.102:1", "192.0.2.103:1"} {
		begin(client)
		if got := receive(t, ended, "end"); got.Addr() == netip.MustParseAddr("192.0.2.2") {
			t.Errorf("%s, which was answered, had to go", got)
		}
	}
	if n := s.Counters(); n.DatagramEvicted != 3 || n.DatagramOverLimit != 0 {
		t.Errorf("counters: %+v", n)
	}
	// Who has its share gets no more, and nobody has to go for that.
	device.send(datagram(netip.MustParseAddrPort("192.0.2.2:3"), fake4, []byte("x")))
	begin("192.0.2.104:1")
	if got := receive(t, ended, "end"); got != netip.MustParseAddrPort("192.0.2.103:1") {
		t.Errorf("%s had to go", got)
	}
	if n := s.Counters(); n.DatagramEvicted != 4 || n.DatagramOverLimit != 1 {
		t.Errorf("counters: %+v", n)
	}
	stop()
}

// Datagrams that came in a row are handed on in a row, each with its bounds,
// also those that came before anybody took them.
func TestForward(t *testing.T) {
	device := newBare()
	got := make(chan stack.Datagrams, 100)
	s, _ := start(t, stack.Config{Device: device, Handler: handler{udp: func(_ context.Context, f *stack.DatagramFlow) {
		c, _ := f.Accept(netip.AddrPort{})
		c.Forward(func(d stack.Datagrams) error {
			d.Payload = bytes.Clone(d.Payload)
			got <- d
			return nil
		})
		<-c.Done()
	}}})
	client := netip.MustParseAddrPort("192.0.2.2:1000")
	for _, size := range []int{5, 0, 1472} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		device.send(datagram(client, fake4, sent))
		d := receive(t, got, "datagram")
		if !bytes.Equal(d.Payload, sent) || d.Size != 0 || d.TTL != 64 || d.Whole || d.Port != 0 {
			t.Errorf("%d bytes: %d bytes, %+v", size, len(d.Payload), d)
		}
	}
	spoiled := datagram(client, fake4, []byte("spoiled"))
	spoiled[30]++
	long := datagram(client, fake4, []byte("long"))
	long[25] += 9
	for _, b := range [][]byte{
		spoiled, long,
		datagram(netip.MustParseAddrPort("224.0.0.1:9"), fake4, nil),
		datagram(netip.MustParseAddrPort("255.255.255.255:9"), fake4, nil),
		datagram(netip.MustParseAddrPort("0.0.0.0:9"), fake4, nil),
		datagram(client, netip.MustParseAddrPort("224.0.0.1:9"), nil),
	} {
		device.send(b)
	}
	device.send(datagram(client, fake4, []byte("last")))
	if d := receive(t, got, "datagram"); string(d.Payload) != "last" {
		t.Errorf("got %q", d.Payload)
	}
	if n := s.Counters(); n.DroppedMalformed != 6 || n.DatagramFlows != 1 || n.ICMPSent != 0 {
		t.Errorf("counters: %+v", n)
	}
}

// What cannot be sent comes back to the client as ICMP, with its own datagram.
func TestForwardFails(t *testing.T) {
	device := newBare()
	wire := newTap(device)
	failure := error(syscall.EHOSTUNREACH)
	start(t, stack.Config{Device: wire, Handler: handler{udp: func(_ context.Context, f *stack.DatagramFlow) {
		c, _ := f.Accept(netip.AddrPort{})
		c.Forward(func(stack.Datagrams) error { return failure })
		<-c.Done()
	}}})
	client := netip.MustParseAddrPort("192.0.2.2:1000")
	device.send(datagram(client, fake4, []byte("anyone?")))
	checkUnreachable(t, wire.next(t, icmp4), fake4, client.Addr(), 1, 17)
}
