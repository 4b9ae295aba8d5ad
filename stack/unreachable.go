package stack

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// reason is why a destination is unreachable, in the codes of ICMP (RFC 792;
// RFC 1812, section 5.2.7.1) and of ICMPv6 (RFC 4443, section 3.1).
type reason struct {
	v4 header.ICMPv4Code
	v6 header.ICMPv6Code
}

// The reasons that a refusal can have.
var (
	portUnreachable = reason{header.ICMPv4PortUnreachable, header.ICMPv6PortUnreachable}
	hostUnreachable = reason{header.ICMPv4HostUnreachable, header.ICMPv6AddressUnreachable}
	netUnreachable  = reason{header.ICMPv4NetUnreachable, header.ICMPv6NetworkUnreachable}
	prohibited      = reason{header.ICMPv4AdminProhibited, header.ICMPv6Prohibited}
)

// reasonOf returns the reason that tells a client of err. It is false when err
// is the destination's own refusal, or nothing that ICMP could tell of.
func reasonOf(err error) (reason, bool) {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return prohibited, true
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return reason{}, false
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN):
		return netUnreachable, true
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN), errors.As(err, &dns),
		errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return hostUnreachable, true
	}
	return reason{}, false
}

// A quote is the start of the packet that an ICMP error is about: all that
// fits into a message of 576 bytes (RFC 1812, section 4.3.2.3) or of the IPv6
// minimum MTU (RFC 4443, section 3.1).
const (
	maxQuoteIPv4 = header.IPv4MinimumProcessableDatagramSize - header.IPv4MinimumSize - header.ICMPv4MinimumSize
	maxQuoteIPv6 = header.IPv6MinimumMTU - header.IPv6MinimumSize - header.ICMPv6DstUnreachableMinimumSize
)

// quote copies the start of a packet that netstack delivers.
func quote(pkt *netstack.PacketBuffer) []byte {
	view := netstack.PayloadSince(pkt.NetworkHeader())
	defer view.Release()
	size := maxQuoteIPv4
	if pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber {
		size = maxQuoteIPv6
	}
	b := view.AsSlice()
	return append([]byte(nil), b[:min(len(b), size)]...)
}

// unreachable tells the client of id why its destination is unreachable, as if
// from there. It is false when it could not: by rate limit or without a route.
func (s *Stack) unreachable(network *netstack.Stack, id netstack.TransportEndpointID, quoted []byte, why reason) bool {
	if !network.AllowICMPMessage() {
		s.counters.icmpSuppressed.Add(1)
		return false
	}
	protocol := header.IPv4ProtocolNumber
	if id.RemoteAddress.Len() == header.IPv6AddressSize {
		protocol = header.IPv6ProtocolNumber
	}
	route, terr := network.FindRoute(nic, id.LocalAddress, id.RemoteAddress, protocol, false)
	if terr != nil {
		return false
	}
	defer route.Release()
	pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()) + header.ICMPv6DstUnreachableMinimumSize,
		Payload:            buffer.MakeWithData(quoted),
	})
	defer pkt.DecRef()
	transport := putUnreachable(pkt, protocol, id, why)
	terr = route.WritePacket(netstack.NetworkHeaderParams{Protocol: transport, TTL: route.DefaultTTL()}, pkt)
	if terr != nil {
		return false
	}
	s.counters.icmpSent.Add(1)
	return true
}

// putUnreachable puts the ICMP header before the quote in pkt.
func putUnreachable(pkt *netstack.PacketBuffer, protocol tcpip.NetworkProtocolNumber, id netstack.TransportEndpointID, why reason) tcpip.TransportProtocolNumber {
	sum := pkt.Data().Checksum()
	if protocol == header.IPv4ProtocolNumber {
		pkt.TransportProtocolNumber = header.ICMPv4ProtocolNumber
		icmp := header.ICMPv4(pkt.TransportHeader().Push(header.ICMPv4MinimumSize))
		icmp.SetType(header.ICMPv4DstUnreachable)
		icmp.SetCode(why.v4)
		icmp.SetChecksum(header.ICMPv4Checksum(icmp, sum))
		return header.ICMPv4ProtocolNumber
	}
	pkt.TransportProtocolNumber = header.ICMPv6ProtocolNumber
	icmp := header.ICMPv6(pkt.TransportHeader().Push(header.ICMPv6DstUnreachableMinimumSize))
	icmp.SetType(header.ICMPv6DstUnreachable)
	icmp.SetCode(why.v6)
	icmp.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header:      icmp,
		Src:         id.LocalAddress,
		Dst:         id.RemoteAddress,
		PayloadCsum: sum,
		PayloadLen:  pkt.Data().Size(),
	}))
	return header.ICMPv6ProtocolNumber
}
