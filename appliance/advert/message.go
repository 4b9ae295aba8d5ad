package advert

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// Message is a router advertisement (RFC 4861, section 4.2). What it has no
// field for is sent as unspecified, and not heeded.
type Message struct {
	Managed, Other bool             // DHCPv6 has addresses, or other things, for hosts
	Lifetime       time.Duration    // as a default router, at most 65535 s; 0: it is none
	LinkAddress    net.HardwareAddr // of the router's interface; may be nil
	Options        []Option
}

// Option is something that hosts are told of for a time.
type Option struct {
	Kind     Kind
	Prefix   netip.Prefix  // masked; of a Resolver its address with all 128 bits
	Lifetime time.Duration // in whole seconds, at most Forever; 0: it is no more

	Preferred time.Duration // of a Prefix: how long its addresses are for new connections
}

// Kind is what an Option tells of, by its number in the message.
type Kind byte

// What hosts are told of.
const (
	Prefix   Kind = 3  // from which they make addresses, and which is on the link (RFC 4861, section 4.6.2)
	Route    Kind = 24 // to which the router is the way (RFC 4191, section 2.3)
	Resolver Kind = 25 // a DNS server (RFC 8106, section 5.1)
	NAT64    Kind = 38 // behind which a translator reaches IPv4 (RFC 8781); lifetimes are in units of 8 s, at most 65528 s
)

// linkAddress is the option of a sender's link-layer address.
const linkAddress = 1

// Forever is a lifetime that does not end.
const Forever = 0xffffffff * time.Second

// errMalformed is EPROTO: octets that no router sends.
const errMalformed = syscall.EPROTO

// Types of ICMPv6.
const (
	solicitationType  = 133
	advertisementType = 134
)

// header is the length of an advertisement without options.
const header = 16

// Marshal returns m as an ICMPv6 message, whose checksum is the kernel's to set.
func (m Message) Marshal() []byte {
	b := make([]byte, header, 256)
	b[0] = advertisementType
	if m.Managed {
		b[5] |= 1 << 7
	}
	if m.Other {
		b[5] |= 1 << 6
	}
	binary.BigEndian.PutUint16(b[6:], uint16(min(m.Lifetime/time.Second, 0xffff)))
	if len(m.LinkAddress) > 0 {
		b = appendOption(b, linkAddress, m.LinkAddress)
	}
	for _, o := range m.Options {
		b = appendOption(b, byte(o.Kind), o.value())
	}
	return b
}

// Flags of a Prefix.
const onLink, autonomous = 1 << 7, 1 << 6

// value returns what follows the option's kind and length.
func (o Option) value() (v []byte) {
	bits, octets := o.Prefix.Bits(), o.Prefix.Addr().AsSlice()
	lifetime := uint32(min(o.Lifetime, Forever) / time.Second)
	switch o.Kind {
	case Prefix:
		v = binary.BigEndian.AppendUint32([]byte{byte(bits), onLink | autonomous}, lifetime)
		v = binary.BigEndian.AppendUint32(v, uint32(min(o.Preferred, Forever)/time.Second))
		v = append(append(v, 0, 0, 0, 0), octets...)
	case Route:
		v = binary.BigEndian.AppendUint32([]byte{byte(bits), 0}, lifetime)
		v = append(v, octets[:(bits+63)/64*8]...)
	case Resolver:
		v = append(binary.BigEndian.AppendUint32([]byte{0, 0}, lifetime), octets...)
	case NAT64:
		scaled := uint16(min((o.Lifetime+7*time.Second)/(8*time.Second), 0x1fff))
		v = binary.BigEndian.AppendUint16(nil, scaled<<3|uint16(slices.Index(lengths[:], bits)))
		v = append(v, octets[:12]...)
	}
	return v
}

// lengths of prefixes of translators are by their codes (RFC 8781, section 4).
var lengths = [...]int{96, 64, 56, 48, 40, 32}

