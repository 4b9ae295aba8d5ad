package stack

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// defaultTTL is the hop limit of what we say ourselves (RFC 1700).
const defaultTTL = 64

const (
	udpHeader   = header.UDPMinimumSize
	udpChecksum = 6 // where the checksum is
	icmpHeader  = 8 // of an echo or an error, either family
	// echoHeader is what comes before the payload of a flow of pings: type,
	// code, checksum and identifier.
	echoHeader = icmpHeader - 2
	// fragmentHeader is the extension header of RFC 8200, section 4.5.
	fragmentHeader = 8
)

// ends are where a packet comes from and goes to.
type ends struct{ from, to netip.Addr }

func (e ends) ipSize() int {
	if e.from.Is4() {
		return header.IPv4MinimumSize
	}
	return header.IPv6MinimumSize
}

// maxPacket is the longest packet, in bytes: the length that IPv6 tells is
// without its own header.
func (e ends) maxPacket() int {
	if e.from.Is4() {
		return 65535
	}
	return header.IPv6MinimumSize + 65535
}

// putIP writes the IP header of a packet of this many bytes in all to b. No
// packet forbids to be fragmented: what lies between us and the client is none
// of the destination's concern, and nobody would hear of it.
func (e ends) putIP(b []byte, total int, protocol tcpip.TransportProtocolNumber, id uint16, tos, ttl uint8) {
	from, to := tcpip.AddrFromSlice(e.from.AsSlice()), tcpip.AddrFromSlice(e.to.AsSlice())
	if e.from.Is4() {
		ip := header.IPv4(b)
		ip.Encode(&header.IPv4Fields{
			TOS: tos, TotalLength: uint16(total), ID: id, TTL: ttl, Protocol: uint8(protocol), SrcAddr: from, DstAddr: to,
		})
		ip.SetChecksum(^ip.CalculateChecksum())
		return
	}
	header.IPv6(b).Encode(&header.IPv6Fields{
		TrafficClass: tos, PayloadLength: uint16(total - header.IPv6MinimumSize), TransportProtocol: protocol,
		HopLimit: ttl, SrcAddr: from, DstAddr: to,
	})
}

// pseudo is the sum of the pseudo header (RFC 768; RFC 8200, section 8.1).
func (e ends) pseudo(protocol tcpip.TransportProtocolNumber, size int) uint16 {
	return header.PseudoHeaderChecksum(protocol,
		tcpip.AddrFromSlice(e.from.AsSlice()), tcpip.AddrFromSlice(e.to.AsSlice()), uint16(size))
}

// send sends d to the client.
func (f *DatagramFlow) send(d Datagrams) error {
	e := ends{f.key.dest.Addr(), f.key.client.Addr()}
	room := f.side.config.MTU - e.ipSize() - udpHeader
	if d.Size > 0 && d.Size <= room && f.side.link.mergesUDP() && e.ipSize()+udpHeader+len(d.Payload) <= 65535 {
		return f.sendMerged(e, d)
	}
	var failed error
	each(d.Payload, d.Size, func(b []byte) {
		one := d
		one.Payload = b
		if err := f.sendOne(e, one); err != nil {
			failed = err
		}
	})
	return failed
}

// sendMerged leaves it to the kernel to cut d into datagrams, or to the next
// hop's network card.
func (f *DatagramFlow) sendMerged(e ends, d Datagrams) error {
	var room [header.IPv6MinimumSize + udpHeader]byte
	head := room[:e.ipSize()+udpHeader]
	size := udpHeader + len(d.Payload)
	e.putIP(head, e.ipSize()+size, header.UDPProtocolNumber, uint16(f.side.next.Add(maxBatch)), d.TOS, d.TTL)
	udp := header.UDP(head[e.ipSize():])
	udp.Encode(&header.UDPFields{SrcPort: f.answerPort(d), DstPort: f.key.client.Port(), Length: uint16(size)})
	udp.SetChecksum(e.pseudo(header.UDPProtocolNumber, size))
	return f.side.link.write(head, d.Payload, offload{start: e.ipSize(), at: udpChecksum, size: d.Size})
}

// answerPort returns the port that d comes from.
func (f *DatagramFlow) answerPort(d Datagrams) uint16 { return cmp.Or(d.Port, f.key.dest.Port()) }

// offload is what of a packet is left to the kernel.
type offload struct {
	start, at int // where the checksum of the rest begins, and where in that it goes, in bytes; 0: it is there
	size      int // of the payload of each packet to make of it, in bytes; 0: it is one
}

