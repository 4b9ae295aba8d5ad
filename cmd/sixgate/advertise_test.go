package main

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// advertiseSettings are those of a gateway that a LAN of IPv6 alone needs no
// other router for.
const advertiseSettings = `
[lan]
interfaces = ["lan0", "lan6"]
[advertise]
interfaces = ["lan6"]
router     = true
prefixes   = true
[dns]
upstreams = ["udp://203.0.113.53:53"]
`

// testAdvertised has a host that knows nothing but what routers tell it.
func testAdvertised(t *testing.T, n *namespaces) {
	if _, err := exec.LookPath("rdisc6"); err != nil {
		t.Skip("needs what scripts/setup installs: ", err)
	}
	n.run(t, "lan6", "sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra_rt_info_max_plen=128")
	n.run(t, "lan6", "ip", "-6", "address", "flush", "dev", "eth0", "scope", "global")
	n.run(t, "lan6", "ip", "-6", "route", "flush", "default")
	defer func() {
		n.run(t, "lan6", "sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra_rt_info_max_plen=0")
		n.run(t, "lan6", "ip", "-6", "route", "flush", "proto", "ra")
		n.run(t, "lan6", "ip", "-6", "address", "flush", "dev", "eth0", "scope", "global")
		n.run(t, "lan6", "ip", "address", "add", "fd00:77::2/64", "dev", "eth0")
		n.run(t, "lan6", "ip", "route", "add", "default", "via", "fd00:77::1")
	}()
	t.Run("BesideRadvd", func(t *testing.T) { testBesideRadvd(t, n) })
	gate := n.serve(t, "gate", advertiseSettings)
	t.Run("Told", func(t *testing.T) { testTold(t, n) })
	t.Run("Used", func(t *testing.T) { testUsed(t, n) })
	t.Run("Forged", func(t *testing.T) { testForged(t, n) })
	gate.stop(t)
	n.awaitRoutes(t, "lan6", "proto ra", func(routes string) bool { return routes == "" })
	if addresses := n.run(t, "lan6", "ip", "-6", "address", "show", "dev", "eth0", "scope", "global"); !strings.Contains(addresses, "fd00:77::") {
		t.Errorf("the host has lost its address:\n%s", addresses)
	}
	t.Run("Killed", func(t *testing.T) {
		gate := n.serve(t, "gate", advertiseSettings)
		n.awaitRoutes(t, "lan6", "2001:2::/48", func(routes string) bool { return routes != "" })
		gate.kill(t)
		n.run(t, "gate", n.binary, "cleanup", "--config", n.config("gate"))
		for _, seconds := range regexp.MustCompile(`expires (\d+)sec`).FindAllStringSubmatch(n.run(t, "lan6", "ip", "-6", "route", "show", "proto", "ra"), -1) {
			if left, err := strconv.Atoi(seconds[1]); err != nil || left > 600 {
				t.Errorf("a dead router is believed for %s s", seconds[1])
			}
		}
	})
}

// testTold wants a host that solicits to be told all.
func testTold(t *testing.T, n *namespaces) {
	told := n.run(t, "lan6", "rdisc6", "--single", "--retry", "5", "eth0")
	for _, want := range []string{
		`Router lifetime\s*:\s*600 `,
		`Prefix\s*: fd00:77::/64\n  On-link\s*:\s*Yes\n  Autonomous address conf.:\s*Yes\n  Valid time\s*:\s*5400 .*\n  Pref. time\s*:\s*2700 `,
		`Route\s*: 2001:2::/48\n.*\n  Route lifetime\s*:\s*600 `,
		`Route\s*: 64:ff9b::/96\n`,
		`Recursive DNS server\s*: fd00:77::1\n  DNS server lifetime\s*:\s*600 `,
		` from fe80:`,
	} {
		if !regexp.MustCompile(want).MatchString(told) {
			t.Errorf("no %q in\n%s", want, told)
		}
	}
	s := n.status(t)
	if len(s.Advertised) != 1 || s.Advertised[0].Sent == 0 || s.Advertised[0].Solicited == 0 ||
		!strings.HasSuffix(s.Advertised[0].What, "NAT64 64:ff9b::/96") {
		t.Errorf("status has %+v", s.Advertised)
	}
}

