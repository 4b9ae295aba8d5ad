package stack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// packet is what the link needs to know of an IP packet before netstack sees
// it.
type packet struct {
	bytes     []byte                      // the whole packet
	network   tcpip.NetworkProtocolNumber // IPv4 or IPv6
	transport tcpip.TransportProtocolNumber
	payload   []byte // from the transport header on; nil in later fragments
	mended    bool   // put together from fragments
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

// ends returns where p comes from and goes to.
func (p packet) ends() ends {
	if p.network == header.IPv4ProtocolNumber {
		return ends{netip.AddrFrom4([4]byte(p.bytes[12:])), netip.AddrFrom4([4]byte(p.bytes[16:]))}
	}
	return ends{netip.AddrFrom16([16]byte(p.bytes[8:])), netip.AddrFrom16([16]byte(p.bytes[24:]))}
}

// datagrams returns what the IP header of p tells of its payload. Who sends
// fragments does not forbid them; and an IPv6 packet that every link takes has
// never been forbidden to be two of IPv4, whose links may take less (RFC 7915,
// section 5.1).
func (p packet) datagrams(payload []byte) Datagrams {
	if p.network == header.IPv4ProtocolNumber {
		return Datagrams{Payload: payload, TOS: p.bytes[1], TTL: p.bytes[8], Whole: !p.mended && p.bytes[6]&0x40 != 0}
	}
	tos, _ := header.IPv6(p.bytes).TOS()
	return Datagrams{Payload: payload, TOS: tos, TTL: p.bytes[7], Whole: !p.mended && len(p.bytes) > header.IPv6MinimumMTU}
}

// readUDP returns what is in p, and the flow it is of. It is false for what is
// malformed.
func (p packet) readUDP(verified bool) (flowKey, Datagrams, bool) {
	if len(p.payload) < udpHeader {
		return flowKey{}, Datagrams{}, false
	}
	udp, e := header.UDP(p.payload), p.ends()
	length := int(udp.Length())
	if length < udpHeader || length > len(p.payload) || !isHost(e.from) || !isHost(e.to) {
		return flowKey{}, Datagrams{}, false
	}
	udp = udp[:length]
	missing := udp.Checksum() == 0 && p.network == header.IPv4ProtocolNumber
	if !verified && !missing && (udp.Checksum() == 0 || checksum.Checksum(udp, e.pseudo(p.transport, length)) != 0xffff) {
		return flowKey{}, Datagrams{}, false
	}
	return flowKey{
		protocol: p.transport,
		client:   netip.AddrPortFrom(e.from, udp.SourcePort()),
		dest:     netip.AddrPortFrom(e.to, udp.DestinationPort()),
	}, p.datagrams(udp[udpHeader:]), true
}

// readEcho is readUDP for an echo request.
func (p packet) readEcho(verified bool) (flowKey, Datagrams, bool) {
	e := p.ends()
	if len(p.payload) < icmpHeader || p.payload[1] != 0 || !isHost(e.from) || !isHost(e.to) ||
		(p.transport == header.ICMPv4ProtocolNumber) != e.from.Is4() {
		return flowKey{}, Datagrams{}, false
	}
	sum := uint16(0)
	if !e.from.Is4() {
		sum = e.pseudo(p.transport, len(p.payload))
	}
	if !verified && checksum.Checksum(p.payload, sum) != 0xffff {
		return flowKey{}, Datagrams{}, false
	}
	return flowKey{
		protocol: p.transport,
		client:   netip.AddrPortFrom(e.from, binary.BigEndian.Uint16(p.payload[4:])),
		dest:     netip.AddrPortFrom(e.to, 0),
	}, p.datagrams(p.payload[echoHeader:]), true
}

// isHost reports whether ip can be that of one host, which may be told of what
// became of its packets (RFC 1122, section 3.2.2).
func isHost(ip netip.Addr) bool {
	return !ip.IsMulticast() && !ip.IsUnspecified() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
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
