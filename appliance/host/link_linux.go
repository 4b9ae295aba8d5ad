package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// link is what a link was before the gateway, and what it got.
type link struct {
	index     int // 0: none yet
	mtu       int // octets
	queue     int // packets
	up        bool
	addresses []netip.Prefix // added by us
	settings  journal        // changed by us
	default4  bool           // there is our default route
}

// linkQueue is how many packets may wait for the gateway, as many as for an
// Ethernet card: TUN devices have half of that, 5 ms of a gigabit.
const linkQueue = 1000

// setLink brings the link up with its MTU, its queue and addresses. Addresses that were
// there before stay.
func (n *Network) setLink(s State) error {
	device, err := n.handle.LinkByName(s.Link)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", s.Link, err)
	}
	attrs := device.Attrs()
	if n.link.index != attrs.Index {
		if err := n.restoreLink(); err != nil {
			return err
		}
		n.link = link{index: attrs.Index, mtu: attrs.MTU, queue: attrs.TxQLen, up: attrs.Flags&net.FlagUp != 0}
	}
	if s.MTU != 0 && s.MTU != attrs.MTU {
		if err := n.handle.LinkSetMTU(device, s.MTU); err != nil {
			return fmt.Errorf("setting MTU of link %s to %d: %w", s.Link, s.MTU, err)
		}
	}
	if attrs.TxQLen < linkQueue {
		if err := n.handle.LinkSetTxQLen(device, linkQueue); err != nil {
			return fmt.Errorf("setting queue of link %s to %d: %w", s.Link, linkQueue, err)
		}
	}
	if attrs.Flags&net.FlagUp == 0 {
		if err := n.handle.LinkSetUp(device); err != nil {
			return fmt.Errorf("setting link %s up: %w", s.Link, err)
		}
	}
	if len(s.handedOver()) > 0 {
		if err := n.loosen(s.Link); err != nil {
			return err
		}
	}
	if err := n.setAddresses(device, s.Addresses); err != nil {
		return err
	}
	return n.setDefault(device, s.Default4)
}

// setDefault makes the link the IPv4 default route of last resort, or no more.
func (n *Network) setDefault(device netlink.Link, wanted bool) error {
	name := device.Attrs().Name
	r := netlink.Route{
		LinkIndex: device.Attrs().Index, Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)),
		Protocol: protocol, Priority: lastMetric,
	}
	switch {
	case wanted:
		if err := n.handle.RouteAdd(&r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("routing IPv4 to link %s: %w", name, err)
		}
	case n.link.default4:
		if err := n.handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("routing IPv4 no more to link %s: %w", name, err)
		}
	}
	n.link.default4 = wanted
	return nil
}

// loosen lets clients' packets come out of the link.
func (n *Network) loosen(link string) error {
	want, strict, err := looseReverse(link)
	if err != nil || !strict {
		return err
	}
	before, err := readSysctl(want.key)
	if err != nil {
		return err
	}
	if err := want.write(); err != nil {
		return err
	}
	n.link.settings = journal{{want.key, before}}
	return nil
}

func (n *Network) setAddresses(device netlink.Link, wanted []netip.Prefix) error {
	name := device.Attrs().Name
	for _, a := range slices.Clone(n.link.addresses) {
		if slices.Contains(wanted, a) {
			continue
		}
		err := n.handle.AddrDel(device, address(a))
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("removing address %v of link %s: %w", a, name, err)
		}
		n.link.addresses = slices.DeleteFunc(n.link.addresses, func(b netip.Prefix) bool { return a == b })
	}
	for _, a := range wanted {
		err := n.handle.AddrAdd(device, address(a))
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return fmt.Errorf("adding address %v to link %s: %w", a, name, err)
		}
		n.link.addresses = append(n.link.addresses, a)
	}
	return nil
}

// address is a without an IPv4 broadcast address, since every address of a
// pool may be a fake, and without IPv6 duplicate address detection (RFC
// 4862, section 5.4), which nobody on the link could answer.
func address(a netip.Prefix) *netlink.Addr {
	if a.Addr().Is4() {
		return &netlink.Addr{IPNet: ipNet(a), Broadcast: net.IPv4zero}
	}
	return &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}
}

// restoreLink makes the link what it was, if it is still there.
func (n *Network) restoreLink() error {
	before := n.link
	if before.index == 0 {
		return nil
	}
	device, err := n.handle.LinkByIndex(before.index)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		n.link = link{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding link %d: %w", before.index, err)
	}
	if err := errors.Join(n.setDefault(device, false), n.setAddresses(device, nil), before.settings.restore()); err != nil {
		return err
	}
	if !before.up {
		if err := n.handle.LinkSetDown(device); err != nil {
			return fmt.Errorf("setting link %s down: %w", device.Attrs().Name, err)
		}
	}
	if err := n.handle.LinkSetMTU(device, before.mtu); err != nil {
		return fmt.Errorf("setting MTU of link %s to %d: %w", device.Attrs().Name, before.mtu, err)
	}
	if err := n.handle.LinkSetTxQLen(device, before.queue); err != nil {
		return fmt.Errorf("setting queue of link %s to %d: %w", device.Attrs().Name, before.queue, err)
	}
	n.link = link{}
	return nil
}
