package outlet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"sixgate/socks"
)

// LookupAddr knows the reverse of what LookupNetIP knows, among names that are
// none.
func (h *hosts) LookupAddr(_ context.Context, addr string) ([]string, error) {
	for name, ip := range h.known {
		if ip == addr {
			return []string{"", "192.0.2.1", "a b.", name + "."}, nil
		}
	}
	return nil, &net.DNSError{Err: "no such name", Name: addr, IsNotFound: true}
}

// Names and addresses are known where the chain ends.
func TestResolve(t *testing.T) {
	known := map[string]string{"v4.test": "192.0.2.9", "v6.test": "2001:db8::9", "home.test": "192.168.0.9", "one.test": "127.0.0.9"}
	first, last := newNode(t, "127.0.0.1", nil), newNode(t, "::1", known)
	nobody := NewDirect(DirectConfig{Resolver: &hosts{}})
	for what, way := range map[string]ResolveOutlet{
		"direct": NewDirect(DirectConfig{Resolver: &hosts{known: known}, Vet: NewGuard(nil, nil, nil).Vet}),
		"chain":  NewVia(NewVia(nobody, socks.Client{Server: first.addr}, nil), socks.Client{Server: last.addr}, nil),
	} {
		for ip, want := range map[string]string{"192.0.2.9": "v4.test", "2001:db8::9": "v6.test"} {
			if got, err := way.ResolvePTR(t.Context(), netip.MustParseAddr(ip)); err != nil || got != want {
				t.Errorf("%s: %s is %q, %v, want %s", what, ip, got, err, want)
			}
		}
		for ip, want := range map[string]syscall.Errno{
			"192.0.2.1": syscall.EHOSTUNREACH, "192.168.0.9": syscall.EHOSTUNREACH, "127.0.0.9": syscall.EACCES,
		} {
			if got, err := way.ResolvePTR(t.Context(), netip.MustParseAddr(ip)); !errors.Is(err, want) {
				t.Errorf("%s: %s is %q, %v, want %v", what, ip, got, err, want)
			}
		}
	}
}
