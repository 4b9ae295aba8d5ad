package dnsfake

import (
	"fmt"
	"strings"
)

// Names are in the presentation form of RFC 1035, section 5.1 as the message
// codec writes it: printable ASCII, with octets that have a meaning there
// escaped. So comparing text is comparing octets.

// key returns name in lower case, which for DNS is that of ASCII alone (RFC
// 4343), and without its final dot. The root is "".
func key(name string) string {
	if strings.HasSuffix(name, ".") && !strings.HasSuffix(name, `\.`) {
		name = name[:len(name)-1]
	}
	for i := range len(name) {
		if 'A' <= name[i] && name[i] <= 'Z' {
			return lower(name)
		}
	}
	return name
}

func lower(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// relayable reports whether name, in the form of key, can travel as a SOCKS5
// DOMAINNAME (RFC 1928, section 5) to a server that expects a host name.
func relayable(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for _, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

// patterns is a set of names: exact ones, and with "*." in front all names
// below one.
type patterns struct{ exact, below map[string]bool }

func newPatterns(texts []string) (patterns, error) {
	p := patterns{exact: make(map[string]bool), below: make(map[string]bool)}
	for _, text := range texts {
		set := p.exact
		name, ok := strings.CutPrefix(key(text), "*.")
		if ok {
			set = p.below
		}
		if name == "" || strings.Contains(name, "*") {
			return patterns{}, fmt.Errorf("reading pattern %q: neither a name nor *.name", text)
		}
		set[name] = true
	}
	return p, nil
}

// match reports whether name, in the form of key, is in the set.
func (p patterns) match(name string) bool {
	if p.exact[name] {
		return true
	}
	for {
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return false
		}
		if p.below[parent] {
			return true
		}
		name = parent
	}
}
