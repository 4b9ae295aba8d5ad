package dnsfake

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Policy is how a Server treats names, as its operator chose. It does not
// change; another takes its place.
type Policy struct {
	bypass     patterns
	bypassNets []netip.Prefix
	special    map[string]treatment // by zone
	newNames   int
	noHTTPS    bool
}

// PolicyConfig is what an operator can choose.
type PolicyConfig struct {
	// Bypass are the names that are answered with the real data: "a.example",
	// "*.example" for all below it, or "192.0.2.0/24" for those that have no
	// other addresses of the family.
	Bypass []string
	// Known are special-use zones, such as "test", that the upstream servers are
	// asked of all the same.
	Known []string
	// NewNames is for how many names a second that have no fake address yet a
	// client may have one; at once 20 times as many. 0: any number.
	NewNames int
	// NoHTTPS says that no name has HTTPS or SVCB records (RFC 9460).
	NoHTTPS bool
}

// NewPolicy returns the Policy of c.
func NewPolicy(c PolicyConfig) (*Policy, error) {
	p := &Policy{special: specialZones(), newNames: c.NewNames, noHTTPS: c.NoHTTPS}
	names := realNames()
	for _, text := range c.Bypass {
		if net, err := netip.ParsePrefix(text); err == nil {
			p.bypassNets = append(p.bypassNets, net)
		} else {
			names = append(names, text)
		}
	}
	var err error
	if p.bypass, err = newPatterns(names); err != nil {
		return nil, fmt.Errorf("making a policy: %w", err)
	}
	for _, zone := range c.Known {
		delete(p.special, key(zone))
	}
	return p, nil
}

// Bypasses reports whether name, in lower case without final dot, is answered
// with the real data.
func (p *Policy) Bypasses(name string) bool { return p.bypass.match(name) }

// bypassesAll reports whether a name with no other addresses of their family than
// ips is answered with them.
func (p *Policy) bypassesAll(ips ...netip.Addr) bool {
	if len(p.bypassNets) == 0 {
		return false
	}
	passes := func(ip netip.Addr) bool {
		return slices.ContainsFunc(p.bypassNets, func(net netip.Prefix) bool { return net.Contains(ip) })
	}
	return !slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !passes(ip) })
}

// SpecialZone returns the zone, which no upstream server is asked about, that
// name is in. name is in lower case without final dot. "" is none.
func (p *Policy) SpecialZone(name string) string {
	for zone := name; zone != ""; _, zone, _ = strings.Cut(zone, ".") {
		if p.special[zone] != ordinary {
			return zone
		}
	}
	return ""
}

// realNames are always answered as upstream does: systems find out with these
// whether they are online, some by the address itself.
func realNames() []string {
	return []string{
		"dns.msftncsi.com", "*.msftconnecttest.com", "captive.apple.com",
		"connectivitycheck.gstatic.com",
	}
}
