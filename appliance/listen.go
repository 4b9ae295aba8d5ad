package appliance

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"sixgate/appliance/config"
)

// listenSOCKS returns the addresses that SOCKS is to be served on. On a machine
// without IPv6 the default [::1] is none.
func (m *machine) listenSOCKS(c *config.Config) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(c.SOCKS.Listen), func(a netip.AddrPort) bool { return a.Addr().Is6() && !m.ipv6 })
}

// listenDNS returns the addresses that DNS is to be served on: those of the
// configuration, where one without IP stands for the addresses of every lan
// interface.
func (m *machine) listenDNS(c *config.Config) []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, l := range c.DNS.Listen {
		if l.Addr().IsValid() {
			addrs = append(addrs, l)
			continue
		}
		for _, lan := range m.lan {
			for _, p := range lan.addresses {
				ip := p.Addr()
				if ip.IsLinkLocalUnicast() && ip.Is6() {
					ip = ip.WithZone(lan.name)
				}
				addrs = append(addrs, netip.AddrPortFrom(ip, l.Port()))
			}
		}
	}
	return addrs
}

// sockets are what one address is served on.
type sockets struct {
	packet   net.PacketConn // may be nil
	listener net.Listener
}

func (s sockets) Close() {
	if s.packet != nil {
		s.packet.Close()
	}
	s.listener.Close()
}

// listen opens TCP, and with datagrams UDP, on each address, or nothing.
func listen(ctx context.Context, what string, datagrams bool, addrs []netip.AddrPort) (opened []sockets, err error) {
	defer func() {
		if err != nil {
			for _, s := range opened {
				s.Close()
			}
		}
	}()
	lc := net.ListenConfig{Control: freebind}
	for _, addr := range addrs {
		var s sockets
		if s.listener, err = lc.Listen(ctx, "tcp", addr.String()); err != nil {
			return opened, fmt.Errorf("serving %s: %w", what, err)
		}
		opened = append(opened, s)
		if !datagrams {
			continue
		}
		if s.packet, err = lc.ListenPacket(ctx, "udp", addr.String()); err != nil {
			return opened, fmt.Errorf("serving %s: %w", what, err)
		}
		opened[len(opened)-1] = s
	}
	return opened, nil
}

// freebind lets a socket listen on an address that the kernel still checks
// for duplicates (RFC 4862, section 5.4), as after an interface came up.
func freebind(network, address string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}
