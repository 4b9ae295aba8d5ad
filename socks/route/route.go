package route

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	"sixgate/socks"
)

// Flow is what a rule can look at.
type Flow struct {
	Network string // "tcp", "udp", or "icmp" for a ping, which has no port
	Bind    bool   // Dest is to connect, and not to be connected to
	Client  netip.Addr
	User    string // whom the client has proved to be, or ""
	Dest    socks.Addr
}

// Rule sends the flows that match it to an outlet. Each field that is not
// empty must match; a rule with none matches every flow.
type Rule struct {
	Names    []string       // patterns, see MatchName
	Networks []netip.Prefix // destination addresses; of a name, any of its addresses
	Clients  []netip.Prefix
	Users    []string
	Ports    []uint16 // destination ports
	Network  string   // "tcp", "udp" or "icmp"; "bind": of "tcp" what has Bind set
	Outlet   string
}

// bind is the Network of a rule for a SOCKS BIND.
const bind = "bind"

// Rules are tried in order.
type Rules []Rule

// Pick returns the outlet of the first rule that matches f, or "" when none
// does. addresses gives the addresses of a destination that is a name; it is
// called at most once, and only when a rule by network needs it.
func (rs Rules) Pick(f Flow, addresses func() []netip.Addr) string {
	var known []netip.Addr
	if !f.Dest.IsName() {
		known = []netip.Addr{f.Dest.IP}
	}
	for i := range rs {
		r := &rs[i]
		if !r.matchName(f.Dest.Name) || !r.matchClient(f.Client) || !r.matchUser(f.User) ||
			!r.matchPort(f.Dest.Port) || !r.matchNetwork(f) {
			continue
		}
		if len(r.Networks) > 0 {
			if known == nil {
				known = append([]netip.Addr{}, addresses()...)
			}
			if !slices.ContainsFunc(known, func(ip netip.Addr) bool { return contains(r.Networks, ip) }) {
				continue
			}
		}
		return r.Outlet
	}
	return ""
}

// Outlets returns those that flows like f may take, whatever the destination,
// at least one.
func (rs Rules) Outlets(f Flow) []string {
	var outlets []string
	for i := range rs {
		r := &rs[i]
		if !r.matchClient(f.Client) || !r.matchUser(f.User) || !r.matchNetwork(f) {
			continue
		}
		if !slices.Contains(outlets, r.Outlet) {
			outlets = append(outlets, r.Outlet)
		}
		if len(r.Names) == 0 && len(r.Networks) == 0 && len(r.Ports) == 0 {
			return outlets
		}
	}
	return append(outlets, "")
}

// ByNetwork reports whether any rule looks at the destination's address.
func (rs Rules) ByNetwork() bool {
	return slices.ContainsFunc(rs, func(r Rule) bool { return len(r.Networks) > 0 })
}

// OfName yields the rules that flows of client to name may take, as far as these
// two decide, in order, up to one that none of them passes. Rules by user and
// those for a BIND are passed over: DNS asks, for clients that are nobody and wait
// for nobody.
func (rs Rules) OfName(client netip.Addr, name string) iter.Seq[*Rule] {
	return func(yield func(*Rule) bool) {
		for i := range rs {
			r := &rs[i]
			if r.Network == bind || !r.matchUser("") || !r.matchName(name) || !r.matchClient(client) {
				continue
			}
			if !yield(r) || r.Whole() {
				return
			}
		}
	}
}

// Whole reports whether r is for all networks, ports and protocols.
func (r *Rule) Whole() bool { return len(r.Networks) == 0 && len(r.Ports) == 0 && r.Network == "" }

func (r *Rule) matchName(name string) bool {
	return len(r.Names) == 0 || name != "" && slices.ContainsFunc(r.Names, func(p string) bool { return MatchName(p, name) })
}

func (r *Rule) matchClient(ip netip.Addr) bool {
	return len(r.Clients) == 0 || contains(r.Clients, ip)
}

func (r *Rule) matchUser(user string) bool {
	return len(r.Users) == 0 || slices.Contains(r.Users, user)
}

func (r *Rule) matchPort(port uint16) bool {
	return len(r.Ports) == 0 || slices.Contains(r.Ports, port)
}

func (r *Rule) matchNetwork(f Flow) bool {
	return r.Network == "" || r.Network == f.Network || f.Bind && r.Network == bind
}

func contains(prefixes []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// MatchName reports whether name, in lower case without trailing dot, matches
// pattern: a name matches itself, and "*.example.com" matches every name below
// example.com but not example.com.
func MatchName(pattern, name string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(name, suffix) && len(name) > len(suffix)
	}
	return name == pattern
}