// appendOption appends an option, padded to units of 8 octets.
func appendOption(b []byte, kind byte, value []byte) []byte {
	start := len(b)
	b = append(append(b, kind, 0), value...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	b[start+1] = byte((len(b) - start) / 8)
	return b
}

// Parse reads an advertisement. Options that are of no use to it, or that have
// nonsense in them, are left out; the error is EPROTO where RFC 4861, section
// 6.1.2, has the whole discarded.
func Parse(b []byte) (Message, error) {
	if len(b) < header || b[0] != advertisementType || b[1] != 0 {
		return Message{}, errMalformed
	}
	m := Message{
		Managed: b[5]&(1<<7) != 0, Other: b[5]&(1<<6) != 0,
		Lifetime: time.Duration(binary.BigEndian.Uint16(b[6:])) * time.Second,
	}
	err := options(b[header:], func(kind byte, value []byte) {
		if kind == linkAddress {
			m.LinkAddress = slices.Clone(value)
			return
		}
		m.Options = append(m.Options, parseOptions(Kind(kind), value)...)
	})
	if err != nil {
		return Message{}, err
	}
	return m, nil
}

// options calls each with the options of b, whose values have 6 octets or a
// multiple of 8 more. The error is EPROTO where one has no length, or ends
// beyond b.
func options(b []byte, each func(kind byte, value []byte)) error {
	for len(b) > 0 {
		if len(b) < 8 || b[1] == 0 || len(b) < int(b[1])*8 {
			return errMalformed
		}
		size := int(b[1]) * 8
		each(b[0], b[2:size])
		b = b[size:]
	}
	return nil
}

// parseOptions returns what an option tells of. It is several DNS servers, or
// else one thing, or none.
func parseOptions(kind Kind, v []byte) []Option {
	seconds := func(at int) time.Duration {
		return time.Duration(binary.BigEndian.Uint32(v[at:])) * time.Second
	}
	one := func(o Option, octets []byte, bits int) []Option {
		if bits > 128 || bits > len(octets)*8 {
			return nil
		}
		var addr [16]byte
		copy(addr[:], octets)
		o.Kind, o.Prefix = kind, netip.PrefixFrom(netip.AddrFrom16(addr), bits).Masked()
		return []Option{o}
	}
	switch {
	case kind == Prefix && len(v) == 30 && v[1]&autonomous != 0:
		return one(Option{Lifetime: seconds(2), Preferred: seconds(6)}, v[14:], int(v[0]))
	case kind == Route && len(v) <= 22:
		return one(Option{Lifetime: seconds(2)}, v[6:], int(v[0]))
	case kind == Resolver:
		var all []Option
		for at := 6; at+16 <= len(v); at += 16 {
			all = append(all, one(Option{Lifetime: seconds(2)}, v[at:at+16], 128)...)
		}
		return all
	case kind == NAT64 && len(v) == 14:
		scaled := binary.BigEndian.Uint16(v)
		if code := int(scaled & 7); code < len(lengths) {
			return one(Option{Lifetime: time.Duration(scaled>>3) * 8 * time.Second}, v[2:], lengths[code])
		}
	}
	return nil
}

// solicits reports whether b is a router solicitation of the host at from (RFC
// 4861, section 6.1.1).
func solicits(b []byte, from netip.Addr) bool {
	if len(b) < 8 || b[0] != solicitationType || b[1] != 0 {
		return false
	}
	named := false
	err := options(b[8:], func(kind byte, _ []byte) { named = named || kind == linkAddress })
	return err == nil && !(named && from.IsUnspecified())
}

// solicitation is one that does not tell of its sender.
func solicitation() []byte { return []byte{solicitationType, 0, 0, 0, 0, 0, 0, 0} }

// without returns the options that m has and next has not, as they are taken
// back.
func (m Message) without(next Message) (gone []Option) {
	for _, o := range m.Options {
		same := func(p Option) bool { return o.Kind == p.Kind && o.Prefix == p.Prefix }
		if !slices.ContainsFunc(next.Options, same) && !slices.ContainsFunc(gone, same) {
			gone = append(gone, Option{Kind: o.Kind, Prefix: o.Prefix})
		}
	}
	return gone
}
