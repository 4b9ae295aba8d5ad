package stack

import "sync/atomic"

// Counters is what a Stack has done since it was made.
type Counters struct {
	Received uint64 // packets read from the device
	Sent     uint64 // packets written to the device

	DroppedNotIP     uint64 // received, of no IP version or shorter than their header says
	DroppedMalformed uint64 // received datagrams and pings with a wrong length, checksum or source
	DroppedFragments uint64 // received fragments that never became a packet
	DeviceErrors     uint64 // reads and writes that the device refused
	ICMPSent         uint64 // messages that tell clients what became of their packets
	ICMPSuppressed   uint64 // those not sent, by rate limit (RFC 1812, section 4.3.2.8)

	TCPUnknown   uint64 // SYNs to addresses that stand for nothing: RST
	TCPOverLimit uint64 // SYNs above MaxPending or MaxPendingPerClient: dropped
	TCPRequests  uint64 // SYNs given to the Handler
	TCPAccepted  uint64 // of these, connections that were established
	TCPRefused   uint64 // of these, refused by the Handler
	TCPAbandoned uint64 // of these, given up by the client in the handshake
	TCPCutOff    uint64 // connections closed with bytes not yet taken, above the same: RST

	TCPHandedBack uint64 // of the accepted ones, left to the kernel
	TCPNotTaken   uint64 // requests that the kernel should have taken and did not

	DatagramUnknown   uint64 // datagrams and pings to addresses that stand for nothing: unreachable
	DatagramOverLimit uint64 // those above MaxDatagramFlows or MaxDatagramFlowsPerClient: unreachable; or too many at once: dropped
	DatagramFlows     uint64 // flows given to the Handler
	DatagramEvicted   uint64 // of these, unanswered ones that made room for others
	DatagramRefused   uint64 // of these, refused by the Handler
}

// counters is Counters while it counts.
type counters struct {
	received, sent                                   atomic.Uint64
	droppedNotIP, droppedMalformed, droppedFragments atomic.Uint64
	deviceErrors, icmpSent, icmpSuppressed           atomic.Uint64
	tcpUnknown, tcpOverLimit, tcpRequests            atomic.Uint64
	tcpAccepted, tcpRefused, tcpAbandoned            atomic.Uint64
	tcpHandedBack, tcpNotTaken, tcpCutOff            atomic.Uint64
	datagramUnknown, datagramOverLimit               atomic.Uint64
	datagramFlows, datagramEvicted, datagramRefused  atomic.Uint64
}

func (c *counters) snapshot() Counters {
	return Counters{
		Received:          c.received.Load(),
		Sent:              c.sent.Load(),
		DroppedNotIP:      c.droppedNotIP.Load(),
		DroppedMalformed:  c.droppedMalformed.Load(),
		DroppedFragments:  c.droppedFragments.Load(),
		DeviceErrors:      c.deviceErrors.Load(),
		ICMPSent:          c.icmpSent.Load(),
		ICMPSuppressed:    c.icmpSuppressed.Load(),
		TCPUnknown:        c.tcpUnknown.Load(),
		TCPOverLimit:      c.tcpOverLimit.Load(),
		TCPRequests:       c.tcpRequests.Load(),
		TCPAccepted:       c.tcpAccepted.Load(),
		TCPRefused:        c.tcpRefused.Load(),
		TCPAbandoned:      c.tcpAbandoned.Load(),
		TCPHandedBack:     c.tcpHandedBack.Load(),
		TCPNotTaken:       c.tcpNotTaken.Load(),
		TCPCutOff:         c.tcpCutOff.Load(),
		DatagramUnknown:   c.datagramUnknown.Load(),
		DatagramOverLimit: c.datagramOverLimit.Load(),
		DatagramFlows:     c.datagramFlows.Load(),
		DatagramEvicted:   c.datagramEvicted.Load(),
		DatagramRefused:   c.datagramRefused.Load(),
	}
}
