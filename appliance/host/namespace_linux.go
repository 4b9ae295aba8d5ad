package host

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Furnish makes the caller's network namespace, a new one, a host that has
// loopback and one link: with these addresses, an MTU in octets, and the default
// routes of the addresses' families.
func Furnish(link string, mtu int, addresses []netip.Prefix) error {
	if _, err := raise("lo"); err != nil {
		return err
	}
	device, err := raise(link)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(device, mtu); err != nil {
		return fmt.Errorf("setting MTU of link %s to %d: %w", link, mtu, err)
	}
	for _, a := range addresses {
		if err := netlink.AddrAdd(device, address(a)); err != nil {
			return fmt.Errorf("adding address %v to link %s: %w", a, link, err)
		}
		all := netip.PrefixFrom(a.Addr(), 0).Masked()
		r := netlink.Route{LinkIndex: device.Attrs().Index, Dst: ipNet(all), Protocol: protocol}
		if err := netlink.RouteAdd(&r); err != nil {
			return fmt.Errorf("routing %v to link %s: %w", all, link, err)
		}
	}
	return nil
}

// raise sets a link up.
func raise(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("finding link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("setting link %s up: %w", name, err)
	}
	return link, nil
}
