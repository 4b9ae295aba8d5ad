package host

import (
	"errors"
	"io/fs"
	"slices"
)

// deafening returns the settings by which the kernel heeds no router
// advertisements on s.Sole, and the journal to keep for them. Records of before
// stay as they are.
func (s State) deafening(before journal) (want []setting, after journal, err error) {
	for _, iface := range s.Sole {
		key := conf("ipv6", iface, "accept_ra")
		value, err := readSysctl(key)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is gone, or has no IPv6
		}
		if err != nil {
			return nil, nil, err
		}
		if value != "0" {
			want = append(want, setting{key, "0"})
		}
		if was, recorded := before.value(key); recorded {
			after = append(after, setting{key, was})
		} else if value != "0" {
			after = append(after, setting{key, value})
		}
	}
	return want, after, nil
}

// deafens reports whether a record is of deafening some interface of the LAN,
// where forwarding changes nothing of the kind.
func (s State) deafens(record setting) bool {
	return slices.ContainsFunc(s.LAN, func(iface string) bool { return record.key == conf("ipv6", iface, "accept_ra") })
}
