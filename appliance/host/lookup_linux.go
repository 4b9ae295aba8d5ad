package host

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses returns the addresses of an interface, each with the length of
// its on-link prefix.
func Addresses(iface string) ([]netip.Prefix, error) {
	found, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("finding interface %s: %w", iface, err)
	}
	addresses, err := found.Addrs()
	if err != nil {
		return nil, fmt.Errorf("listing addresses of %s: %w", iface, err)
	}
	return prefixes(addresses), nil
}

// LocalAddresses returns all addresses of the machine, loopback and
// link-local ones among them.
func LocalAddresses() ([]netip.Addr, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing local addresses: %w", err)
	}
	var local []netip.Addr
	for _, p := range prefixes(addresses) {
		local = append(local, p.Addr())
	}
	return local, nil
}

func prefixes(addresses []net.Addr) []netip.Prefix {
	var found []netip.Prefix
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			found = append(found, prefix(n))
		}
	}
	return found
}

// IPv6 reports whether a link that is made now can have IPv6 addresses.
// Containers often have none.
func IPv6() (bool, error) {
	disabled, err := readSysctl(conf("ipv6", "default", "disable_ipv6"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // a kernel without IPv6
	}
	return disabled == "0", err
}

// Uplink returns the interfaces, by index, that the default routes of each
// family in the main table lead to, without those excluded by name.
func Uplink(exclude ...string) (ipv4, ipv6 []int, err error) {
	if ipv4, err = defaults(netlink.FAMILY_V4, exclude); err != nil {
		return nil, nil, fmt.Errorf("looking for an IPv4 default route: %w", err)
	}
	if ipv6, err = defaults(netlink.FAMILY_V6, exclude); err != nil {
		return nil, nil, fmt.Errorf("looking for an IPv6 default route: %w", err)
	}
	return ipv4, ipv6, nil
}

func defaults(family int, exclude []string) (found []int, err error) {
	routes, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family,
			&netlink.Route{Type: unix.RTN_UNICAST}, netlink.RT_FILTER_TYPE)
	})
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if r.Dst != nil && prefix(r.Dst).Bits() != 0 {
			continue
		}
		hops := []int{r.LinkIndex}
		for _, hop := range r.MultiPath {
			hops = append(hops, hop.LinkIndex)
		}
		for _, index := range hops {
			iface, err := net.InterfaceByIndex(index)
			if err == nil && !slices.Contains(exclude, iface.Name) && !slices.Contains(found, index) {
				found = append(found, index)
			}
		}
	}
	return found, nil
}
