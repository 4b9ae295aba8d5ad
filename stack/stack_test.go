package stack_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"sixgate/stack"
	"sixgate/stack/stacktest"
)

func TestNewRejects(t *testing.T) {
	good := stack.Config{Device: newBare(), MTU: 1500, Handler: handler{}}
	for name, spoil := range map[string]func(*stack.Config){
		"no device":  func(c *stack.Config) { c.Device = nil },
		"no handler": func(c *stack.Config) { c.Handler = nil },
		"small MTU":  func(c *stack.Config) { c.MTU = 1279 },
		"large MTU":  func(c *stack.Config) { c.MTU = 65536 },
	} {
		config := good
		spoil(&config)
		if _, err := stack.New(config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// At the end of Run, clients are told, handlers have returned, and the device
// is closed.
func TestRunEnds(t *testing.T) {
	host, device := stacktest.New(t)
	var ended []string
	done := make(chan string, 4)
	begun := make(chan struct{}, 4)
	_, stop := start(t, stack.Config{Device: device, Handler: handler{
		tcp: func(ctx context.Context, r *stack.TCPRequest) {
			if r.Dest() == fake6 { // dials for ever
				begun <- struct{}{}
				<-ctx.Done()
				r.Refuse(ctx.Err())
				done <- "pending"
				return
			}
			c := accept(t, r)
			begun <- struct{}{}
			_, err := io.Copy(io.Discard, c)
			if !errors.Is(err, syscall.ECONNABORTED) {
				t.Errorf("connection ended with %v", err)
			}
			done <- "connection"
		},
		udp: func(_ context.Context, f *stack.DatagramFlow) {
			c, _ := f.Accept(netip.AddrPort{})
			c.Read(make([]byte, 1))
			begun <- struct{}{}
			c.Read(make([]byte, 1))
			done <- "flow"
		},
	}})
	c := dial(t, host, fake4)
	u, err := host.DialUDP(fake4)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	u.Write([]byte("x"))
	refused := make(chan error, 1)
	go func() {
		_, err := host.DialTCP(t.Context(), fake6)
		refused <- err
	}()
	for range 3 {
		receive(t, begun, "flow")
	}
	stop()
	for range 3 {
		select {
		case what := <-done:
			ended = append(ended, what)
		default:
			t.Fatalf("only ended: %v", ended)
		}
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client of a connection: %v", err)
	}
	if err := receive(t, refused, "answer"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("client of a pending request: %v", err)
	}
	if _, err := device.Write([][]byte{make([]byte, 40)}, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("device after Run: %v", err)
	}
}

// A handshake that the client never ends does not hold up the end.
func TestRunEndsInHandshake(t *testing.T) {
	device := newBare()
	wire := newTap(device)
	result := make(chan error, 1)
	_, stop := start(t, stack.Config{Device: wire, Handler: handler{tcp: func(_ context.Context, r *stack.TCPRequest) {
		_, err := r.Accept(netip.AddrPort{})
		result <- err
	}}})
	device.send(segment(netip.MustParseAddrPort("192.0.2.2:1000"), fake4, syn, 1, 0))
	wire.next(t, 6)
	stop()
	if err := receive(t, result, "result"); err == nil {
		t.Error("accepted")
	}
}

// failing is a Device that is gone.
type failing struct {
	*bare
	err error
}

func (d failing) Read([][]byte, []int, int) (int, error) { return 0, d.err }

func TestRunFailsWithDevice(t *testing.T) {
	for _, gone := range []error{os.ErrClosed, syscall.EIO} {
		s, err := stack.New(stack.Config{Device: failing{newBare(), gone}, MTU: 1500, Handler: handler{}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); !errors.Is(err, gone) {
			t.Errorf("device fails with %v, Run with %v", gone, err)
		}
	}
}

// Only the far host answers a ping.
func TestPingIsNotAnswered(t *testing.T) {
	device := newBare()
	wire := newTap(device)
	s, stop := start(t, stack.Config{Device: wire, Handler: handler{udp: func(ctx context.Context, f *stack.DatagramFlow) {
		f.Accept(netip.AddrPort{})
		<-ctx.Done()
	}}})
	device.send(ping4())
	device.send(ping6(nil))
	device.send(ping6([]byte{icmp6, 0, 1, 4, 0, 0, 0, 0})) // after destination options
	stop()
	if n := s.Counters(); n.DatagramFlows != 2 || n.DroppedMalformed != 0 || n.Received < 3 {
		t.Errorf("counters: %+v", n)
	}
	for len(wire.written) > 0 {
		if b := <-wire.written; b[0]>>4 == 4 && b[9] == icmp4 || b[0]>>4 == 6 && b[40] == 129 {
			t.Errorf("answer: % x", b)
		}
	}
}

func ping4() []byte {
	b := segment(netip.MustParseAddrPort("192.0.2.2:0"), fake4, 0, 0, 0)[:28]
	b[3], b[9], b[10], b[11] = 28, icmp4, 0, 0
	binary.BigEndian.PutUint16(b[10:], checksum(b[:20], 0))
	copy(b[20:], []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0})
	return b
}

// ping6 returns an ICMPv6 echo request after the extension header of
// destination options.
func ping6(options []byte) []byte {
	b := make([]byte, 40, 56)
	b[0], b[5], b[6], b[7] = 0x60, byte(len(options)+8), icmp6, 64
	if options != nil {
		b[6] = 60
	}
	copy(b[8:], netip.MustParseAddr("2001:db8::2").AsSlice())
	copy(b[24:], fake6.Addr().AsSlice())
	sum := checksum(append(b[8:40:40], 128, 0), icmp6+8)
	b = append(b, options...)
	return append(b, 128, 0, byte(sum>>8), byte(sum), 0, 0, 0, 0)
}

// Whatever comes from the device, the stack lives on.
func FuzzDevice(f *testing.F) {
	client := netip.MustParseAddrPort("192.0.2.2:1000")
	for _, b := range [][]byte{
		nil, {0}, {0x45}, {0x60}, ping4(), ping6(nil),
		segment(client, fake4, syn, 1, 0), segment(client, fake4, ack, 2, 1), segment(client, fake4, rst, 2, 0),
		segment(client, fake4, syn, 1, 0)[:30],
	} {
		f.Add(b)
	}
	device := newBare()
	start(f, stack.Config{Device: device, MaxPending: 100, MaxDatagramFlows: 100, Handler: handler{
		tcp: func(_ context.Context, r *stack.TCPRequest) {
			if r.Dest().Port()%2 == 0 {
				r.Refuse(syscall.EHOSTUNREACH)
			} else if c, err := r.Accept(netip.AddrPort{}); err == nil {
				io.Copy(c, c)
			}
		},
		udp: func(_ context.Context, f *stack.DatagramFlow) {
			if c, err := f.Accept(netip.AddrPort{}); err == nil {
				c.Read(make([]byte, 100))
				c.Write([]byte("x"))
				f.Refuse(syscall.ECONNREFUSED)
			}
		},
	}})
	f.Fuzz(func(t *testing.T, b []byte) {
		device.send(b)
		select {
		case <-device.closed:
			t.Fatal("the stack has ended")
		default:
		}
	})
}
