package stack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// packet is what the link needs to know of an IP packet before netstack sees
// it.
type packet struct {
	bytes     []byte                      // the whole packet
	network   tcpip.NetworkProtocolNumber // IPv4 or IPv6
	transport tcpip.TransportProtocolNumber
	payload   []byte // from the transport header on; nil in later fragments
}

// parsePacket returns what b holds. It is false for what is no IP packet, and
// for one that ends before the length in its header.
func parsePacket(b []byte) (packet, bool) {
	switch header.IPVersion(b) {
	case header.IPv4Version:
		return parseIPv4(b)
	case header.IPv6Version:
		return parseIPv6(b)
	}
	return packet{}, false
}

func parseIPv4(b []byte) (packet, bool) {
	if len(b) < header.IPv4MinimumSize {
		return packet{}, false
	}
	ip := header.IPv4(b)
	size, total := int(ip.HeaderLength()), int(ip.TotalLength())
	if size < header.IPv4MinimumSize || total < size || total > len(b) {
		return packet{}, false
	}
	p := packet{bytes: b, network: header.IPv4ProtocolNumber, transport: ip.TransportProtocol()}
	if ip.FragmentOffset() == 0 {
		p.payload = b[size:total]
	}
	return p, true
}

func parseIPv6(b []byte) (packet, bool) {
	if len(b) < header.IPv6MinimumSize {
		return packet{}, false
	}
	ip := header.IPv6(b)
	total := header.IPv6MinimumSize + int(ip.PayloadLength())
	if total > len(b) {
		return packet{}, false
	}
	p := packet{bytes: b, network: header.IPv6ProtocolNumber}
	p.transport, p.payload = skipExtensions(ip.NextHeader(), b[header.IPv6MinimumSize:total])
	return p, true
}

// skipExtensions returns the transport protocol that follows the extension
// headers at the start of b, and its bytes (RFC 8200, section 4). The bytes
// are nil when b ends before, or is a later fragment.
func skipExtensions(next uint8, b []byte) (tcpip.TransportProtocolNumber, []byte) {
	for {
		size := 8
		switch header.IPv6ExtensionHeaderIdentifier(next) {
		case header.IPv6HopByHopOptionsExtHdrIdentifier,
			header.IPv6RoutingExtHdrIdentifier,
			header.IPv6DestinationOptionsExtHdrIdentifier:
			if len(b) >= 2 {
				size += 8 * int(b[1])
			}
		case header.IPv6FragmentExtHdrIdentifier:
			if len(b) >= 4 && binary.BigEndian.Uint16(b[2:])>>3 != 0 {
				return tcpip.TransportProtocolNumber(b[0]), nil
			}
		default:
			return tcpip.TransportProtocolNumber(next), b
		}
		if len(b) < size {
			return tcpip.TransportProtocolNumber(next), nil
		}
		next, b = b[0], b[size:]
	}
}

// isEchoRequest reports whether p is a ping of either family.
func (p packet) isEchoRequest() bool {
	if len(p.payload) == 0 {
		return false
	}
	switch p.transport {
	case header.ICMPv4ProtocolNumber:
		return header.ICMPv4Type(p.payload[0]) == header.ICMPv4Echo
	case header.ICMPv6ProtocolNumber:
		return header.ICMPv6Type(p.payload[0]) == header.ICMPv6EchoRequest
	}
	return false
}

// isSYN reports whether p asks for a TCP connection.
func (p packet) isSYN() bool {
	return p.transport == header.TCPProtocolNumber && len(p.payload) >= header.TCPMinimumSize &&
		isSYN(header.TCP(p.payload).Flags())
}

// isSYN reports whether a segment with these flags asks for a connection.
func isSYN(flags header.TCPFlags) bool {
	const decisive = header.TCPFlagSyn | header.TCPFlagAck | header.TCPFlagRst | header.TCPFlagFin
	return flags&decisive == header.TCPFlagSyn
}
