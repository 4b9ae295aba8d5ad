package outlet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"sixgate/socks"
)

// TestBind takes one connection of the right peer, here and at the end of a
// chain, and resets others.
func TestBind(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		peer := socks.Addr{Name: "peer.test"}
		names := map[string]string{"peer.test": ip}
		direct := NewDirect(DirectConfig{Resolver: &hosts{known: names}})
		last, first := newNode(t, ip, names), newNode(t, "127.0.0.1", nil)
		for what, way := range map[string]BindOutlet{
			"direct": direct,
			"via":    NewVia(direct, socks.Client{Server: last.addr}, nil),
			"chain":  NewVia(NewVia(direct, socks.Client{Server: first.addr}, nil), socks.Client{Server: last.addr}, nil),
		} {
			t.Run(ip+" "+what, func(t *testing.T) {
				b, err := way.Bind(t.Context(), peer)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				if b.Addr().Addr() != netip.MustParseAddr(ip) {
					t.Errorf("listens at %s", b.Addr())
				}
				if ip == "127.0.0.1" {
					stranger, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 77)}}).Dial("tcp", b.Addr().String())
					if err == nil {
						stranger.Close()
					} else if !errors.Is(err, syscall.ECONNRESET) {
						t.Fatal(err)
					}
				}
				far, err := net.Dial("tcp", b.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer far.Close()
				conn, from, err := b.Accept(t.Context())
				if err != nil || from.String() != far.LocalAddr().String() {
					t.Fatalf("accepted from %s, %v", from, err)
				}
				defer conn.Close()
				io.WriteString(far, "hello")
				got := make([]byte, 5)
				if _, err := io.ReadFull(conn, got); string(got) != "hello" {
					t.Errorf("got %q, %v", got, err)
				}
				if again, err := net.Dial("tcp", b.Addr().String()); err == nil {
					t.Error("still listening")
					again.Close()
				}
			})
		}
	}
}

// Towards nobody in particular, a host behind a NAT is at its external address
// of the family that was asked for.
func TestBindBehindNAT(t *testing.T) {
	external := []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")}
	d := NewDirect(DirectConfig{Listening: socks.Listening{External: external}})
	for i, anybody := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		b, err := d.Bind(t.Context(), socks.Addr{IP: anybody})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if got := b.Addr(); got.Addr() != external[i] || got.Port() == 0 {
			t.Errorf("for %s it listens at %s", anybody, got)
		}
	}
}

func TestBindRefuses(t *testing.T) {
	direct := NewDirect(DirectConfig{Resolver: &hosts{}, Vet: NewGuard(nil, nil, nil).Vet})
	for peer, want := range map[socks.Addr]syscall.Errno{
		{Name: "unknown.test"}:                 syscall.EHOSTUNREACH,
		{IP: netip.MustParseAddr("127.0.0.1")}: syscall.EACCES,
		{IP: netip.MustParseAddr("ff02::1")}:   syscall.EACCES,
	} {
		if _, err := direct.Bind(t.Context(), peer); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", peer, err, want)
		}
	}
}

// For anybody it listens in the family asked for.
func TestBindForAnybody(t *testing.T) {
	d := NewDirect(DirectConfig{})
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		b, err := d.Bind(t.Context(), socks.Addr{IP: any})
		if err != nil {
			t.Fatal(err)
		}
		if networkOf(b.Addr().Addr()) != networkOf(any) {
			t.Errorf("for %s listens at %s", any, b.Addr())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, _, err := b.Accept(ctx); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("got %v", err)
		}
		cancel()
	}
}
