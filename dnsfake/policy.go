package dnsfake

import (
	"fmt"
	"strings"
)

// Policy is how a Server treats names, as its operator chose. It does not
// change; another takes its place.
type Policy struct {
	bypass   patterns
	special  map[string]treatment // by zone
	newNames int
}

// NewPolicy returns the Policy in which bypass, "a.example" or "*.example" for
// all names below it, is answered with the real data, the upstream servers are
// asked even of the special-use zones known, such as "test", and a client may
// have a fake address for so many names a second that have none yet, and 20
// times as many at once. newNames of 0 is any number.
func NewPolicy(bypass, known []string, newNames int) (*Policy, error) {
	real, err := newPatterns(append(realNames(), bypass...))
	if err != nil {
		return nil, fmt.Errorf("making a policy: %w", err)
	}
	p := &Policy{bypass: real, special: specialZones(), newNames: newNames}
	for _, zone := range known {
		delete(p.special, key(zone))
	}
	return p, nil
}

// Bypasses reports whether name, in lower case without final dot, is answered
// with the real data.
func (p *Policy) Bypasses(name string) bool { return p.bypass.match(name) }

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
