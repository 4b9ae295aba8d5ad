package appliance

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"sixgate/appliance/config"
	"sixgate/socks"
	"sixgate/socks/datagram"
	"sixgate/socks/nat64"
	"sixgate/socks/outlet"
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

// TestAssociationTranslates sends datagrams to an IPv4 address as clients of
// IPv6 write it, and as it is: the answers come from where they went.
func TestAssociationTranslates(t *testing.T) {
	w := newWorld(t)
	b := newBox(t, w, nil)
	literals := []netip.Prefix{nat64.Local(), nat64.WellKnown()}
	b.parts.machine.Store(&machine{ipv6: true, literals: literals, denied: literals})
	via := outlet.NewVia(outlet.NewDirect(outlet.DirectConfig{}), socks.Client{Server: b.socks6}, nil)
	packets, err := via.ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	answers := make(chan socks.Addr, 10)
	packets.Forward(func(_ datagram.Batch, from socks.Addr) { answers <- from })
	for _, ip := range []netip.Addr{
		nat64.Embed(nat64.WellKnown(), far4), far4, nat64.Embed(netip.MustParsePrefix("64:ff9b:1:2::/96"), far4), far4, far6,
	} {
		dest := socks.Addr{IP: ip, Port: w.port}
		if err := packets.Send(datagram.Batch{Payload: []byte("hello"), TTL: datagram.DefaultTTL}, dest); err != nil {
			t.Fatal(err)
		}
		select {
		case from := <-answers:
			if from != dest {
				t.Errorf("what went to %s was answered by %s", dest, from)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s does not answer", dest)
		}
	}
}

// TestAssociationForgets bounds what a client can make an association remember.
func TestAssociationForgets(t *testing.T) {
	a := &association{inlet: &socksInlet{literal: func(_, ip netip.Addr) (netip.Addr, bool) { return nat64.Literal(ip) }}}
	last := netip.MustParseAddr("10.0.0.0")
	for range 3 * maxWritten {
		last = last.Next()
		if got := a.meant(nat64.Embed(nat64.WellKnown(), last)); got != last {
			t.Fatalf("got %s, want %s", got, last)
		}
		if n := len(a.written); n == 0 || n > maxWritten {
			t.Fatalf("%d are remembered", n)
		}
	}
}
