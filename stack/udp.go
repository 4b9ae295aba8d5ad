package stack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"sixgate/stack/endpoint"
)

// udpSide turns first datagrams into flows.
type udpSide struct {
	*Stack
	ctx     context.Context // of the flows
	network *netstack.Stack

	mu    sync.Mutex // guards quota
	quota quota
}

func newUDPSide(ctx context.Context, s *Stack, network *netstack.Stack) *udpSide {
	return &udpSide{
		Stack:   s,
		ctx:     ctx,
		network: network,
		quota:   newQuota(s.config.MaxUDPFlows, s.config.MaxUDPFlowsPerClient),
	}
}

// handle takes a datagram that belongs to no flow. Where it is false, netstack
// answers with an ICMP port unreachable.
func (u *udpSide) handle(id netstack.TransportEndpointID, pkt *netstack.PacketBuffer) bool {
	if !isIntact(pkt) {
		return false // netstack finds the same, and stays silent
	}
	f := &UDPFlow{side: u, id: id, quote: quote(pkt)}
	if !u.config.Handler.Admit("udp", f.Client(), f.Dest()) {
		u.counters.udpUnknown.Add(1)
		return false
	}
	if !u.hold(f) {
		u.counters.udpOverLimit.Add(1)
		return false
	}
	if !u.flows.begin() {
		u.release(f)
		return false
	}
	// Here and not in the goroutine: the next datagram must find the endpoint.
	var queue waiter.Queue
	ep, terr := udp.NewForwarderRequest(u.network, id, pkt).CreateEndpoint(&queue)
	if terr != nil {
		u.flows.end()
		u.release(f)
		return false
	}
	f.conn = endpoint.NewUDP(ep, &queue, f.Dest(), f.Client())
	u.counters.udpFlows.Add(1)
	go u.serve(f)
	return true
}

// isIntact reports whether the length and the checksum of a datagram are
// right.
func isIntact(pkt *netstack.PacketBuffer) bool {
	ip := pkt.Network()
	length, checksum := header.UDPValid(
		header.UDP(pkt.TransportHeader().Slice()),
		func() uint16 { return pkt.Data().Checksum() },
		uint16(pkt.Data().Size()),
		pkt.NetworkProtocolNumber,
		ip.SourceAddress(),
		ip.DestinationAddress(),
		pkt.RXChecksumValidated,
	)
	return length && checksum
}

func (u *udpSide) hold(f *UDPFlow) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.quota.take(f.Client().Addr())
}

func (u *udpSide) release(f *UDPFlow) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.quota.give(f.Client().Addr())
}

// serve runs the handler for f.
func (u *udpSide) serve(f *UDPFlow) {
	defer u.flows.end()
	defer u.release(f)
	defer f.conn.Close()
	u.config.Handler.ServeUDP(u.ctx, f)
	if !f.accepted.Load() {
		f.Refuse(syscall.ECONNREFUSED)
	}
}

// UDPFlow is the datagrams from one client socket to one destination.
type UDPFlow struct {
	side     *udpSide
	id       netstack.TransportEndpointID
	quote    []byte // of the first datagram
	conn     *endpoint.UDP
	accepted atomic.Bool
	refused  atomic.Bool
}

// Client returns where the datagrams come from.
func (f *UDPFlow) Client() netip.AddrPort {
	return endpoint.AddrPort(f.id.RemoteAddress, f.id.RemotePort)
}

// Dest returns where the datagrams go to.
func (f *UDPFlow) Dest() netip.AddrPort {
	return endpoint.AddrPort(f.id.LocalAddress, f.id.LocalPort)
}

// Accept returns the flow's socket, which reads and writes one datagram a
// call, the first one included. What it writes comes from Dest: a client of a
// fake address never learns bound, the address that speaks for it.
func (f *UDPFlow) Accept(bound netip.AddrPort) (net.Conn, error) {
	if f.refused.Load() || f.accepted.Swap(true) {
		return nil, fmt.Errorf("accepting %s for %s: %w", f.Client(), f.Dest(), errAnswered)
	}
	return f.conn, nil
}

// Refuse ends the flow and answers with the ICMP message that means the same
// as err, port unreachable if there is none. It may follow Accept, since UDP
// destinations refuse late.
func (f *UDPFlow) Refuse(err error) {
	if f.refused.Swap(true) {
		return
	}
	why, ok := reasonOf(err)
	if !ok {
		why = portUnreachable
	}
	f.side.unreachable(f.side.network, f.id, f.quote, why)
	f.conn.Close()
	f.side.counters.udpRefused.Add(1)
}
