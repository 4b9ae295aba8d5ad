package outlet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"sixgate/socks"
)

// hop is a SOCKS server that says the first octets of what is expected of it,
// whatever it is asked, and then does something else.
type hop struct {
	says []byte
	acts func(*net.TCPConn)
	said chan struct{} // gets one for each client
}

func (h *hop) serve(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		conn.Write(h.says)
		h.acts(conn.(*net.TCPConn))
		h.said <- struct{}{}
		io.Copy(io.Discard, conn) // until the client gives up
		conn.Close()
	}
}

// descriptors returns how many the process has.
func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

// A hop that stalls, ends, resets, or talks nonsense after any of its octets
// costs an error that tells an errno, and leaves nothing behind.
func TestHostileHop(t *testing.T) {
	const chosen, reply = "\x05\x00", "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x07"
	before := descriptors(t)
	for what, tt := range map[string]struct {
		script string
		ask    func(context.Context, *Via) error
	}{
		"CONNECT": {chosen + reply, func(ctx context.Context, v *Via) error {
			conn, err := v.Dial(ctx, "tcp", name)
			if err == nil {
				conn.Close()
			}
			return err
		}},
		"BIND": {chosen + reply + reply, func(ctx context.Context, v *Via) error {
			b, err := v.Bind(ctx, name)
			if err != nil {
				return err
			}
			defer b.Close()
			conn, _, err := b.Accept(ctx)
			if err == nil {
				conn.Close()
			}
			return err
		}},
		"UDP ASSOCIATE": {chosen + reply, func(ctx context.Context, v *Via) error {
			p, err := v.ListenPacket(ctx)
			if err == nil {
				p.Close()
			}
			return err
		}},
		"RESOLVE": {chosen + reply, func(ctx context.Context, v *Via) error {
			_, err := v.Resolve(ctx, "a.test")
			return err
		}},
	} {
		for act, acts := range map[string]func(*net.TCPConn){
			"stalls":         func(*net.TCPConn) {},
			"ends":           func(c *net.TCPConn) { c.CloseWrite() },
			"resets":         func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
			"talks nonsense": func(c *net.TCPConn) { c.Write(make([]byte, 600)) },
		} {
			for octets := range len(tt.script) {
				h := &hop{says: []byte(tt.script[:octets]), acts: acts, said: make(chan struct{})}
				ln := listen(t, "127.0.0.1")
				served := make(chan struct{})
				go func() { defer close(served); h.serve(ln) }()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				go func() {
					<-h.said
					if act == "stalls" {
						cancel()
					}
				}()
				server := socks.AddrFromAddrPort(socks.AddrPortOf(ln.Addr()))
				err := tt.ask(ctx, NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: server}, nil))
				var errno syscall.Errno
				switch {
				case err == nil && act == "talks nonsense": // which may be an address
				case err == nil:
					t.Errorf("%s of a hop that %s after %d octets: no error", what, act, octets)
				case errors.Is(err, context.DeadlineExceeded):
					t.Errorf("%s of a hop that %s after %d octets: waited on", what, act, octets)
				case !errors.As(err, &errno):
					t.Errorf("%s of a hop that %s after %d octets: %v tells no errno", what, act, octets, err)
				}
				ln.Close()
				<-served
				cancel()
			}
		}
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
