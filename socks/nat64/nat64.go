package nat64

import (
	"net/netip"
	"slices"
)

// WellKnown is the prefix that every translator may have (RFC 6052, section
// 2.1).
func WellKnown() netip.Prefix { return netip.MustParsePrefix("64:ff9b::/96") }

// Local is the space of prefixes for the translators of one network (RFC 8215).
func Local() netip.Prefix { return netip.MustParsePrefix("64:ff9b:1::/48") }

// lengths are those that a prefix may have (RFC 6052, section 2.2), the longest
// first.
var lengths = [...]int{96, 64, 56, 48, 40, 32}

// Valid reports whether p may be the prefix of a translator.
func Valid(p netip.Prefix) bool {
	return p.Addr().Is6() && !p.Addr().Is4In6() && p == p.Masked() && slices.Contains(lengths[:], p.Bits()) &&
		p.Addr().As16()[reserved] == 0
}

// reserved is the octet of an address that has to be zero.
const reserved = 8

// places returns the indexes of the IPv4 address's octets behind a prefix of so
// many bits.
func places(bits int) (at [4]int) {
	i := bits / 8
	for n := range at {
		if i == reserved {
			i++
		}
		at[n] = i
		i++
	}
	return at
}

// Embed returns the IPv6 address that stands for the IPv4 address ip behind p,
// which has to be Valid.
func Embed(p netip.Prefix, ip netip.Addr) netip.Addr {
	octets, v4 := p.Masked().Addr().As16(), ip.Unmap().As4()
	for n, i := range places(p.Bits()) {
		octets[i] = v4[n]
	}
	return netip.AddrFrom16(octets)
}

// Through returns the address by which ip is reached through the translator p:
// itself where there is none, as for an invalid p, and where it is private and p
// WellKnown (RFC 6052, section 3.1).
func Through(p netip.Prefix, ip netip.Addr) netip.Addr {
	if !p.IsValid() || !ip.Is4() || ip.IsPrivate() && p == WellKnown() {
		return ip
	}
	return Embed(p, ip)
}

// Extract returns the IPv4 address that ip stands for, if it is an address of p
// and p is Valid. What follows the IPv4 address does not matter.
func Extract(p netip.Prefix, ip netip.Addr) (netip.Addr, bool) {
	if !Valid(p) || !p.Contains(ip) {
		return netip.Addr{}, false
	}
	octets := ip.As16()
	if octets[reserved] != 0 {
		return netip.Addr{}, false
	}
	var v4 [4]byte
	for n, i := range places(p.Bits()) {
		v4[n] = octets[i]
	}
	return netip.AddrFrom4(v4), true
}

// Literal returns the IPv4 address that ip stands for, if it is behind WellKnown
// or any prefix of the same length in Local.
func Literal(ip netip.Addr) (netip.Addr, bool) {
	if p := WellKnown(); p.Contains(ip) {
		return Extract(p, ip)
	}
	if !Local().Contains(ip) {
		return netip.Addr{}, false
	}
	return Extract(netip.PrefixFrom(ip, 96).Masked(), ip)
}

// Known are the IPv4 addresses of the name ipv4only.arpa, and no others (RFC
// 7050, section 8).
func Known() [2]netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{192, 0, 0, 170}), netip.AddrFrom4([4]byte{192, 0, 0, 171})}
}

// Find returns the prefix behind which a resolver has written Known, given the
// IPv6 addresses that it has for ipv4only.arpa (RFC 7050, section 3). Of several
// it is the one of more addresses, and then the first.
func Find(answers []netip.Addr) (found netip.Prefix, ok bool) {
	most := 0
	for _, answer := range answers {
		for _, bits := range lengths {
			p := netip.PrefixFrom(answer, bits).Masked()
			if n := behind(p, answers); n > most {
				found, most = p, n
			}
		}
	}
	return found, most > 0
}

// behind returns how many of Known are among answers as addresses behind p.
func behind(p netip.Prefix, answers []netip.Addr) (n int) {
	for _, known := range Known() {
		if Valid(p) && slices.Contains(answers, Embed(p, known)) {
			n++
		}
	}
	return n
}
