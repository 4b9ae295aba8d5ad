package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
)

// listenSOCKS returns the addresses that SOCKS is to be served on. On a machine
// without IPv6 the default [::1] is none.
func (m *machine) listenSOCKS(c *config.Config) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(c.SOCKS.Listen), func(a netip.AddrPort) bool { return a.Addr().Is6() && !m.ipv6 })
}

// listenDNS returns the addresses that DNS is to be served on.
func (m *machine) listenDNS(c *config.Config) []netip.AddrPort {
	addrs := m.listenLAN(c)
	for _, l := range c.DNS.Listen {
		if l.Addr().IsValid() {
			addrs = append(addrs, l)
		}
	}
	return addrs
}

// listenLAN returns those of them that stand in the configuration without IP:
// the addresses of every lan interface.
func (m *machine) listenLAN(c *config.Config) []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, l := range c.DNS.Listen {
		if l.Addr().IsValid() {
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
	packet   *net.UDPConn // may be nil
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
	lc := net.ListenConfig{Control: prepare, KeepAlive: -1} // which prepare has set
	for _, addr := range addrs {
		var s sockets
		if s.listener, err = lc.Listen(ctx, family("tcp", addr), addr.String()); err != nil {
			return opened, fmt.Errorf("serving %s: %w", what, err)
		}
		opened = append(opened, s)
		if !datagrams {
			continue
		}
		packet, err := lc.ListenPacket(ctx, family("udp", addr), addr.String())
		if err != nil {
			return opened, fmt.Errorf("serving %s: %w", what, err)
		}
		s.packet = packet.(*net.UDPConn)
		opened[len(opened)-1] = s
	}
	return opened, nil
}

// family returns the network on which addr is what it says: to net, 0.0.0.0 on
// another is every address of IPv6, too.
func family(network string, addr netip.AddrPort) string {
	if addr.Addr().Is4() {
		return network + "4"
	}
	return network
}

// dnsSockets are where DNS is served. It is not for concurrent use.
type dnsSockets struct {
	server *dnsfake.Server
	tasks  *errgroup.Group
	open   map[netip.AddrPort]dnsSocket
	wanted []netip.AddrPort // of the last set
}

// dnsSocket is what serves one address.
type dnsSocket struct {
	link int // the index of the interface that the address is of; 0: any
	stop context.CancelFunc
}

// set serves on addrs, and no more on what only the last set had. Where some
// cannot be had, the others are served all the same.
func (d *dnsSockets) set(ctx context.Context, addrs []netip.AddrPort) error {
	for _, addr := range d.wanted {
		if s, ok := d.open[addr]; ok && !slices.Contains(addrs, addr) {
			s.stop()
			delete(d.open, addr)
		}
	}
	d.wanted = addrs
	var errs []error
	for _, addr := range addrs {
		errs = append(errs, d.serve(ctx, addr))
	}
	return errors.Join(errs...)
}

// serve serves on addr, unless that is so already. The socket of a link-local
// address hears one interface: where another has come by its name, as after a
// bridge was made anew, it is replaced.
func (d *dnsSockets) serve(ctx context.Context, addr netip.AddrPort) error {
	link, err := linkOf(addr.Addr())
	before, ok := d.open[addr]
	if ok && (err != nil || before.link == link) { // without an interface there is nothing to hear
		return nil
	}
	if err != nil {
		return fmt.Errorf("serving DNS on %s: %w", addr, err)
	}
	if ok {
		before.stop()
		delete(d.open, addr)
	}
	exact := addr
	if link != 0 { // package net knows for a minute what names meant before
		exact = netip.AddrPortFrom(addr.Addr().WithZone(strconv.Itoa(link)), addr.Port())
	}
	opened, err := listen(ctx, "DNS", true, []netip.AddrPort{exact})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	d.open[addr] = dnsSocket{link, stop}
	d.tasks.Go(func() error { return d.server.ServePacket(ctx, opened[0].packet) })
	d.tasks.Go(func() error { return d.server.ServeListener(ctx, opened[0].listener) })
	return nil
}

// linkOf returns the index of the interface that ip is of by its zone, 0 where it
// has none.
func linkOf(ip netip.Addr) (int, error) {
	if ip.Zone() == "" {
		return 0, nil
	}
	found, err := net.InterfaceByName(ip.Zone())
	if err != nil {
		return 0, err
	}
	return found.Index, nil
}

// clientIdle is when TCP asks whether a silent client still lives, as often as
// Go does by itself.
const clientIdle = 15 * time.Second

// prepare lets a socket listen on an address that the kernel still checks for
// duplicates (RFC 4862, section 5.4), as after an interface came up. Keepalive
// is set once for all connections, which inherit it from their listener.
func prepare(network, address string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
		if err == nil && strings.HasPrefix(network, "tcp") {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(clientIdle.Seconds())),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(clientIdle.Seconds())),
			)
		}
	}); cerr != nil {
		return cerr
	}
	return err
}