// sendOne sends d, which is one, in fragments if need be.
func (f *DatagramFlow) sendOne(e ends, d Datagrams) error {
	var room [header.IPv6MinimumSize + udpHeader]byte
	head := room[:e.ipSize()+f.headerSize()]
	total := len(head) + len(d.Payload)
	if total > e.maxPacket() {
		return syscall.EMSGSIZE
	}
	f.putHeader(head[e.ipSize():], e, f.answerPort(d), f.key.client.Port(), d.Payload)
	id := f.side.next.Add(1)
	if total > f.side.config.MTU {
		return f.sendFragments(e, append(head[e.ipSize():len(head):len(head)], d.Payload...), id, d)
	}
	e.putIP(head, total, f.key.protocol, uint16(id), d.TOS, d.TTL)
	return f.side.link.write(head, d.Payload, offload{})
}

func (f *DatagramFlow) headerSize() int {
	if f.key.protocol == header.UDPProtocolNumber {
		return udpHeader
	}
	return echoHeader
}

// putHeader writes the header before a payload to b, that of a ping without
// regard to the ports: of an answer if e leads to the client, and else of what
// the client has sent.
func (f *DatagramFlow) putHeader(b []byte, e ends, from, to uint16, payload []byte) {
	answer := e.to == f.key.client.Addr()
	size := len(b) + len(payload)
	switch f.key.protocol {
	case header.UDPProtocolNumber:
		udp := header.UDP(b)
		udp.Encode(&header.UDPFields{SrcPort: from, DstPort: to, Length: uint16(size)})
		sum := ^udp.CalculateChecksum(checksum.Combine(e.pseudo(header.UDPProtocolNumber, size), checksum.Checksum(payload, 0)))
		if sum == 0 { // which would mean that there is none
			sum = 0xffff
		}
		udp.SetChecksum(sum)
	case header.ICMPv4ProtocolNumber:
		clear(b)
		if b[0] = byte(header.ICMPv4EchoReply); !answer {
			b[0] = byte(header.ICMPv4Echo)
		}
		binary.BigEndian.PutUint16(b[4:], f.key.client.Port())
		binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(payload, checksum.Checksum(b, 0)))
	default:
		clear(b)
		if b[0] = byte(header.ICMPv6EchoReply); !answer {
			b[0] = byte(header.ICMPv6EchoRequest)
		}
		binary.BigEndian.PutUint16(b[4:], f.key.client.Port())
		binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(payload, checksum.Checksum(b, e.pseudo(header.ICMPv6ProtocolNumber, size))))
	}
}

// quote makes up the start of the packet that brought a payload, of which only
// the start may be known.
func (f *DatagramFlow) quote(payload []byte) []byte {
	e := ends{f.key.client.Addr(), f.key.dest.Addr()}
	if f.key.protocol != header.UDPProtocolNumber && len(payload) < 2 {
		payload = make([]byte, 2) // the sequence number
	}
	start := e.ipSize() + f.headerSize()
	b := make([]byte, start+len(payload))
	copy(b[start:], payload)
	f.putHeader(b[e.ipSize():start], e, f.key.client.Port(), f.key.dest.Port(), payload)
	e.putIP(b, len(b), f.key.protocol, 0, 0, 1)
	return b
}

// sendFragments sends a packet without its IP header in parts that fit the
// device.
func (f *DatagramFlow) sendFragments(e ends, b []byte, id uint32, d Datagrams) error {
	var room [header.IPv6MinimumSize + fragmentHeader]byte
	head := room[:e.ipSize()]
	if !e.from.Is4() {
		head = room[:]
	}
	most := (f.side.config.MTU - len(head)) &^ 7
	for offset := 0; offset < len(b); offset += most {
		part := b[offset:min(len(b), offset+most)]
		more := offset+len(part) < len(b)
		f.putFragment(head, e, len(part), offset, more, id, d)
		if err := f.side.link.write(head, part, offload{}); err != nil {
			return err
		}
	}
	return nil
}

func (f *DatagramFlow) putFragment(head []byte, e ends, size, offset int, more bool, id uint32, d Datagrams) {
	if e.from.Is4() {
		e.putIP(head, len(head)+size, f.key.protocol, uint16(id), d.TOS, d.TTL)
		ip := header.IPv4(head)
		flags := uint8(0)
		if more {
			flags = header.IPv4FlagMoreFragments
		}
		ip.SetFlagsFragmentOffset(flags, uint16(offset))
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
		return
	}
	e.putIP(head, len(head)+size, tcpip.TransportProtocolNumber(header.IPv6FragmentHeader), uint16(id), d.TOS, d.TTL)
	b := head[header.IPv6MinimumSize:]
	b[0], b[1] = byte(f.key.protocol), 0
	at := uint16(offset)
	if more {
		at |= 1
	}
	binary.BigEndian.PutUint16(b[2:], at)
	binary.BigEndian.PutUint32(b[4:], id)
}
