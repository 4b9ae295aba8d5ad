package stack

import "sync/atomic"

// Counters is what a Stack has done since it was made.
type Counters struct {
	Received uint64 // packets read from the device
	Sent     uint64 // packets written to the device

	DroppedNotIP   uint64 // received, of no IP version or shorter than their header says
	DroppedEcho    uint64 // received pings: only the real host may answer them
	DeviceErrors   uint64 // reads and writes that the device refused
	ICMPSent       uint64 // destination unreachable messages for refused flows
	ICMPSuppressed uint64 // those not sent, by rate limit (RFC 1812, section 4.3.2.8)

	TCPUnknown   uint64 // SYNs to addresses that stand for nothing: RST
	TCPOverLimit uint64 // SYNs above MaxPending or MaxPendingPerClient: dropped
	TCPRequests  uint64 // SYNs given to the Handler
	TCPAccepted  uint64 // of these, connections that were established
	TCPRefused   uint64 // of these, refused by the Handler
	TCPAbandoned uint64 // of these, given up by the client in the handshake
	TCPCutOff    uint64 // connections closed with bytes not yet taken, above the same: RST

	TCPHandedBack uint64 // of the accepted ones, left to the kernel
	TCPNotTaken   uint64 // requests that the kernel should have taken and did not

	UDPUnknown   uint64 // datagrams to addresses that stand for nothing: port unreachable
	UDPOverLimit uint64 // datagrams above MaxUDPFlows or MaxUDPFlowsPerClient: port unreachable
	UDPFlows     uint64 // flows given to the Handler
	UDPRefused   uint64 // of these, refused by the Handler
}

// counters is Counters while it counts.
type counters struct {
	received, sent                                 atomic.Uint64
	droppedNotIP, droppedEcho                      atomic.Uint64
	deviceErrors, icmpSent, icmpSuppressed         atomic.Uint64
	tcpUnknown, tcpOverLimit, tcpRequests          atomic.Uint64
	tcpAccepted, tcpRefused                        atomic.Uint64
	tcpAbandoned, tcpCutOff                        atomic.Uint64
	tcpHandedBack, tcpNotTaken                     atomic.Uint64
	udpUnknown, udpOverLimit, udpFlows, udpRefused atomic.Uint64
}

func (c *counters) snapshot() Counters {
	return Counters{
		Received:       c.received.Load(),
		Sent:           c.sent.Load(),
		DroppedNotIP:   c.droppedNotIP.Load(),
		DroppedEcho:    c.droppedEcho.Load(),
		DeviceErrors:   c.deviceErrors.Load(),
		ICMPSent:       c.icmpSent.Load(),
		ICMPSuppressed: c.icmpSuppressed.Load(),
		TCPUnknown:     c.tcpUnknown.Load(),
		TCPOverLimit:   c.tcpOverLimit.Load(),
		TCPRequests:    c.tcpRequests.Load(),
		TCPAccepted:    c.tcpAccepted.Load(),
		TCPRefused:     c.tcpRefused.Load(),
		TCPAbandoned:   c.tcpAbandoned.Load(),
		TCPHandedBack:  c.tcpHandedBack.Load(),
		TCPNotTaken:    c.tcpNotTaken.Load(),
		TCPCutOff:      c.tcpCutOff.Load(),
		UDPUnknown:     c.udpUnknown.Load(),
		UDPOverLimit:   c.udpOverLimit.Load(),
		UDPFlows:       c.udpFlows.Load(),
		UDPRefused:     c.udpRefused.Load(),
	}
}