// testBesideRadvd has radvd on the gateway's machine, which makes it the default
// router. Both are one router to hosts, and neither takes back what the other
// has said.
func testBesideRadvd(t *testing.T, n *namespaces) {
	if _, err := exec.LookPath("radvd"); err != nil {
		t.Skip("needs what scripts/setup installs: ", err)
	}
	// As where radvd runs. If only the gateway let it forward, the machine would
	// say that it is no router any more, when asked for its link-layer address.
	n.run(t, "gate", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
	defer n.run(t, "gate", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")
	gate := n.serve(t, "gate", strings.ReplaceAll(advertiseSettings, "= true", "= false"))
	file := filepath.Join(n.dir, "radvd.conf")
	text := "interface lan6 { AdvSendAdvert on; AdvDefaultLifetime 1800; };\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	radvd := n.command(ctx, "gate", "radvd", "-n", "-m", "stderr", "-p", filepath.Join(n.dir, "radvd.pid"), "-C", file)
	radvd.Cancel = func() error { return radvd.Process.Signal(syscall.SIGTERM) }
	if err := radvd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		radvd.Wait()
	}()
	there := func(routes string) bool { return strings.Contains(routes, "proto ra") }
	n.awaitRoutes(t, "lan6", "default", there)
	before := n.status(t).Advertised[0].Sent
	n.run(t, "lan6", "rdisc6", "--single", "--retry", "5", "eth0")
	for end := time.Now().Add(patience); n.status(t).Advertised[0].Sent == before; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the gateway does not advertise")
		}
	}
	if routes := n.run(t, "lan6", "ip", "-6", "route", "show", "default"); !there(routes) {
		t.Errorf("radvd's default route is gone: %q", routes)
	}
	n.awaitRoutes(t, "lan6", "2001:2::/48", there)
	gate.stop(t)
	n.awaitRoutes(t, "lan6", "2001:2::/48", func(routes string) bool { return routes == "" })
	if routes := n.run(t, "lan6", "ip", "-6", "route", "show", "default"); !there(routes) {
		t.Errorf("the gateway has taken radvd's default route with it: %q", routes)
	}
}

// testUsed has the host use what it was told.
func testUsed(t *testing.T, n *namespaces) {
	for _, pool := range []string{"2001:2::/48", "64:ff9b::/96", "default"} {
		n.awaitRoutes(t, "lan6", pool, func(routes string) bool {
			return strings.Contains(routes, "proto ra") && strings.Contains(routes, "via fe80:")
		})
	}
	for _, host := range []string{"v4only.test", "[64:ff9b::203.0.113.80]"} {
		if greeting := n.run(t, "lan6", "curl", "-sS", "http://"+host+"/"); !strings.HasSuffix(greeting, "(IPv4 only) greets 203.0.113.1\n") {
			t.Errorf("at %s the server said %q", host, greeting)
		}
	}
	if from := n.run(t, "lan6", "ip", "-6", "route", "get", "2001:2::99"); !strings.Contains(from, "src fd00:77:") {
		t.Errorf("the host has no address of its own:\n%s", from)
	}
}

// testForged has a neighbour say in the gateway's name, and then in its own, that
// the gateway's word is no more.
func testForged(t *testing.T, n *namespaces) {
	own := regexp.MustCompile(`fe80::[0-9a-f:]+`).FindString(n.run(t, "gate", "ip", "-6", "address", "show", "dev", "lan6", "scope", "link"))
	n.run(t, "lan6", "ip", "address", "add", own+"/128", "dev", "eth0", "nodad")
	noRouter := []byte{134, 15: 0}
	n.advertise(t, "lan6", "eth0", own, noRouter)
	n.run(t, "lan6", "ip", "address", "del", own+"/128", "dev", "eth0")
	noPrefix := slices.Concat(noRouter, []byte{3, 4, 64, 3 << 6, 15: 0}, netip.MustParseAddr("fd00:77::").AsSlice())
	n.advertise(t, "lan6", "eth0", "", noPrefix)
	var contradicted uint64
	n.await(t, "the neighbour's own word", func() bool {
		contradicted = n.status(t).Advertised[0].Contradicted
		return contradicted > 0
	})
	if contradicted != 1 {
		t.Errorf("the gateway has heard %d others who say otherwise", contradicted)
	}
}

// awaitRoutes waits until the IPv6 routes of a host that match suit.
func (n *namespaces) awaitRoutes(t *testing.T, host, match string, suit func(routes string) bool) {
	t.Helper()
	var routes string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		routes = n.run(t, host, append([]string{"ip", "-6", "route", "show"}, strings.Fields(match)...)...)
		if suit(routes) {
			return
		}
	}
	t.Fatalf("on %s the routes of %s are\n%s", host, match, routes)
}
