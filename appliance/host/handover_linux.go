package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// deliver marks packets that are for a socket of this machine although
	// they go to an address of a pool, and is the number of the table that
	// says so. The table has the pools alone, so that the mark, which
	// net.ipv4.tcp_fwmark_accept copies, is nothing to any other packet.
	deliver = 0x5137

	// deliverPriority is before whatever others do by policy, such as VPNs.
	deliverPriority = 163
)

// setDelivery has what is marked for our sockets and goes to one of pools
// delivered to this machine.
func (n *Network) setDelivery(pools []netip.Prefix) error {
	families := map[int]bool{}
	for _, pool := range pools {
		families[familyOf(pool)] = true
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if err := n.setRule(family, families[family]); err != nil {
			return err
		}
	}
	standing, err := n.delivered()
	if err != nil {
		return err
	}
	for _, r := range standing {
		if slices.Contains(pools, prefix(r.Dst)) {
			continue
		}
		if err := n.handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("removing local route %v: %w", r.Dst, err)
		}
	}
	for _, pool := range pools {
		if slices.ContainsFunc(standing, func(r netlink.Route) bool { return prefix(r.Dst) == pool }) {
			continue
		}
		if err := n.handle.RouteAdd(deliveryRoute(pool)); err != nil {
			return fmt.Errorf("adding local route %v: %w", pool, err)
		}
	}
	return nil
}

// loopback is the index of lo in every network namespace.
const loopback = 1

func deliveryRoute(pool netip.Prefix) *netlink.Route {
	return &netlink.Route{
		Dst: ipNet(pool), Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, LinkIndex: loopback, Protocol: protocol, Table: deliver,
	}
}

// delivered lists the routes of our table.
func (n *Network) delivered() ([]netlink.Route, error) {
	routes, err := whole(func() ([]netlink.Route, error) {
		return n.handle.RouteListFiltered(netlink.FAMILY_ALL,
			&netlink.Route{Protocol: protocol, Table: deliver}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("listing our local routes: %w", err)
	}
	return routes, nil
}

// setRule makes our rule of a family stand once, or not at all.
func (n *Network) setRule(family int, wanted bool) error {
	rules, err := whole(func() ([]netlink.Rule, error) { return n.handle.RuleList(family) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		err = nil // a kernel without the family, or without policy routing, fails to add a rule below
	}
	if err != nil {
		return fmt.Errorf("listing policy routing rules: %w", err)
	}
	stands := false
	for _, r := range rules {
		if r.Protocol != protocol {
			continue
		}
		if wanted && !stands && r.Mark == deliver && r.Table == deliver && r.Priority == deliverPriority {
			stands = true
			continue
		}
		if err := n.handle.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing policy routing rule %d: %w", r.Priority, err)
		}
	}
	if !wanted || stands {
		return nil
	}
	r := netlink.NewRule()
	r.Family, r.Priority, r.Mark, r.Table, r.Protocol = family, deliverPriority, deliver, deliver, protocol
	if err := n.handle.RuleAdd(r); err != nil {
		return fmt.Errorf("adding a policy routing rule for mark %#x: %w", deliver, err)
	}
	return nil
}

func familyOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// looseReverse returns the setting under which the kernel takes from link what
// has the address of a client, which it would send by another interface, and
// whether that is to be changed (RFC 3704, section 2.4).
func looseReverse(link string) (want setting, strict bool, err error) {
	want = setting{conf("ipv4", link, "rp_filter"), "2"}
	for _, key := range []string{conf("ipv4", "all", "rp_filter"), want.key} {
		value, err := readSysctl(key)
		if err != nil {
			return want, false, err
		}
		switch value { // the kernel heeds the greater
		case "2":
			return want, false, nil
		case "1":
			strict = true
		}
	}
	return want, strict, nil
}

// Backlog returns how many connections a socket may have waiting at most.
func Backlog() (int, error) {
	value, err := readSysctl("net.core.somaxconn")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(value)
}

// CheckHandover returns why the machine could not do what Handover of s asks
// for, whose ports do not matter. It changes nothing.
func CheckHandover(s State) error {
	if len(s.handedOver()) == 0 {
		return errors.New("no lan interface serves clients")
	}
	if err := CheckTable(s); err != nil {
		return err
	}
	if _, err := netlink.RuleList(netlink.FAMILY_V4); err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("listing policy routing rules: %w", err)
	}
	if assassination, err := readSysctl("net.ipv4.tcp_rfc1337"); err != nil || assassination != "0" {
		return errors.Join(err, errors.New("net.ipv4.tcp_rfc1337 is not 0, so that clients could not use a port again"))
	}
	link := s.Link
	if _, err := os.Stat(setting{key: conf("ipv4", link, "rp_filter")}.path()); err != nil {
		link = "default" // which it will take over
	}
	want, strict, err := looseReverse(link)
	if err != nil || !strict {
		return err
	}
	file, err := os.OpenFile(want.path(), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("net.ipv4.conf.%s.rp_filter is 1, and should be 2: %w", link, err)
	}
	return file.Close()
}
