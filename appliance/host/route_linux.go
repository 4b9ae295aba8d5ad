package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// protocol marks our routes. No routing daemon has this number in
	// iproute2's rt_protos.
	protocol = 163

	// lastMetric yields to every other route of the same prefix. It is the
	// highest that netlink's int holds on 32-bit machines.
	lastMetric = 1<<31 - 1

	// interruptions is how often a listing may be outdated by a change of
	// the kernel's tables in its midst.
	interruptions = 10
)

// setRoutes makes the unreachable routes of pools the only ones of their kind
// that carry our protocol number, but for those of others.
func (n *Network) setRoutes(pools []netip.Prefix, others []neighbour) error {
	ours, err := whole(func() ([]netlink.Route, error) {
		return n.handle.RouteListFiltered(netlink.FAMILY_ALL,
			&netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("listing our routes: %w", err)
	}
	var standing []netip.Prefix
	for _, r := range ours {
		if r.Type != unix.RTN_UNREACHABLE {
			continue // it goes with its link
		}
		if slices.Contains(pools, prefix(r.Dst)) {
			standing = append(standing, prefix(r.Dst))
			continue
		}
		if slices.ContainsFunc(others, func(o neighbour) bool { return slices.Contains(o.pools, prefix(r.Dst)) }) {
			continue
		}
		if err := n.handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("removing route %v: %w", r.Dst, err)
		}
	}
	for _, pool := range pools {
		if slices.Contains(standing, pool) {
			continue
		}
		if n.held != nil && slices.Contains(n.held.ours(), pool) {
			n.tellLoss(pool)
		}
		r := netlink.Route{Dst: ipNet(pool), Type: unix.RTN_UNREACHABLE, Protocol: protocol, Priority: lastMetric}
		if err := n.handle.RouteAdd(&r); err != nil {
			return fmt.Errorf("adding unreachable route %v: %w", pool, err)
		}
	}
	return nil
}

// tellLoss logs that a route was removed, once in a minute: who did so may do it
// again and again.
func (n *Network) tellLoss(pool netip.Prefix) {
	if now := time.Now(); now.Sub(n.told) >= time.Minute {
		n.log.Warn("putting back a route, which somebody has removed", "pool", pool)
		n.told = now
	}
}

// whole repeats a listing that the kernel says was interrupted.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	found, err := list()
	for i := 0; i < interruptions && errors.Is(err, netlink.ErrDumpInterrupted); i++ {
		found, err = list()
	}
	return found, err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefix returns the zero Prefix for what has no form as one.
func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}
