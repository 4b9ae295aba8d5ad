package outlet

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"sixgate/socks"
)

func TestDirectTCP(t *testing.T) {
	for _, target := range []string{"127.0.0.1", "::1"} {
		echo, _ := echoServer(t, target)
		d := NewDirect(DirectConfig{Resolver: &hosts{known: map[string]string{"target.test": target}}})
		for _, dest := range []socks.Addr{{Name: "target.test", Port: echo.Port()}, socks.AddrFromAddrPort(echo)} {
			conn, err := d.Dial(t.Context(), "tcp", dest)
			if err != nil {
				t.Errorf("%s: %v", dest, err)
				continue
			}
			exchange(t, conn)
		}
	}
}

func TestDirectUDP(t *testing.T) {
	for _, target := range []string{"127.0.0.1", "::1"} {
		far, err := net.ListenPacket("udp", net.JoinHostPort(target, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		d := NewDirect(DirectConfig{Resolver: &hosts{known: map[string]string{"target.test": target}}})
		port := far.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		conn, err := d.Dial(t.Context(), "udp", socks.Addr{Name: "target.test", Port: port})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write([]byte("hello"))
		buf := make([]byte, 10)
		n, from, err := far.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "hello" || from.String() != conn.LocalAddr().String() {
			t.Errorf("got %q of %v, %v", buf[:n], from, err)
		}
	}
}

// The far kernel's refusal comes through as it is.
func TestDirectRefused(t *testing.T) {
	ln := listen(t, "127.0.0.1")
	ln.Close()
	dest := socks.AddrFromAddrPort(ln.Addr().(*net.TCPAddr).AddrPort())
	_, err := NewDirect(DirectConfig{Resolver: &hosts{}}).Dial(t.Context(), "tcp", dest)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}

func TestDirectGuarded(t *testing.T) {
	d := NewDirect(DirectConfig{
		Resolver: &hosts{known: map[string]string{"rebound.test": "127.0.0.1"}},
		Vet:      NewGuard(nil, nil, nil).Vet,
	})
	for _, dest := range []socks.Addr{{Name: "rebound.test", Port: 1}, {IP: netip.IPv6Loopback(), Port: 1}} {
		if _, err := d.Dial(t.Context(), "tcp", dest); !errors.Is(err, syscall.EACCES) {
			t.Errorf("%s: %v", dest, err)
		}
	}
}
