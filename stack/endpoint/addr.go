package endpoint

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// AddrPort returns netstack's address and port as netip has them. The zero
// Address becomes the zero Addr.
func AddrPort(addr tcpip.Address, port uint16) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(addr.AsSlice()) // 0, 4 or 16 octets
	return netip.AddrPortFrom(ip, port)
}

// FullAddress is the inverse of AddrPort; the NIC stays open.
func FullAddress(ap netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{Addr: tcpip.AddrFromSlice(ap.Addr().AsSlice()), Port: ap.Port()}
}

// Network returns the number of the IP version of addr.
func Network(addr netip.Addr) tcpip.NetworkProtocolNumber {
	if addr.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}
