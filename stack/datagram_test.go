package stack_test

import (
	"bytes"
	"context"
	"errors"
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
			for _, size := range []int{1, 0, 1400, 9000} { // the last one in fragments
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
