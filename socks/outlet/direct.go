package outlet

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"sixgate/socks"
	"sixgate/socks/nat64"
)

// Prefer says which address families Direct uses, and which it tries first.
type Prefer string

// The preferences; "" is PreferIPv6.
const (
	PreferIPv6 Prefer = "ipv6"
	PreferIPv4 Prefer = "ipv4"
	OnlyIPv6   Prefer = "ipv6-only"
	OnlyIPv4   Prefer = "ipv4-only"
)

// networks returns the networks to look up, the preferred one first.
func (p Prefer) networks() []string {
	switch p {
	case PreferIPv4:
		return []string{"ip4", "ip6"}
	case OnlyIPv6:
		return []string{"ip6"}
	case OnlyIPv4:
		return []string{"ip4"}
	}
	return []string{"ip6", "ip4"}
}

// networkOf returns the network of an unmapped address.
func networkOf(ip netip.Addr) string {
	if ip.Is4() {
		return "ip4"
	}
	return "ip6"
}

// DirectConfig is what a Direct is built of.
type DirectConfig struct {
	Resolver Resolver // never nil
	Prefer   Prefer
	// Vet returns why an address is not to be dialled. May be nil.
	Vet func(netip.Addr) error
	// NAT64 returns the prefix of the translator by which IPv4 addresses are
	// dialled, or an invalid one where they are dialled as they are. May be nil.
	NAT64 func() netip.Prefix
	// Listening is where Bind listens.
	Listening socks.Listening
	// Ports are by which clients send datagrams; nil: those of this Direct alone.
	Ports *Ports
	// Control sets options of each other socket, see net.Dialer. May be nil.
	Control func(network, address string, c syscall.RawConn) error
}

// Direct is the way out through the host's own network.
type Direct struct {
	DirectConfig
	permit func(dest socks.Addr, ip netip.Addr) error // may be nil
	first  func(dest socks.Addr) netip.Addr           // may be nil
	dial   func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)
}

// NewDirect returns a Direct.
func NewDirect(c DirectConfig) *Direct {
	if c.Ports == nil {
		c.Ports = NewPorts(PortsConfig{Control: c.Control})
	}
	dialer := &net.Dialer{
		Control:   c.Control,
		KeepAlive: -1, // most connections are over before it matters: see relay.Stream
	}
	return &Direct{DirectConfig: c, dial: func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
		return dialer.DialContext(ctx, network, to.String())
	}}
}

// Limited returns d as it may serve one client: permit returns why dest is not
// to be reached at ip, its own address or one that its name has.
func (d *Direct) Limited(permit func(dest socks.Addr, ip netip.Addr) error) *Direct {
	limited := *d
	limited.permit = permit
	return &limited
}

// Starting returns d as it tries first's address of dest, a name, before the
// others that it has, if it has that one still. It is invalid where there is
// none to prefer.
func (d *Direct) Starting(first func(dest socks.Addr) netip.Addr) *Direct {
	starting := *d
	starting.first = first
	return &starting
}

// Dial connects to dest: to the address that it is, or to the first to answer
// of those that its name has. Of many failures it returns the one that says
// most of the destination; EACCES only when no address was let pass. A name
// without an address of a family in use is EHOSTUNREACH, an address of a family
// not in use EAFNOSUPPORT.
func (d *Direct) Dial(ctx context.Context, network string, dest socks.Addr) (net.Conn, error) {
	conn, err := d.race(ctx, network, dest)
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", dest, socks.WithErrno(err))
	}
	return conn, nil
}

// nat64 returns the prefix of the translator in use, or an invalid one.
func (d *Direct) nat64() netip.Prefix {
	if d.NAT64 == nil {
		return netip.Prefix{}
	}
	return d.NAT64()
}

// networks returns the networks to look up, the preferred one first. Behind a
// translator IPv4 addresses are reached by IPv6 alone.
func (d *Direct) networks() []string {
	if d.Prefer == OnlyIPv6 && d.nat64().IsValid() {
		return PreferIPv6.networks()
	}
	return d.Prefer.networks()
}

// through returns the address to dial for ip.
func (d *Direct) through(ip netip.Addr) netip.Addr { return nat64.Through(d.nat64(), ip) }

// meant returns the address for which ip was dialled.
func (d *Direct) meant(ip netip.Addr) netip.Addr {
	if v4, ok := nat64.Extract(d.nat64(), ip); ok {
		return v4
	}
	return ip
}

// vet returns why dest is not to be reached at ip.
func (d *Direct) vet(dest socks.Addr, ip netip.Addr) error {
	if d.Vet != nil {
		// Who answers for the translator's prefix does not choose what is dialled.
		if err := cmp.Or(d.Vet(ip), d.Vet(d.through(ip))); err != nil {
			return err
		}
	}
	if d.permit != nil {
		return d.permit(dest, ip)
	}
	return nil
}
