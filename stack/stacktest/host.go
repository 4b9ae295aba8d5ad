package stacktest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"sixgate/stack"
	"sixgate/stack/endpoint"
)

// MTU is that of the wire, in bytes.
const MTU = 1500

const (
	nic tcpip.NICID = 1
	// wireQueue is how many packets the wire holds in the host's direction; more
	// are lost. It is more than any send window.
	wireQueue = 8192
)

// Host is a client host. Its addresses are documentation prefixes' (RFC 5737,
// RFC 3849) and routes for everything lead to the wire.
type Host struct {
	IPv4, IPv6 netip.Addr
	network    *netstack.Stack
}

// New returns a client host and the device at the other end of its wire. Both
// end with the test; a stack on the device must end before.
func New(tb testing.TB) (*Host, stack.Device) {
	tb.Helper()
	h := &Host{
		IPv4: netip.MustParseAddr("192.0.2.2"),
		IPv6: netip.MustParseAddr("2001:db8::2"),
		network: netstack.New(netstack.Options{
			NetworkProtocols:   []netstack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []netstack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		}),
	}
	wire := channel.New(wireQueue, MTU, "")
	d := newDevice(wire)
	tb.Cleanup(func() {
		d.Close()
		h.network.Destroy()
		wire.Close()
	})
	if terr := h.network.CreateNIC(nic, wire); terr != nil {
		tb.Fatalf("stacktest: creating the network interface: %s", terr)
	}
	for _, ip := range []netip.Addr{h.IPv4, h.IPv6} {
		address := tcpip.ProtocolAddress{
			Protocol:          endpoint.Network(ip),
			AddressWithPrefix: endpoint.FullAddress(netip.AddrPortFrom(ip, 0)).Addr.WithPrefix(),
		}
		if terr := h.network.AddProtocolAddress(nic, address, netstack.AddressProperties{}); terr != nil {
			tb.Fatalf("stacktest: adding address %s: %s", ip, terr)
		}
	}
	h.network.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	return h, d
}

// DialTCP connects to to. Errors are errnos where netstack tells them:
// ECONNREFUSED for an RST, EHOSTUNREACH and ENETUNREACH for ICMP messages. The
// connection is an *endpoint.TCP: it has CloseWrite, and SetLinger(0) before
// Close makes it send an RST.
func (h *Host) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var queue waiter.Queue
	ep, terr := h.network.NewEndpoint(tcp.ProtocolNumber, endpoint.Network(to.Addr()), &queue)
	if terr != nil {
		return nil, dialError("tcp", to, endpoint.Errno(terr))
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	terr = ep.Connect(endpoint.FullAddress(to))
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ready:
			terr = ep.LastError()
		case <-ctx.Done():
			ep.Close()
			return nil, dialError("tcp", to, ctx.Err())
		}
	}
	if terr != nil {
		ep.Close()
		return nil, dialError("tcp", to, endpoint.Errno(terr))
	}
	return endpoint.NewTCP(ep, &queue, h.local(ep), to), nil
}

// DialUDP connects a UDP socket to to. An ICMP port unreachable is a read
// error, ECONNREFUSED.
func (h *Host) DialUDP(to netip.AddrPort) (net.Conn, error) {
	var queue waiter.Queue
	ep, terr := h.network.NewEndpoint(udp.ProtocolNumber, endpoint.Network(to.Addr()), &queue)
	if terr != nil {
		return nil, dialError("udp", to, endpoint.Errno(terr))
	}
	if terr := ep.Connect(endpoint.FullAddress(to)); terr != nil {
		ep.Close()
		return nil, dialError("udp", to, endpoint.Errno(terr))
	}
	return endpoint.NewUDP(ep, &queue, h.local(ep), to), nil
}

// local returns the local address of a connected endpoint.
func (h *Host) local(ep tcpip.Endpoint) netip.AddrPort {
	local, _ := ep.GetLocalAddress() // cannot fail once connected
	return endpoint.AddrPort(local.Addr, local.Port)
}

func dialError(network string, to netip.AddrPort, err error) error {
	return fmt.Errorf("dialling %s %s: %w", network, to, err)
}
