package appliance

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixgate/appliance/config"
	"sixgate/socks"
	"sixgate/socks/datagram"
	"sixgate/socks/outlet"
)

// TestLeaks sends the SOCKS server fake addresses, its own and others', where
// all goes to a further server, which is not to see them. They are counted, and
// told of once.
func TestLeaks(t *testing.T) {
	w := newWorld(t)
	b := newBox(t, w, func(c *config.Config) {
		c.Outlets = []config.Outlet{{Name: "far", Type: config.OutletSOCKS5, Server: socks.AddrFromAddrPort(netip.AddrPortFrom(far4, 1))}}
		c.Rules = []config.Rule{{Networks: []netip.Prefix{netip.PrefixFrom(far4, 32)}}, {Outlet: "far"}}
	})
	var log bytes.Buffer
	b.parts.inlet.logger = slog.New(slog.NewTextHandler(&log, nil))
	via := outlet.NewVia(outlet.NewDirect(outlet.DirectConfig{}), socks.Client{Server: b.socks6}, nil)
	leaks := []socks.Addr{
		{IP: netip.MustParseAddr("198.18.77.1"), Port: 80}, {IP: netip.MustParseAddr("2001:2::5"), Port: 80},
		{IP: netip.MustParseAddr("0.0.0.1"), Port: 80}, {Name: "0.255.0.1", Port: 80},
	}
	for _, dest := range leaks {
		if _, err := via.Dial(t.Context(), "tcp", dest); !errors.Is(err, syscall.EACCES) {
			t.Errorf("%s: %v", dest, err)
		}
	}
	packets, err := via.ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	answers := make(chan socks.Addr, 10)
	packets.Forward(func(_ datagram.Batch, from socks.Addr) { answers <- from })
	for _, dest := range []socks.Addr{leaks[0], leaks[2], {IP: far4, Port: w.port}} {
		if err := packets.Send(datagram.Batch{Payload: []byte("hello"), TTL: datagram.DefaultTTL}, dest); err != nil {
			t.Fatal(err)
		}
	}
	select { // what went before it has been seen
	case <-answers:
	case <-time.After(time.Minute):
		t.Fatal("no answer")
	}
	drops := (&Appliance{parts: b.parts}).Status().Drops
	if got, want := drops["socks_leaked"], uint64(len(leaks)+2); got != want {
		t.Errorf("%d are counted, want %d", got, want)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "dest=198.18.77.1:80") {
		t.Errorf("logged %q", got)
	}
}
