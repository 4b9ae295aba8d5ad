package host

import (
	"fmt"
	"os"
)

// pingGroups is the range of groups that may open sockets for pings (icmp(7)).
const pingGroups = "net.ipv4.ping_group_range"

// pinging returns the setting that lets this process's group ping, if it is
// not so, and the journal to keep for it. A record of before stays as it is.
func pinging(before journal) (want []setting, after journal, err error) {
	value, err := readSysctl(pingGroups)
	if err != nil {
		return nil, nil, err
	}
	was, recorded := before.value(pingGroups)
	wanted := widen(value, os.Getegid())
	if wanted != value {
		want = []setting{{pingGroups, wanted}}
	}
	switch {
	case recorded:
		after = journal{{pingGroups, was}}
	case wanted != value:
		after = journal{{pingGroups, value}}
	}
	return want, after, nil
}

// widen returns a range of groups with one more in it; one that ends before it
// begins is empty.
func widen(groups string, group int) string {
	var first, last int
	if _, err := fmt.Sscan(groups, &first, &last); err != nil || first > last {
		first, last = group, group
	}
	return fmt.Sprintf("%d %d", min(first, group), max(last, group))
}
