package outlet

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"sixgate/socks"
)

// class is what the default policy of RFC 6724, section 2.1 says of a prefix.
type class struct {
	prefix            netip.Prefix
	precedence, label int
}

// classes are those of IPv6 addresses that may be dialled. Of IPv4 there is one.
var classes = []class{
	{netip.MustParsePrefix("2001::/32"), 5, 5},  // Teredo
	{netip.MustParsePrefix("2002::/16"), 30, 2}, // 6to4
	{netip.MustParsePrefix("fc00::/7"), 3, 13},  // of a site
	{netip.MustParsePrefix("fec0::/10"), 1, 11}, // of a site, once
	{netip.MustParsePrefix("3ffe::/16"), 1, 12}, // once a testbed's
	{netip.MustParsePrefix("::/96"), 1, 3},      // IPv4-compatible
	{netip.MustParsePrefix("::/0"), 40, 1},
}

func classOf(ip netip.Addr) class {
	return classes[slices.IndexFunc(classes, func(c class) bool { return c.prefix.Contains(ip) })]
}

// order sorts addresses of IPv6 as RFC 6724, section 6 wants: last those that
// have no source address, then those whose source is of another kind, then by
// precedence. The rules on scope have nothing to tell here, as link-local
// addresses are not dialled. Rule 9, the longest common prefix, is left out, as
// the section permits: it would send all clients to one of many equal servers,
// among which the order of DNS is to choose. So where all are of one kind, as
// nearly always, that order stays, and no source is asked for.
func (r *race) order(ctx context.Context, ips []netip.Addr) {
	if !slices.ContainsFunc(ips, func(ip netip.Addr) bool { return classOf(ip) != classOf(ips[0]) }) {
		return
	}
	ranks := make(map[netip.Addr]int, len(ips))
	for _, ip := range ips {
		ranks[ip] = r.rank(ctx, ip)
	}
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { return cmp.Compare(ranks[b], ranks[a]) })
}

// rank tells how good ip is to dial. A UDP socket that is connected to it, and
// sends nothing, has the source address that the kernel would take.
func (r *race) rank(ctx context.Context, ip netip.Addr) int {
	conn, err := r.dial(ctx, "udp", netip.AddrPortFrom(ip, r.dest.Port))
	if err != nil {
		return 0
	}
	defer conn.Close()
	to := classOf(ip)
	if classOf(socks.AddrPortOf(conn.LocalAddr()).Addr()).label == to.label {
		return 100 + to.precedence
	}
	return to.precedence
}
