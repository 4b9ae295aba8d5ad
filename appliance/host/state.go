package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// State is everything of the machine's network that the gateway wants.
type State struct {
	Link      string         // TUN device, already created
	MTU       int            // octets; 0 leaves the link's own
	Addresses []netip.Prefix // the gateway's own on the link; their prefixes are the routes of the pools

	// Pools are the fake prefixes. Each also gets an unreachable route that
	// takes over when the link is gone, so that fakes never follow the
	// default route.
	Pools []netip.Prefix

	// Literals are the prefixes behind which clients write addresses of the
	// other family. They are like Pools, but never handed over.
	Literals []netip.Prefix

	Default4 bool // the link takes IPv4 that no other route takes

	// LAN are the interfaces served. Without any there is no forwarding and
	// no nft table, and the fields below have no effect.
	LAN        []string
	Sole       []string         // of LAN: where this machine is the router, and heeds no other
	Private    []netip.AddrPort // sockets, TCP and UDP, that only the LAN and the machine itself may reach
	Forward4   bool             // let the kernel forward IPv4
	Forward6   bool             // let the kernel forward IPv6
	CaptureDNS uint16           // our port that answers whatever the LAN sends to port 53 of anyone; 0: none
	RefuseDoT  bool             // DNS over TLS and QUIC of the LAN is refused, whereupon clients ask in plain
	Masquerade bool             // IPv4 from the LAN to real addresses leaves with the uplink's address
	Mark       uint32           // SO_MARK of the gateway's own sockets, never captured; 0: none

	// Handover are transparent sockets of ours, at most one of each family,
	// that listen on loopback addresses. SYNs to the pools that come out of
	// the link become their connections, and the kernel carries these from
	// and to the LAN. Without any, all of the pools goes by the link.
	Handover []netip.AddrPort
}

// ours returns the prefixes that lead to the gateway and nowhere else.
func (s State) ours() []netip.Prefix { return slices.Concat(s.Pools, s.Literals) }

// validate refuses what the kernel or the nft text could not hold.
func (s State) validate() error {
	for _, name := range append([]string{s.Link}, s.LAN...) {
		if !quotable(name) {
			return fmt.Errorf("naming an interface %q: no name of an interface", name)
		}
	}
	for _, pool := range s.ours() {
		if !pool.IsValid() || pool != pool.Masked() {
			return fmt.Errorf("routing pool %v: no prefix of a network", pool)
		}
	}
	for _, address := range s.Addresses {
		if !address.IsValid() {
			return errors.New("addressing the link: invalid address")
		}
	}
	return nil
}

// quotable reports whether an interface's name stands for itself alone in an
// nft string, where a quote ends it and an asterisk is a wildcard. IFNAMSIZ
// leaves a name 15 octets.
func quotable(name string) bool {
	return name != "" && len(name) <= 15 && !strings.ContainsAny(name, "\"*\\ \t\r\n")
}
