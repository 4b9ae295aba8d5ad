package host

import (
	"net"
	"net/netip"
	"testing"
)

func TestCarries(t *testing.T) {
	for network, ip := range map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1"} {
		t.Run(network, func(t *testing.T) {
			all, err := net.Listen(network, ":0")
			if err != nil {
				t.Skip(err)
			}
			defer all.Close()
			dest := netip.AddrPortFrom(netip.MustParseAddr(ip), all.Addr().(*net.TCPAddr).AddrPort().Port())
			if got, want := [2]bool{TellsOf(dest), TellsOf(netip.AddrPortFrom(dest.Addr(), 1))}, [2]bool{true, false}; got != want {
				t.Errorf("of the listening socket and none: %v, want %v", got, want)
			}
			conn, err := net.Dial(network, dest.String())
			if err != nil {
				t.Skip(err)
			}
			defer conn.Close()
			client := conn.LocalAddr().(*net.TCPAddr).AddrPort()
			stranger := netip.AddrPortFrom(client.Addr(), 1)
			for from, want := range map[netip.AddrPort]bool{client: true, stranger: false} {
				if got, err := Carries(from, dest); got != want || err != nil {
					t.Errorf("from %s to %s: %v, %v", from, dest, got, err)
				}
			}
		})
	}
}
