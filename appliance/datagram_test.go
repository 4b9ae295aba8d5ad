package appliance

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"sixgate/appliance/config"
	"sixgate/socks"
)

// TestNoUDP wants a client of UDP to hear at once that a chain carries none, so
// that QUIC goes on with TCP.
func TestNoUDP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveStreams(t, ln, func(c net.Conn) {
		for _, answer := range [][]byte{{5, 0}, {5, byte(socks.CommandUnsupported), 0, 1, 0, 0, 0, 0, 0, 0}} {
			if _, err := c.Read(make([]byte, 512)); err != nil {
				return
			}
			c.Write(answer)
		}
		io.Copy(io.Discard, c)
	})
	b := newBox(t, newWorld(t), func(c *config.Config) {
		c.Outlets = []config.Outlet{{Name: "far", Type: config.OutletSOCKS5, Server: socks.AddrFromAddrPort(addrPort(ln.Addr()))}}
		c.Rules = []config.Rule{{Outlet: "far"}}
	})
	for _, client6 := range []bool{false, true} {
		conn, err := b.dialTUN(t.Context(), "udp", client6, "v6only.test", 443)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("QUIC")); err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err = conn.Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("IPv6 client %t: %v", client6, err)
		}
	}
}
