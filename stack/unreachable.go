package stack

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// reason is why a packet does not arrive, in the types and codes of ICMP (RFC
// 792; RFC 1812, section 5.2.7) and of ICMPv6 (RFC 4443, section 3).
type reason struct {
	type4 header.ICMPv4Type
	code4 header.ICMPv4Code
	type6 header.ICMPv6Type
	code6 header.ICMPv6Code
	room  int // bytes of payload that would fit, where the packet is too big
}

// The reasons that a refusal can have.
var (
	portUnreachable = unreachable(header.ICMPv4PortUnreachable, header.ICMPv6PortUnreachable)
	hostUnreachable = unreachable(header.ICMPv4HostUnreachable, header.ICMPv6AddressUnreachable)
	netUnreachable  = unreachable(header.ICMPv4NetUnreachable, header.ICMPv6NetworkUnreachable)
	prohibited      = unreachable(header.ICMPv4AdminProhibited, header.ICMPv6Prohibited)
	tooManyHops     = reason{type4: header.ICMPv4TimeExceeded, type6: header.ICMPv6TimeExceeded}
)

func unreachable(v4 header.ICMPv4Code, v6 header.ICMPv6Code) reason {
	return reason{type4: header.ICMPv4DstUnreachable, code4: v4, type6: header.ICMPv6DstUnreachable, code6: v6}
}

func tooBig(room int) reason {
	return reason{
		type4: header.ICMPv4DstUnreachable, code4: header.ICMPv4FragmentationNeeded,
		type6: header.ICMPv6PacketTooBig, room: room,
	}
}

// pathError is what an error may tell of a datagram beside its errno: what an
// ICMP message of the far side said.
type pathError interface {
	error
	// Offender is the address of who said it, invalid if that is us.
	Offender() netip.Addr
	// HopLimitExceeded reports whether the datagram had gone too many hops.
	HopLimitExceeded() bool
	// Room is how many bytes of payload fit, of a datagram that was too big,
	// or 0.
	Room() int
	// Quoted is the start of the payload.
	Quoted() []byte
}

// reasonOf returns the reason that tells a client of err. It is false when err
// is the destination's own refusal, or nothing that ICMP could tell of.
func reasonOf(err error) (reason, bool) {
	var dns *net.DNSError
	var path pathError
	switch {
	case errors.As(err, &path) && path.HopLimitExceeded():
		return tooManyHops, true
	case path != nil && path.Room() > 0:
		return tooBig(path.Room()), true
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

// sixFour is the prefix by which IPv6 writes IPv4 addresses (RFC 6052, section
// 2.1).
var sixFour = netip.MustParsePrefix("64:ff9b::/96").Addr().As16()

// offender returns the address by which a client hears of the router that told
// err, in the client's family: as NAT64 writes it, or, as IPv4 cannot write an
// IPv6 address, one address of ours for all of them (RFC 6791, section 4). It
// is invalid where the destination or nobody told err.
func offender(err error, client, ours netip.Addr) netip.Addr {
	var path pathError
	if !errors.As(err, &path) {
		return netip.Addr{}
	}
	switch hop := path.Offender(); {
	case !hop.IsValid() || hop.Is4() == client.Is4():
		return hop
	case hop.Is4():
		ip, v4 := sixFour, hop.As4()
		copy(ip[12:], v4[:])
		return netip.AddrFrom16(ip)
	}
	return ours
}

// A quote is the start of the packet that an ICMP error is about: all that
// fits into a message of 576 bytes (RFC 1812, section 4.3.2.3) or of the IPv6
// minimum MTU (RFC 4443, section 3.1).
const (
	maxQuoteIPv4 = header.IPv4MinimumProcessableDatagramSize - header.IPv4MinimumSize - icmpHeader
	maxQuoteIPv6 = header.IPv6MinimumMTU - header.IPv6MinimumSize - icmpHeader
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

// A client gets maxTold messages in each tellingTime, a fifth of what all
// clients do: who provokes more silences nobody else.
const (
	maxTold     = 10
	tellingTime = 50 * time.Millisecond
)

// teller tells clients by ICMP what became of their packets.
type teller struct {
	link     *link
	network  *netstack.Stack // which limits the rate of all
	counters *counters

	mu    sync.Mutex         // guards what follows
	since time.Time          // when told began to count
	told  map[netip.Addr]int // messages, by client
}

// mayTell counts a message to a client, and reports whether it may be sent
// (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4).
func (t *teller) mayTell(client netip.Addr, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.since) >= tellingTime {
		t.since, t.told = now, make(map[netip.Addr]int)
	}
	if t.told[client] >= maxTold || !t.network.AllowICMPMessage() {
		return false
	}
	t.told[client]++
	return true
}

// tell tells the client to of a packet that began with quoted, as if from the
// address from, which is of the same family. It is false when it could not, by
// rate limit for one.
func (t *teller) tell(from, to netip.Addr, why reason, quoted []byte) bool {
	if !t.mayTell(to, time.Now()) {
		t.counters.icmpSuppressed.Add(1)
		return false
	}
	e := ends{from, to}
	var room [header.IPv6MinimumSize + icmpHeader]byte
	head := room[:e.ipSize()+icmpHeader]
	icmp := head[e.ipSize():]
	protocol, sum := header.ICMPv4ProtocolNumber, uint16(0)
	if from.Is4() {
		quoted = quoted[:min(len(quoted), maxQuoteIPv4)]
		icmp[0], icmp[1] = byte(why.type4), byte(why.code4)
	} else {
		quoted = quoted[:min(len(quoted), maxQuoteIPv6)]
		icmp[0], icmp[1] = byte(why.type6), byte(why.code6)
		protocol = header.ICMPv6ProtocolNumber
		sum = e.pseudo(protocol, icmpHeader+len(quoted))
	}
	if why.room > 0 { // the MTU: RFC 1191, section 4; RFC 4443, section 3.2
		binary.BigEndian.PutUint32(icmp[4:], uint32(min(why.room+udpHeader+e.ipSize(), 65535)))
	}
	binary.BigEndian.PutUint16(icmp[2:], ^checksum.Checksum(quoted, checksum.Checksum(icmp, sum)))
	e.putIP(head, len(head)+len(quoted), protocol, 0, 0, defaultTTL)
	if t.link.write(head, quoted, offload{}) != nil {
		return false
	}
	t.counters.icmpSent.Add(1)
	return true
}
