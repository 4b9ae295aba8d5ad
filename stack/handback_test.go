package stack_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"sixgate/stack"
)

// handedBack runs a stack whose handler hands a SYN back, and what it does
// with the outcome. The test is the client, and the kernel.
type handedBack struct {
	device  *bare
	wire    *tap
	stack   *stack.Stack
	stop    func()
	arrived chan net.Conn
	carries atomic.Bool // what the kernel says
	results chan error
	finish  chan struct{} // closed to end the handler
	client  netip.AddrPort
}

func newHandedBack(t *testing.T, then func(r *stack.TCPRequest, err error)) *handedBack {
	h := &handedBack{
		device: newBare(), arrived: make(chan net.Conn, 1), results: make(chan error, 1), finish: make(chan struct{}),
		client: netip.MustParseAddrPort("192.0.2.2:1000"),
	}
	h.carries.Store(true)
	h.wire = newTap(h.device)
	h.stack, h.stop = start(t, stack.Config{Device: h.wire, Handler: handler{tcp: func(ctx context.Context, r *stack.TCPRequest) {
		conn, err := r.HandBack(ctx, h.arrived, h.carries.Load)
		then(r, err)
		h.results <- err
		if conn != nil {
			<-h.finish
		}
	}}})
	return h
}

// sendUntil sends a segment, if any, until done.
func (h *handedBack) sendUntil(t *testing.T, b []byte, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("nothing became of it")
		}
		if b != nil {
			h.device.send(b)
		}
	}
}

func TestHandBack(t *testing.T) {
	h := newHandedBack(t, func(*stack.TCPRequest, error) {})
	syn := segment(h.client, fake4, syn, 1, 0)
	h.device.send(syn)
	if back := h.wire.next(t, 6); !bytes.Equal(back, syn) {
		t.Errorf("the kernel got %x, want %x", back, syn)
	}
	// What comes before the kernel has told of it is the kernel's, too.
	h.device.send(segment(h.client, fake4, ack, 2, 100))

	near, far := net.Pipe()
	defer far.Close()
	h.arrived <- near
	if err := receive(t, h.results, "result"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		h.device.send(syn)
		h.device.send(segment(h.client, fake4, ack, 2, 100))
	}
	select {
	case b := <-h.wire.written:
		t.Errorf("written for a connection that the kernel has: %x", b)
	default:
	}

	close(h.finish)
	stranger := segment(h.client, fake4, ack, 2, 100)
	h.sendUntil(t, stranger, func() bool { return len(h.wire.written) > 0 })
	if b := h.wire.next(t, 6); b[33]&rst == 0 {
		t.Errorf("after its end: %x, want an RST", b)
	}
	if n := h.stack.Counters(); n.TCPAccepted != 1 || n.TCPHandedBack != 1 || n.TCPNotTaken != 0 {
		t.Errorf("counters: %+v", n)
	}
}

// A SYN that the kernel does not take is accepted here.
func TestHandBackNotTaken(t *testing.T) {
	routedBack := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[8]-- // TTL
		b[10], b[11] = 0, 0
		sum := checksum(b[:20], 0)
		b[10], b[11] = byte(sum>>8), byte(sum)
		return b
	}
	repeated := func(b []byte) []byte { return b }
	for _, tt := range []struct {
		what    string
		carries bool
		comes   func([]byte) []byte
		lost    bool
	}{
		{"routed back", true, routedBack, false},
		{"repeated in vain", true, repeated, true},
		{"gone", false, func([]byte) []byte { return nil }, true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			h := newHandedBack(t, func(r *stack.TCPRequest, err error) {
				if !errors.Is(err, stack.ErrNotTaken) || errors.Is(err, stack.ErrLost) != tt.lost {
					t.Errorf("HandBack: %v, lost %v", err, tt.lost)
				}
				accept(t, r)
			})
			h.carries.Store(tt.carries)
			asked := segment(h.client, fake4, syn, 1, 0)
			h.device.send(asked)
			h.sendUntil(t, tt.comes(asked), func() bool { return h.stack.Counters().TCPNotTaken == 1 })
			for {
				b := h.wire.next(t, 6)
				if b[33] == syn|ack {
					h.device.send(segment(h.client, fake4, ack, 2, uint32(b[24])<<24|uint32(b[25])<<16|uint32(b[26])<<8|uint32(b[27])+1))
					break
				}
			}
			receive(t, h.results, "result")
			if n := h.stack.Counters(); n.TCPAccepted != 1 || n.TCPHandedBack != 0 {
				t.Errorf("counters: %+v", n)
			}
		})
	}
}

// The end of the stack, or of the caller's wait, ends a request.
func TestHandBackStopped(t *testing.T) {
	for name, stop := range map[string]func(*handedBack){
		"stack": func(h *handedBack) { h.stop() },
		"wait":  func(h *handedBack) { close(h.arrived) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandedBack(t, func(*stack.TCPRequest, error) {})
			h.device.send(segment(h.client, fake4, syn, 1, 0))
			h.wire.next(t, 6)
			stop(h)
			if err := receive(t, h.results, "result"); !errors.Is(err, net.ErrClosed) {
				t.Errorf("HandBack: %v, want %v", err, net.ErrClosed)
			}
		})
	}
}
