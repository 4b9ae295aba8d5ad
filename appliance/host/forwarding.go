package host

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
)

// forwarding returns the settings that s wants, in the order to write them,
// and the journal to keep for them. Records of before that s still needs stay
// as they are: what the kernel has now may be a killed gateway's doing.
func (s State) forwarding(before journal) (want []setting, after journal, err error) {
	var families []string
	if s.Forward4 {
		families = append(families, "ipv4")
	}
	if s.Forward6 {
		families = append(families, "ipv6")
	}
	for _, family := range families {
		w, a, err := s.forward(family, before)
		if err != nil {
			return nil, nil, err
		}
		want, after = append(want, w...), append(after, a...)
	}
	return want, after, nil
}

func (s State) forward(family string, before journal) (want []setting, after journal, err error) {
	for _, b := range before {
		if strings.HasPrefix(b.key, "net."+family+".conf.") && !s.deafens(b) {
			after = append(after, b)
		}
	}
	all := conf(family, "all", "forwarding")
	if len(after) == 0 {
		value, err := readSysctl(all)
		if err != nil || value != "0" {
			return nil, nil, err // on before us: all that depends on it is the operator's
		}
		if after, err = record(family); err != nil {
			return nil, nil, err
		}
	}
	if family == "ipv6" {
		if want, after, err = s.keepRoutes(after); err != nil {
			return nil, nil, err
		}
	}
	return append(want, setting{all, "1"}), after, nil
}

// record returns what turning a family's forwarding on, and off again,
// changes: the kernel copies the value to every interface, and for IPv4 it
// turns the acceptance of redirects the other way.
func record(family string) (journal, error) {
	all := conf(family, "all", "forwarding")
	before := journal{{all, "0"}}
	found, err := interfaces(family)
	if err != nil {
		return nil, err
	}
	for _, iface := range found {
		key := conf(family, iface, "forwarding")
		value, err := readSysctl(key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if value != "0" {
			before = append(before, setting{key, value})
		}
	}
	if family == "ipv4" {
		key := conf(family, "all", "accept_redirects")
		value, err := readSysctl(key)
		if err != nil {
			return nil, err
		}
		before = append(before, setting{key, value})
	}
	return before, nil
}

// keepRoutes wants accept_ra=2 where the kernel heeds router advertisements
// only as long as it does not forward (accept_ra=1); such an uplink would
// lose its default route. Interfaces that did not heed them are left alone: a
// network of containers must not start to.
func (s State) keepRoutes(before journal) (want []setting, after journal, err error) {
	found, err := interfaces("ipv6")
	if err != nil {
		return nil, nil, err
	}
	after = before
	for _, iface := range found {
		_, forwarded := before.value(conf("ipv6", iface, "forwarding"))
		if forwarded || iface == "default" || iface == "lo" || iface == s.Link || slices.Contains(s.LAN, iface) {
			continue
		}
		key := conf("ipv6", iface, "accept_ra")
		value, recorded := before.value(key)
		if !recorded {
			value, err = readSysctl(key)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, nil, err
			}
		}
		if value != "1" {
			continue
		}
		want = append(want, setting{key, "2"})
		if !recorded {
			after = append(after, setting{key, value})
		}
	}
	return want, after, nil
}
