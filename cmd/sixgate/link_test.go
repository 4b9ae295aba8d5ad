package main

import (
	"context"
	"regexp"
	"strings"
	"testing"
)

// testReplacedLink has an interface of the LAN made anew while the gateway runs,
// with the same addresses, and wants DNS at each of them as before. Who asks at
// the link-local one has the families of that interface.
func testReplacedLink(t *testing.T, n *namespaces) {
	gate := n.serve(t, "gate", settings)
	own := regexp.MustCompile(`fe80::[0-9a-f:]+`).FindString(n.run(t, "gate", "ip", "-6", "address", "show", "dev", "lan6", "scope", "link"))
	served := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for _, server := range []string{own + "%eth0", "fd00:77::1"} {
			for _, way := range []string{"+notcp", "+tcp"} {
				answer, err := n.command(ctx, "lan6", "dig", "+short", "+time=1", "+tries=1", way, "@"+server, "v4only.test", "AAAA").Output()
				if err != nil || !strings.HasPrefix(string(answer), "2001:2:") {
					return false
				}
			}
		}
		return true
	}
	n.await(t, "DNS at all addresses", served)
	mac := strings.TrimSpace(n.run(t, "gate", "cat", "/sys/class/net/lan6/address"))
	n.run(t, "gate", "ip", "link", "del", "lan6")
	n.run(t, "gate", "ip", "link", "add", "lan6", "address", mac, "type", "veth", "peer", "name", "eth0", "netns", n.prefix+"-lan6")
	n.run(t, "gate", "ip", "link", "set", "lan6", "up")
	n.run(t, "lan6", "ip", "link", "set", "eth0", "up")
	n.run(t, "gate", "ip", "address", "add", "fd00:77::1/64", "dev", "lan6")
	n.run(t, "lan6", "ip", "address", "add", "fd00:77::2/64", "dev", "eth0")
	n.run(t, "lan6", "ip", "route", "add", "default", "via", "fd00:77::1")
	n.await(t, "DNS at the addresses of the new interface", served)
	gate.stop(t)
}
