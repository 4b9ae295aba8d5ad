package advert

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Packet is an ICMPv6 message as it came.
type Packet struct {
	Octets    []byte     // valid until the next one is received
	From      netip.Addr // without zone
	HopLimit  int        // neighbourly from neighbours alone (RFC 4861, section 3.1)
	Interface int        // its index
}

// neighbourly is the hop limit that no router has lessened.
const neighbourly = 255

// Link is where solicitations and advertisements are sent and received.
type Link interface {
	Receive() (Packet, error) // until Close; then net.ErrClosed
	Send(iface int, to netip.Addr, octets []byte) error
	Close() error
}

// allNodes and allRouters are groups of a link (RFC 4291, section 2.7.1).
func allNodes() netip.Addr   { return netip.MustParseAddr("ff02::1") }
func allRouters() netip.Addr { return netip.MustParseAddr("ff02::2") }

// Interface is one that routers advertise on.
type Interface struct {
	Name        string
	Index       int
	LinkAddress string     // the octets of its link-layer address; may be empty
	Addr        netip.Addr // link-local, without zone
}

// Find returns the interface of that name as it is now. The error is
// EADDRNOTAVAIL where it has no link-local address, as while it is down.
func Find(name string) (Interface, error) {
	found, err := net.InterfaceByName(name)
	if err != nil {
		return Interface{}, fmt.Errorf("finding interface %s: %w", name, err)
	}
	addresses, err := found.Addrs()
	if err != nil {
		return Interface{}, fmt.Errorf("listing addresses of %s: %w", name, err)
	}
	for _, a := range addresses {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, _ := netip.AddrFromSlice(n.IP); ip.Is6() && ip.IsLinkLocalUnicast() {
			return Interface{name, found.Index, string(found.HardwareAddr), ip}, nil
		}
	}
	return Interface{}, fmt.Errorf("looking for the link-local address of %s: %w", name, syscall.EADDRNOTAVAIL)
}

// socket is a Link of the kernel's.
type socket struct {
	conn *ipv6.PacketConn
	from netip.Addr // of what is sent; invalid: the kernel's choice
	buf  []byte
}

// Open returns the link of an interface as its router uses it. It needs
// CAP_NET_RAW; else the error is EPERM.
func Open(iface Interface) (Link, error) {
	s, err := open(iface.Name)
	if err != nil {
		return nil, fmt.Errorf("opening ICMPv6 on %s: %w", iface.Name, err)
	}
	s.from = iface.Addr
	if err := s.refuseForged(iface.Addr); err != nil {
		return nil, errors.Join(fmt.Errorf("filtering ICMPv6 on %s: %w", iface.Name, err), s.Close())
	}
	if err := s.conn.JoinGroup(&net.Interface{Index: iface.Index}, &net.IPAddr{IP: allRouters().AsSlice()}); err != nil {
		return nil, errors.Join(fmt.Errorf("joining the routers of %s: %w", iface.Name, err), s.Close())
	}
	return s, nil
}

// OpenAll returns the links of all interfaces as a host uses them. It needs
// CAP_NET_RAW; else the error is EPERM.
func OpenAll() (Link, error) {
	s, err := open("")
	if err != nil {
		return nil, fmt.Errorf("opening ICMPv6: %w", err)
	}
	return s, nil
}

// open returns a socket of one device, or of all.
func open(device string) (*socket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if device == "" {
			return nil
		}
		if cerr := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) }); cerr != nil {
			return cerr
		}
		return err
	}}
	packets, err := lc.ListenPacket(context.Background(), "ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, err
	}
	s := &socket{conn: ipv6.NewPacketConn(packets), buf: make([]byte, 1<<16)}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	err = errors.Join(
		s.conn.SetICMPFilter(&filter),
		s.conn.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true),
		s.conn.SetMulticastHopLimit(neighbourly),
	)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// refuseForged has the kernel drop what comes from another machine in the name of
// own, an address of this one: what is said there is taken for the machine's own
// word.
func (s *socket) refuseForged(own netip.Addr) error {
	const (
		network  = 0xfff00000 // where the IPv6 header begins, to the kernel's filters
		source   = 8          // in it
		loopback = 5          // the type of a packet that the machine has sent itself
		all      = 1 << 18    // octets of a packet that passes
	)
	filter := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: loopback, SkipTrue: 9},
	}
	for i := range uint32(4) {
		word := binary.BigEndian.Uint32(own.AsSlice()[4*i:])
		filter = append(filter,
			bpf.LoadAbsolute{Off: network + source + 4*i, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word, SkipTrue: uint8(7 - 2*i)},
		)
	}
	filter = append(filter, bpf.RetConstant{}, bpf.RetConstant{Val: all})
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return err
	}
	return s.conn.SetBPF(raw)
}

func (s *socket) Close() error { return s.conn.Close() }

func (s *socket) Receive() (Packet, error) {
	size, c, from, err := s.conn.ReadFrom(s.buf)
	if err != nil {
		return Packet{}, err
	}
	p := Packet{Octets: s.buf[:size]}
	if c != nil {
		p.HopLimit, p.Interface = c.HopLimit, c.IfIndex
	}
	if a, ok := from.(*net.IPAddr); ok {
		p.From, _ = netip.AddrFromSlice(a.IP)
	}
	return p, nil
}

// Send sends to a group of the link. Of what goes to routers this machine is to
// hear, too, whose other programs may be one.
func (s *socket) Send(iface int, to netip.Addr, octets []byte) error {
	if err := s.conn.SetMulticastLoopback(to == allRouters()); err != nil {
		return err
	}
	c := &ipv6.ControlMessage{IfIndex: iface}
	if s.from.IsValid() {
		c.Src = s.from.AsSlice()
	}
	_, err := s.conn.WriteTo(octets, c, &net.IPAddr{IP: to.AsSlice()})
	return err
}
