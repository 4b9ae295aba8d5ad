package host

import (
	"fmt"
	"net/netip"
	"strings"
)

// table returns the nft text that replaces our table in one transaction. It
// keeps the journal, for whoever cleans up after a killed gateway. An accept
// here does not overrule a drop in another table.
func (s State) table(before journal) string {
	var b strings.Builder
	b.WriteString("add table inet sixgate\ndelete table inet sixgate\ntable inet sixgate {\n")
	if len(before) > 0 {
		chain(&b, "restore", "", before.rules()...)
	}
	chain(&b, "absent", "filter hook prerouting priority filter", s.absent()...)
	chain(&b, "guard", "filter hook forward priority filter", s.guard()...)
	chain(&b, "own", "filter hook input priority filter", s.own()...)
	chain(&b, "world", "filter hook postrouting priority filter", s.world()...)
	chain(&b, "refuse", "",
		"meta l4proto tcp reject with tcp reset",
		"reject with icmpx admin-prohibited")
	if s.CaptureDNS != 0 {
		chain(&b, "capture", "nat hook prerouting priority dstnat", s.capture()...)
	}
	if s.Masquerade {
		chain(&b, "uplink", "nat hook postrouting priority srcnat",
			fmt.Sprintf("iifname %s oifname != %s meta nfproto ipv4 masquerade",
				names(s.LAN...), names(append([]string{s.Link}, s.LAN...)...)))
	}
	if len(s.Handover) > 0 {
		chain(&b, "handover", "filter hook prerouting priority mangle", s.handover()...)
		chain(&b, "kernel", "", s.kernel()...)
	}
	b.WriteString("}\n")
	return b.String()
}

// guard is what forwarding must not do: let strangers into the pools, let
// clients pretend to be in one, send what is for a pool to the world and, where
// that is wanted, let clients ask DNS where the gateway cannot answer.
func (s State) guard() []string {
	rules := []string{fmt.Sprintf("iifname != %s oifname %q drop", names(s.LAN...), s.Link)}
	if s.RefuseDoT {
		rules = append(rules,
			fmt.Sprintf("iifname %s meta l4proto { tcp, udp } th dport 853 goto refuse", names(s.LAN...)),
			fmt.Sprintf("iifname %s udp dport 8853 goto refuse", names(s.LAN...))) // of QUIC, before RFC 9250
	}
	for _, pool := range s.ours() {
		family := family(pool.Addr())
		rules = append(rules,
			fmt.Sprintf("iifname %s %s saddr %v drop", names(s.LAN...), family, pool),
			fmt.Sprintf("oifname != %q %s daddr %v goto refuse", s.Link, family, pool))
	}
	return rules
}

// absent is for as long as the link is not there, as after a gateway was killed:
// to the kernel the pools are unreachable then, which would end no connection
// that stands and says of others what is not so. fib sees no interface for the
// gateway's own addresses either.
func (s State) absent() []string {
	var rules []string
	for _, pool := range s.ours() {
		rules = append(rules, fmt.Sprintf("iifname %s meta l4proto tcp %s daddr %v fib daddr oif missing fib daddr type != local goto refuse",
			names(s.LAN...), family(pool.Addr()), pool))
	}
	return rules
}

// own is what strangers must not reach of the machine itself, which takes
// packets for any of its addresses from any interface: the gateway's
// addresses in the pools, and the sockets that serve the LAN.
func (s State) own() []string {
	rules := []string{fmt.Sprintf("iifname %s accept", names(append([]string{"lo", s.Link}, s.LAN...)...))}
	for _, pool := range s.ours() {
		rules = append(rules, fmt.Sprintf("%s daddr %v drop", family(pool.Addr()), pool))
	}
	for _, socket := range s.Private {
		rules = append(rules, fmt.Sprintf("%s daddr %v meta l4proto { tcp, udp } th dport %d drop",
			family(socket.Addr()), socket.Addr().WithZone(""), socket.Port()))
	}
	return rules
}

// family returns what nft calls the family of ip.
func family(ip netip.Addr) string {
	if ip.Is4() {
		return "ip"
	}
	return "ip6"
}

// world is what must not leave towards strangers: addresses of the pools,
// also where the route to a client is gone.
func (s State) world() []string {
	rules := []string{fmt.Sprintf("oifname %s accept", names(append([]string{"lo", s.Link}, s.LAN...)...))}
	for _, pool := range s.ours() {
		for _, end := range []string{"saddr", "daddr"} {
			rules = append(rules, fmt.Sprintf("%s %s %v drop", family(pool.Addr()), end, pool))
		}
	}
	return rules
}

// handover is what the kernel may have of the pools: TCP, and what ICMP tells
// of it.
func (s State) handover() []string {
	var rules []string
	for _, pool := range s.handedOver() {
		icmp := "icmp"
		if pool.Addr().Is6() {
			icmp = "ipv6-icmp"
		}
		rules = append(rules, fmt.Sprintf("%s daddr %v iifname %s meta l4proto { tcp, %s } goto kernel",
			family(pool.Addr()), pool, names(append([]string{s.Link}, s.LAN...)...), icmp))
	}
	return rules
}

// kernel has the kernel take what belongs to a socket of ours, but to the
// listening one SYNs alone that the gateway gives back. A SYN for a socket in
// TIME_WAIT must not go on either, as Linux forwards no packet that it has a
// socket for. It is answered by an ACK, whereupon the client ends that state by
// an RST, and sends its SYN again.
func (s State) kernel() []string {
	const isSYN = "tcp flags & (fin | syn | rst | ack) == syn"
	var rules []string
	for _, socket := range s.Handover {
		family, protocol := family(socket.Addr()), "ipv4"
		if family == "ip6" {
			protocol = "ipv6"
		}
		rules = append(rules, fmt.Sprintf("iifname %q meta nfproto %s %s tproxy %s to %v meta mark set %#x accept",
			s.Link, protocol, isSYN, family, socket, deliver))
	}
	return append(rules, fmt.Sprintf("socket transparent 1 meta mark set %#x", deliver))
}

// handedOver returns the pools of the families that have a socket to take
// their connections.
func (s State) handedOver() []netip.Prefix {
	var pools []netip.Prefix
	for _, pool := range s.Pools {
		for _, socket := range s.Handover {
			if len(s.LAN) > 0 && pool.Addr().Is4() == socket.Addr().Is4() {
				pools = append(pools, pool)
			}
		}
	}
	return pools
}

func (s State) capture() []string {
	var rules []string
	if s.Mark != 0 {
		rules = append(rules, fmt.Sprintf("meta mark %#x accept", s.Mark))
	}
	return append(rules, fmt.Sprintf(
		"iifname %s meta l4proto { tcp, udp } th dport 53 redirect to :%d", names(s.LAN...), s.CaptureDNS))
}

// chain appends a chain; one without hook runs only when jumped to.
func chain(b *strings.Builder, name, hook string, rules ...string) {
	fmt.Fprintf(b, "\tchain %s {\n", name)
	if hook != "" {
		fmt.Fprintf(b, "\t\ttype %s; policy accept;\n", hook)
	}
	for _, rule := range rules {
		fmt.Fprintf(b, "\t\t%s\n", rule)
	}
	b.WriteString("\t}\n")
}

// names returns an nft set of interface names.
func names(interfaces ...string) string {
	return `{ "` + strings.Join(interfaces, `", "`) + `" }`
}
