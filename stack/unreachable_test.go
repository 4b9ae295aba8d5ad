package stack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"sixgate/stack"
	"sixgate/stack/stacktest"
)

// IP protocol numbers of ICMP and ICMPv6.
const (
	icmp4 = 1
	icmp6 = 58
)

// none is the code of an answer that is an RST.
const none = 255

// refusals are errors and the ICMP codes that tell of them, for TCP.
var refusals = []struct {
	name   string
	err    error
	v4, v6 byte
}{
	{"refused", syscall.ECONNREFUSED, none, none},
	{"reset", syscall.ECONNRESET, none, none},
	{"cancelled", context.Canceled, none, none},
	{"no error", nil, none, none},
	{"host", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, 1, 3},
	{"host down", syscall.EHOSTDOWN, 1, 3},
	{"network", fmt.Errorf("dialling: %w", syscall.ENETUNREACH), 0, 0},
	{"network down", syscall.ENETDOWN, 0, 0},
	{"timeout", syscall.ETIMEDOUT, 1, 3},
	{"deadline", os.ErrDeadlineExceeded, 1, 3},
	{"context", context.DeadlineExceeded, 1, 3},
	{"name", &net.DNSError{Err: "no such host", IsNotFound: true}, 1, 3},
	{"denied", syscall.EACCES, 13, 1},
	{"not permitted", syscall.EPERM, 13, 1},
}

func TestRefuseTCP(t *testing.T) {
	for _, test := range refusals {
		for family, fake := range fakes {
			t.Run(test.name+" "+family, func(t *testing.T) {
				host, device := stacktest.New(t)
				wire := newTap(device)
				s, stop := start(t, stack.Config{Device: wire, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
					r.Refuse(test.err)
				}}})
				ctx, cancel := context.WithCancel(t.Context())
				dialled := make(chan error, 1)
				go func() {
					_, err := host.DialTCP(ctx, fake)
					dialled <- err
				}()
				code, protocol, local := test.v4, byte(icmp4), host.IPv4
				if fake.Addr().Is6() {
					code, protocol, local = test.v6, icmp6, host.IPv6
				}
				if code == none {
					if err := receive(t, dialled, "answer"); !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("dial: %v", err)
					}
				} else {
					checkUnreachable(t, wire.next(t, protocol), fake, local, code, 6)
				}
				cancel()
				stop()
				if n := s.Counters(); n.TCPRefused == 0 || (n.ICMPSent == 0) != (code == none) {
					t.Errorf("counters: %+v", n)
				}
			})
		}
	}
}

// checkUnreachable checks that b is a destination unreachable with this code,
// from fake to client, about a packet of this protocol from client to fake.
func checkUnreachable(t *testing.T, b []byte, fake netip.AddrPort, client netip.Addr, code, protocol byte) {
	t.Helper()
	var src, dst, icmp, quoted []byte
	ipSize, kind, limit := 20, byte(3), 576
	if b[0]>>4 == 4 {
		src, dst, icmp = b[12:16], b[16:20], b[20:]
		if checksum(b[:20], 0) != 0 || checksum(even(icmp), 0) != 0 {
			t.Errorf("wrong checksum")
		}
	} else {
		ipSize, kind, limit = 40, 1, 1280
		src, dst, icmp = b[8:24], b[24:40], b[40:]
		if checksum(even(b[8:]), uint32(icmp6+len(icmp))) != 0 {
			t.Errorf("wrong checksum")
		}
	}
	if !bytes.Equal(src, fake.Addr().AsSlice()) || !bytes.Equal(dst, client.AsSlice()) {
		t.Errorf("from % x to % x", src, dst)
	}
	if icmp[0] != kind || icmp[1] != code || !bytes.Equal(icmp[4:8], make([]byte, 4)) {
		t.Errorf("ICMP header % x, want type %d code %d", icmp[:8], kind, code)
	}
	if len(b) > limit {
		t.Errorf("%d bytes, more than %d", len(b), limit)
	}
	if quoted = icmp[8:]; len(quoted) < ipSize+8 {
		t.Fatalf("only %d bytes are quoted", len(quoted))
	}
	if quoted[0]>>4 == 4 && quoted[9] != protocol || quoted[0]>>4 == 6 && quoted[6] != protocol {
		t.Errorf("about another protocol: % x", quoted)
	}
	if ends := quoted[ipSize-2*len(src) : ipSize]; !bytes.Equal(ends, append(client.AsSlice(), fake.Addr().AsSlice()...)) {
		t.Errorf("about a packet of other addresses: % x", ends)
	}
	if port := uint16(quoted[ipSize+2])<<8 | uint16(quoted[ipSize+3]); port != fake.Port() {
		t.Errorf("about a packet to port %d", port)
	}
}

// even returns b with a zero octet more where its length is odd.
func even(b []byte) []byte { return append(b[:len(b):len(b)], make([]byte, len(b)%2)...) }

func TestRefuseUDP(t *testing.T) {
	for _, test := range refusals {
		for family, fake := range fakes {
			t.Run(test.name+" "+family, func(t *testing.T) {
				host, device := stacktest.New(t)
				wire := newTap(device)
				s, stop := start(t, stack.Config{Device: wire, Handler: handler{udp: func(_ context.Context, f *stack.DatagramFlow) {
					f.Refuse(test.err)
				}}})
				c, err := host.DialUDP(fake)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write(make([]byte, 1401)); err != nil { // more than may be quoted
					t.Fatal(err)
				}
				code, port, protocol, local := test.v4, byte(3), byte(icmp4), host.IPv4
				if fake.Addr().Is6() {
					code, port, protocol, local = test.v6, 4, icmp6, host.IPv6
				}
				if code == none {
					code = port
				}
				checkUnreachable(t, wire.next(t, protocol), fake, local, code, 17)
				stop()
				if n := s.Counters(); n.DatagramFlows != 1 || n.DatagramRefused != 1 || n.ICMPSent != 1 {
					t.Errorf("counters: %+v", n)
				}
			})
		}
	}
}

// Above the rate of ICMP errors, TCP is still told, by RST.
func TestRefuseRate(t *testing.T) {
	device := newBare()
	wire := newTap(device)
	s, stop := start(t, stack.Config{Device: wire, MaxPending: 3000, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
		r.Refuse(syscall.EHOSTUNREACH)
	}}})
	const requests = 1500
	for port := range uint16(requests) {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(port % 200)}), 1000+port)
		device.send(segment(client, fake4, syn, 1, 0))
	}
	stop()
	n := s.Counters()
	if n.TCPRefused != requests || n.ICMPSent+n.ICMPSuppressed != requests || n.ICMPSuppressed == 0 {
		t.Errorf("counters: %+v", n)
	}
}
