package stack_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/tun"

	"sixgate/stack"
	"sixgate/stack/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is when a test that hangs gives up.
const patience = time.Minute

// Addresses of the pools.
var (
	fake4 = netip.MustParseAddrPort("198.18.0.7:80")
	fake6 = netip.MustParseAddrPort("[2001:2::7]:80")
	fakes = map[string]netip.AddrPort{"IPv4": fake4, "IPv6": fake6}
)

// handler is a stack.Handler of functions; one that is nil is not expected to
// be called, but admit, which is true then.
type handler struct {
	admit func(network string, client, dst netip.AddrPort) bool
	tcp   func(context.Context, *stack.TCPRequest)
	udp   func(context.Context, *stack.DatagramFlow)
}

func (h handler) Admit(network string, client, dst netip.AddrPort) bool {
	return h.admit == nil || h.admit(network, client, dst)
}
func (h handler) ServeTCP(ctx context.Context, r *stack.TCPRequest)         { h.tcp(ctx, r) }
func (h handler) ServeDatagrams(ctx context.Context, f *stack.DatagramFlow) { h.udp(ctx, f) }

// start runs a stack until the test ends or stop is called, which waits.
func start(tb testing.TB, config stack.Config) (s *stack.Stack, stop func()) {
	tb.Helper()
	config.MTU = stacktest.MTU
	s, err := stack.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				tb.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			tb.Error("Run does not end")
		}
	})
	tb.Cleanup(stop)
	return s, stop
}

// dial connects host to to, or fails the test.
func dial(t *testing.T, host *stacktest.Host, to netip.AddrPort) tcpConn {
	t.Helper()
	c, err := host.DialTCP(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c.(tcpConn)
}

// tcpConn is what TCP connections of both sides offer.
type tcpConn interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
}

// accept accepts r, or fails the test.
func accept(t *testing.T, r *stack.TCPRequest) tcpConn {
	c, err := r.Accept(netip.AddrPort{})
	if err != nil {
		t.Errorf("Accept: %v", err)
		return nil
	}
	c.SetDeadline(time.Now().Add(patience))
	return c.(tcpConn)
}

// receive returns the next of c, or fails the test.
func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// tap is a Device that shows what is written to it.
type tap struct {
	stack.Device
	written chan []byte // drops when full
}

func newTap(device stack.Device) *tap {
	return &tap{device, make(chan []byte, 1000)}
}

func (d *tap) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		select {
		case d.written <- append([]byte(nil), b[offset:]...):
		default:
		}
	}
	return d.Device.Write(bufs, offset)
}

// next returns the next written packet with this IP protocol number.
func (d *tap) next(t *testing.T, protocol byte) []byte {
	t.Helper()
	for {
		b := receive(t, d.written, "packet")
		if b[0]>>4 == 4 && b[9] == protocol || b[0]>>4 == 6 && b[6] == protocol {
			return b
		}
	}
}

// bare is a Device without a host behind it: the test is the host.
type bare struct {
	toStack chan []byte
	closed  chan struct{}
	close   func()
	events  chan tun.Event
}

func newBare() *bare {
	d := &bare{toStack: make(chan []byte), closed: make(chan struct{}), events: make(chan tun.Event)}
	d.close = sync.OnceFunc(func() {
		close(d.closed)
		close(d.events)
	})
	return d
}

// send hands a packet to the stack and returns when it has been processed, but
// for what TCP does on its own goroutines.
func (d *bare) send(b []byte) {
	for _, p := range [][]byte{b, nil} { // the second is read when the first is done
		select {
		case d.toStack <- p:
		case <-d.closed:
		}
	}
}

func (d *bare) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case b := <-d.toStack:
		sizes[0] = copy(bufs[0][offset:], b)
		return 1, nil
	case <-d.closed:
		return 0, os.ErrClosed
	}
}

func (d *bare) Write(bufs [][]byte, _ int) (int, error) { return len(bufs), nil }
func (d *bare) Close() error                            { d.close(); return nil }
func (d *bare) File() *os.File                          { return nil }
func (d *bare) MTU() (int, error)                       { return stacktest.MTU, nil }
func (d *bare) Name() (string, error)                   { return "bare", nil }
func (d *bare) Events() <-chan tun.Event                { return d.events }
func (d *bare) BatchSize() int                          { return 1 }

// TCP flags (RFC 9293, section 3.1).
const (
	fin = 1 << iota
	syn
	rst
	_
	ack
)

// segment returns an IPv4 packet with a TCP segment without data.
func segment(from, to netip.AddrPort, flags byte, seq, acked uint32) []byte {
	b := make([]byte, 40)
	b[0], b[8], b[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(b[2:], 40)
	copy(b[12:], from.Addr().AsSlice())
	copy(b[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b[:20], 0))
	p := b[20:]
	binary.BigEndian.PutUint16(p, from.Port())
	binary.BigEndian.PutUint16(p[2:], to.Port())
	binary.BigEndian.PutUint32(p[4:], seq)
	binary.BigEndian.PutUint32(p[8:], acked)
	p[12], p[13] = 5<<4, flags
	binary.BigEndian.PutUint16(p[14:], 65535)
	binary.BigEndian.PutUint16(p[16:], checksum(b[12:], 6+20))
	return b
}

// checksum is that of RFC 1071 over b, whose length is even, and extra.
func checksum(b []byte, extra uint32) uint16 {
	sum := extra
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// echo is a ServeTCP that returns what it gets, until a FIN.
func echo(t *testing.T) func(context.Context, *stack.TCPRequest) {
	return func(_ context.Context, r *stack.TCPRequest) {
		c := accept(t, r)
		if c == nil {
			return
		}
		io.Copy(struct{ io.Writer }{c}, c)
		c.Close()
	}
}
