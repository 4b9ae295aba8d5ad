package outlet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"sixgate/socks"
)

// Bind listens on the address that the host has towards peer, in peer's
// family. Towards nobody in particular that is the host's address on its way
// to the world, if it has one. What the Binding tells of it, d.Listening says.
// Others than peer are reset, and waiting goes on.
func (d *Direct) Bind(ctx context.Context, peer socks.Addr) (Binding, error) {
	b, err := d.bind(ctx, peer)
	if err != nil {
		return nil, fmt.Errorf("binding for %s: %w", peer, socks.WithErrno(err))
	}
	return b, nil
}

// anywhere is an address of each family that the route to the world leads to:
// those of documentation (RFC 5737, RFC 3849), which nothing is sent to.
var anywhere = map[string]netip.Addr{
	"ip4": netip.MustParseAddr("192.0.2.1"),
	"ip6": netip.MustParseAddr("2001:db8::1"),
}

func (d *Direct) bind(ctx context.Context, peer socks.Addr) (*directBinding, error) {
	toward, b := peer, &directBinding{vet: d.vet, told: d.Listening.Told}
	if !peer.IP.IsUnspecified() {
		ips, err := d.addresses(ctx, peer)
		if err != nil {
			return nil, err
		}
		b.peers, toward = ips, socks.Addr{IP: ips[0]}
	}
	local := netip.Addr{}
	if toward.IP.IsUnspecified() {
		toward.IP = anywhere[networkOf(peer.IP)]
	}
	toward.Port = 9 // discard; nothing is sent
	if conn, err := d.dial(ctx, "udp", toward.AddrPort()); err == nil {
		local = conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
		conn.Close()
	} else if peer.IP.IsUnspecified() {
		local = peer.IP // the client knows the gateway by another address
	} else {
		return nil, err
	}
	lc := net.ListenConfig{Control: d.Control}
	err := d.Listening.Ports.Open(func(port uint16) error {
		ln, err := lc.Listen(ctx, strings.Replace(networkOf(local), "ip", "tcp", 1), netip.AddrPortFrom(local, port).String())
		if err == nil {
			b.ln = ln.(*net.TCPListener)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// addresses returns those of dest that may be dialled, at least one, the
// preferred family first.
func (d *Direct) addresses(ctx context.Context, dest socks.Addr) (ips []netip.Addr, err error) {
	known := []netip.Addr{dest.IP}
	if dest.IsName() {
		if known, err = d.Resolver.LookupNetIP(ctx, "ip", dest.Name); err != nil {
			return nil, fmt.Errorf("%w: %w", err, syscall.EHOSTUNREACH)
		}
	}
	err = errNoAddress
	for _, family := range d.Prefer.networks() {
		for _, ip := range known {
			ip = ip.Unmap().WithZone("")
			if networkOf(ip) != family {
				continue
			}
			if denied := d.vet(dest, ip); denied != nil {
				err = denied
				continue
			}
			ips = append(ips, ip)
		}
	}
	if len(ips) > 0 {
		return ips, nil
	}
	return nil, err
}

// directBinding is the Binding of a Direct.
type directBinding struct {
	ln    *net.TCPListener
	peers []netip.Addr // empty: anybody that vet lets in
	vet   func(peer socks.Addr, ip netip.Addr) error
	told  func(netip.AddrPort) netip.AddrPort
}

func (b *directBinding) Addr() netip.AddrPort { return b.told(socks.AddrPortOf(b.ln.Addr())) }

func (b *directBinding) Close() error { return b.ln.Close() }

func (b *directBinding) Accept(ctx context.Context) (net.Conn, netip.AddrPort, error) {
	defer b.ln.Close()
	defer context.AfterFunc(ctx, func() { b.ln.SetDeadline(time.Unix(1, 0)) })() // fails only when closed
	for {
		conn, err := b.ln.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, netip.AddrPort{}, fmt.Errorf("waiting for a connection to %s: %w", b.Addr(), socks.WithErrno(err))
		}
		from := socks.AddrPortOf(conn.RemoteAddr())
		if slices.Contains(b.peers, from.Addr()) || len(b.peers) == 0 && b.vet(socks.AddrFromAddrPort(from), from.Addr()) == nil {
			return conn, from, nil
		}
		conn.SetLinger(0) // fails only on a connection that is already gone
		conn.Close()
	}
}
