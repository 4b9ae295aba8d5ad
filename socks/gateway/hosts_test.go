package gateway

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"sixgate/socks"
	"sixgate/socks/outlet"
)

// loopbacks is a resolver that knows two addresses of any name, and changes
// their order.
type loopbacks struct{ asked atomic.Int32 }

func (l *loopbacks) LookupNetIP(_ context.Context, network, _ string) ([]netip.Addr, error) {
	ips := []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
	if network == "ip6" {
		return nil, nil
	}
	if l.asked.Add(1)%2 == 0 {
		ips[0], ips[1] = ips[1], ips[0]
	}
	return ips, nil
}

// TestFlowsMeetTheSameHost has a client open flows of both protocols to a name
// whose addresses change their order with every look-up.
func TestFlowsMeetTheSameHost(t *testing.T) {
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	port := socks.AddrPortOf(ln.Addr()).Port()
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				io.Copy(io.Discard, conn) // until the gateway closes it
				conn.Close()
			})
		}
	})
	defer conns.Wait()
	defer ln.Close()
	g := newGateway(t, Config{}, Policy{Outlets: map[string]outlet.Outlet{
		"": outlet.NewDirect(outlet.DirectConfig{Resolver: &loopbacks{}, Ports: outlet.NewPorts(outlet.PortsConfig{})}),
	}})
	// reach returns where a further flow of client goes.
	reach := func(network, client string) netip.Addr {
		t.Helper()
		f := &flow{policy: g.Policy(), Session: Session{Network: network, Client: netip.MustParseAddrPort(client)}}
		f.goes.dest = socks.Addr{Name: "x.test", Port: port}
		far, err := g.dial(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		far.Close()
		return socks.AddrPortOf(far.RemoteAddr()).Addr()
	}
	// open returns where a first flow of client goes, and what ends it.
	open := func(client string) (far netip.Addr, end func()) {
		t.Helper()
		s := Session{Network: "tcp", Client: netip.MustParseAddrPort(client), Dest: socks.Addr{Name: "x.test", Port: port}}
		p, ended := newPending(), make(chan struct{})
		go func() {
			defer close(ended)
			g.Serve(t.Context(), s, p)
		}()
		<-p.given
		if p.refused != nil {
			t.Fatal(p.refused)
		}
		return g.hosts.of(s.Client.Addr(), "x.test"), func() {
			p.client.Close()
			<-ended
		}
	}
	const one, two = "192.0.2.1:1", "192.0.2.2:1"
	first, endFirst := open(one)
	other, endOther := open(two)
	for i := range 3 {
		for _, network := range []string{"tcp", "udp"} {
			if far := reach(network, one); far != first {
				t.Errorf("%d: %s goes to %s, the first flow to %s", i, network, far, first)
			}
			if far := reach(network, two); far != other {
				t.Errorf("%d: another client's %s goes to %s, its first flow to %s", i, network, far, other)
			}
		}
	}
	endFirst()
	if g.hosts.of(netip.MustParseAddr("192.0.2.1"), "x.test").IsValid() {
		t.Error("an address is known without flows")
	}
	endOther()
	if len(g.hosts.known) != 0 {
		t.Errorf("still known: %v", g.hosts.known)
	}
}

// TestHostsChange has an address fail, or leave its name.
func TestHostsChange(t *testing.T) {
	client, name := netip.MustParseAddr("192.0.2.1"), "x.test"
	old, now := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	h := newHosts()
	endOld := h.hold(client, name, old)
	endNow := h.hold(client, name, now)
	if got := h.of(client, name); got != now {
		t.Errorf("further flows go to %s, not to where the last one got", got)
	}
	endNow()
	if got := h.of(client, name); got != now {
		t.Errorf("further flows go to %s, which was left", got)
	}
	endOld()
	if len(h.known) != 0 {
		t.Errorf("still known: %v", h.known)
	}
}
