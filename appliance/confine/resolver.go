package confine

import (
	"net/netip"
	"slices"
	"strings"
)

// resolvConf returns host, the text of the machine's resolv.conf(5), with one
// server in the place of its own.
func resolvConf(host string, server netip.Addr) string {
	text := "nameserver " + server.String() + "\n"
	for line := range strings.Lines(host) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] != "nameserver" {
			text += line
		}
	}
	return text
}

// nsswitch returns host, the text of the machine's nsswitch.conf(5), in which
// host names come from files and DNS alone. Other modules, such as resolve and
// mdns, ask daemons outside through sockets of the file system.
func nsswitch(host string) string {
	var text strings.Builder
	for line := range strings.Lines(host) {
		sources, hosts := strings.CutPrefix(strings.TrimSpace(line), "hosts:")
		switch {
		case !hosts:
			text.WriteString(line)
		case slices.Contains(strings.Fields(sources), "myhostname"): // asks nobody
			text.WriteString("hosts: files myhostname dns\n")
		default:
			text.WriteString("hosts: files dns\n")
		}
	}
	return text.String()
}
