package host

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func prefixOf(texts ...string) []netip.Prefix {
	var found []netip.Prefix
	for _, text := range texts {
		found = append(found, netip.MustParsePrefix(text))
	}
	return found
}

// full is a state that uses everything.
func full() State {
	return State{
		Link:       "sixgate0",
		MTU:        1400,
		Addresses:  prefixOf("198.18.0.1/15", "2001:2::1/48"),
		Pools:      prefixOf("198.18.0.0/15", "2001:2::/48"),
		LAN:        []string{"lan0"},
		Private:    []netip.AddrPort{netip.MustParseAddrPort("192.168.77.1:53"), netip.MustParseAddrPort("[fe80::1%lan0]:53")},
		Forward4:   true,
		Forward6:   true,
		CaptureDNS: 5364,
		Masquerade: true,
		Mark:       0x5136,
		Handover:   []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5000"), netip.MustParseAddrPort("[::1]:5001")},
	}
}

// router makes the test's namespace a host with a LAN, an uplink that heeds
// router advertisements, a name with a dot, and settings that are somebody
// else's.
func router(t *testing.T) {
	t.Helper()
	enter(t)
	for _, line := range []string{
		"ip link add lan0 type veth peer name lan1",
		"ip link add wan0 type veth peer name wan1",
		"ip link add wan1.7 type veth peer name wan1.8",
		"ip link set lan0 addrgenmode none up", "ip link set lan1 addrgenmode none up",
		"ip link set wan0 addrgenmode none up", "ip link set wan1 addrgenmode none up",
		"ip addr add 192.168.77.1/24 dev lan0",
		"ip addr add 203.0.113.1/24 dev wan0",
		"ip addr add 2001:db8:1::1/64 dev wan0 nodad",
		"ip route add default via 203.0.113.2",
		"ip -6 route add default via 2001:db8:1::2 proto ra",
		"ip route add 198.51.100.0/24 via 203.0.113.9 proto 186",
		"ip route add unreachable 10.0.0.0/8 metric 4278198272",
		"ip rule add from 192.0.2.9 lookup 77 pref 5000",
		"nft add table inet other",
		"nft add chain inet other restore",
		"nft add rule inet other restore return comment \"net.ipv4.conf.all.forwarding=9\"",
		"sysctl -q net.ipv4.conf.all.accept_redirects=0",
		"sysctl -q net.ipv4.conf.all.rp_filter=1",
		"sysctl -q net.ipv4.conf.wan1/7.forwarding=1",
		"sysctl -q net.ipv6.conf.lan1.forwarding=1",
		"sysctl -q net.ipv6.conf.wan0.accept_ra=1",
	} {
		sh(t, line)
	}
}

func network(t *testing.T) *Network {
	t.Helper()
	n, err := New(nil)
	must(t, err)
	return n
}

func contains(t *testing.T, line string, wants ...string) {
	t.Helper()
	out := sh(t, line)
	for _, want := range wants {
		if !strings.Contains(out, want) {
			t.Errorf("%s: want %q in\n%s", line, want, out)
		}
	}
}

func TestSetAndClose(t *testing.T) {
	router(t)
	tun(t, "sixgate0")
	before := snapshot(t)
	n := network(t)
	must(t, n.Set(full()))

	contains(t, "ip addr show sixgate0", "mtu 1400", "qlen 1000", "inet 198.18.0.1/15 scope global", "inet6 2001:2::1/48 scope global nodad")
	contains(t, "ip route show table all proto 163", "unreachable 198.18.0.0/15")
	contains(t, "ip -6 route show table all proto 163", "unreachable 2001:2::/48")
	contains(t, "ip route get 198.18.0.5", "dev sixgate0")
	contains(t, "ip route get 198.18.0.5 mark 0x5137", "local 198.18.0.5")
	contains(t, "ip route get 2001:2::5 mark 0x5137", "local 2001:2::5")
	contains(t, "ip route get 203.0.113.2 mark 0x5137", "dev wan0")
	contains(t, "ip route get 2001:2::5", "dev sixgate0")
	contains(t, "ip -6 route show default", "via 2001:db8:1::2")
	contains(t, "nft list table inet sixgate", "redirect to :5364", "masquerade", "net.ipv6.conf.wan0.accept_ra=1")
	for key, want := range map[string]string{
		"net.ipv4.ip_forward":              "1",
		"net.ipv4.conf.sixgate0.rp_filter": "2",
		"net.ipv6.conf.all.forwarding":     "1",
		"net.ipv6.conf.wan0.accept_ra":     "2",
		"net.ipv6.conf.lan0.accept_ra":     "1",
		"net.ipv6.conf.lan1.accept_ra":     "1", // it forwarded before, so it heeded none
		"net.ipv6.conf.lan1.forwarding":    "1",
	} {
		if got, err := readSysctl(key); got != want || err != nil {
			t.Errorf("%s = %q, %v, want %s", key, got, err, want)
		}
	}

	once := snapshot(t) + sh(t, "nft -a list table inet sixgate")
	must(t, n.Set(full()))
	same(t, "set twice", once, snapshot(t)+sh(t, "nft -a list table inet sixgate"))

	must(t, n.Close())
	same(t, "closed", before, snapshot(t))
	must(t, n.Close())
	if err := n.Set(full()); err == nil {
		t.Error("Set after Close succeeded")
	}
}

func TestSetChanges(t *testing.T) {
	router(t)
	tun(t, "sixgate0")
	before := snapshot(t)
	n := network(t)
	must(t, n.Set(full()))

	changed := full()
	changed.Pools = prefixOf("198.18.0.0/16")
	changed.Addresses = prefixOf("198.18.0.1/16")
	changed.Forward6 = false
	changed.CaptureDNS = 0
	must(t, n.Set(changed))
	contains(t, "ip route show table all proto 163", "unreachable 198.18.0.0/16")
	if out := sh(t, "ip -6 route show table all proto 163"); out != "" {
		t.Errorf("routes of the pool that is gone: %s", out)
	}
	if out := sh(t, "ip -o addr show sixgate0 scope global"); strings.Count(out, "\n") != 1 {
		t.Errorf("addresses: %s", out)
	}
	if got, _ := readSysctl("net.ipv6.conf.all.forwarding"); got != "0" {
		t.Errorf("IPv6 forwarding is %s when no longer wanted", got)
	}
	if got, _ := readSysctl("net.ipv6.conf.wan0.accept_ra"); got != "1" {
		t.Errorf("accept_ra is %s when forwarding is no longer wanted", got)
	}

	sh(t, "nft flush ruleset") // as a reload of nftables.service does
	must(t, n.Set(full()))
	contains(t, "nft list table inet sixgate", "net.ipv4.conf.all.forwarding=0")
	sh(t, "nft flush ruleset")

	alone := full()
	alone.LAN = nil
	must(t, n.Set(alone))
	if out := sh(t, "nft list ruleset"); out != "" {
		t.Errorf("without LAN: %s", out)
	}
	must(t, n.Close())
	tables := before[strings.Index(before, "# nft list ruleset"):strings.Index(before, sysctls)]
	same(t, "closed", strings.Replace(before, tables, "# nft list ruleset\n", 1), snapshot(t))
}

func TestCheckTable(t *testing.T) {
	enter(t)
	before := snapshot(t)
	s := full()
	must(t, CheckTable(s))
	s.Link = strings.Repeat("x", unix.IFNAMSIZ) // one more than a name has
	if err := CheckTable(s); err == nil {
		t.Error("the kernel takes a name that no interface can have")
	}
	same(t, "checked", before, snapshot(t))
}

// TestFlushedMeanwhile has the ruleset flushed again and again while the gateway
// looks at it.
func TestFlushedMeanwhile(t *testing.T) {
	enter(t)
	sh(t, "ip link add lan0 type veth peer name lan1")
	tun(t, "sixgate0")
	before := snapshot(t)
	n := network(t)
	s := full()
	must(t, n.Set(s))
	real, err := exec.LookPath("nft")
	must(t, err)
	dir := t.TempDir()
	flushing := "#!/bin/sh\ncase \"$*\" in '-j list table '* | '-f -') " + real + " flush ruleset;; esac\nexec " + real + " \"$@\"\n"
	must(t, os.WriteFile(filepath.Join(dir, "nft"), []byte(flushing), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for range 2 {
		must(t, n.Set(s))
	}
	contains(t, "nft list table inet sixgate", "redirect to :5364")
	must(t, n.Close())
	same(t, "closed", before, snapshot(t))
}

// TestTwoGateways has a second one begin beside the first, on a link of its own.
func TestTwoGateways(t *testing.T) {
	router(t)
	tun(t, "sixgate0")
	before := snapshot(t)
	first := network(t)
	must(t, first.Set(full()))
	running := snapshot(t)
	other := full()
	other.Link, other.Pools, other.Addresses = "other0", prefixOf("10.99.0.0/16"), prefixOf("10.99.0.1/16")

	device := tun(t, "other0")
	beside := snapshot(t)
	second := network(t)
	if err := second.Set(other); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("beside another: %v", err)
	}
	must(t, second.Close())
	same(t, "after the second was refused", beside, snapshot(t))
	if err := CleanUp(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("cleaning up beside another: %v", err)
	}
	device.Close()
	same(t, "with the second gone", running, snapshot(t))
	must(t, first.Set(full())) // as at any change of the machine
	must(t, first.Close())
	same(t, "with both gone", before, snapshot(t))

	// Two that begin at a time: neither link is up.
	tun(t, "other0")
	one, two := network(t), network(t)
	must(t, one.claimLink(other))
	tun(t, "other1")
	other.Link = "other1"
	if err := two.claimLink(other); !errors.Is(err, unix.EBUSY) {
		t.Errorf("the younger of two: %v", err)
	}
	other.Link = "other0"
	must(t, one.Set(other))
	must(t, one.Close())
}

// TestGuests has gateways without LAN beside one that has one, before it and after.
func TestGuests(t *testing.T) {
	router(t)
	tun(t, "guest0")
	tun(t, "sixgate0")
	tun(t, "guest1")
	before := snapshot(t)
	guest := func(link, pool string) State {
		p := netip.MustParsePrefix(pool)
		return State{Link: link, Pools: []netip.Prefix{p}, Addresses: []netip.Prefix{netip.PrefixFrom(p.Addr().Next(), p.Bits())}}
	}
	early, host, late := network(t), network(t), network(t)
	must(t, early.Set(guest("guest0", "10.98.0.0/16")))
	alone := snapshot(t)
	must(t, host.Set(full()))
	must(t, late.Set(guest("guest1", "10.99.0.0/16")))
	all := snapshot(t)
	for _, pool := range []string{"198.18.0.0/15", "10.98.0.0/16", "10.99.0.0/16"} {
		contains(t, "ip route show type unreachable", pool)
	}
	must(t, early.Set(guest("guest0", "10.98.0.0/16")))
	must(t, host.Set(full()))
	same(t, "after a change of the machine", all, snapshot(t))
	if err := CleanUp(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("cleaning up beside a gateway with a LAN: %v", err)
	}
	same(t, "after CleanUp was refused", all, snapshot(t))

	third := network(t)
	device := tun(t, "guest2")
	if err := third.Set(guest("guest2", "10.98.7.0/24")); !errors.Is(err, unix.EBUSY) {
		t.Errorf("with a part of another's pool: %v", err)
	}
	must(t, third.Close())
	device.Close()
	same(t, "after a third was refused", all, snapshot(t))

	must(t, late.Close())
	must(t, host.Close())
	same(t, "with one left", alone, snapshot(t))
	must(t, CleanUp())
	same(t, "cleaned up beside one without LAN", alone, snapshot(t))
	must(t, early.Close())
	same(t, "with all gone", before, snapshot(t))
}

func TestKilled(t *testing.T) {
	router(t)
	before := snapshot(t)

	device := tun(t, "sixgate0")
	must(t, network(t).Set(full()))
	device.Close()
	for _, address := range []string{"198.18.0.5", "2001:2::5"} {
		out, err := exec.Command("ip", "route", "get", address).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "No route to host") && !strings.Contains(string(out), "unreachable") {
			t.Errorf("with a dead link %s goes: %s", address, out)
		}
	}

	// A successor without CleanUp between, which is killed too.
	device = tun(t, "sixgate0")
	n := network(t)
	must(t, n.Set(full()))
	contains(t, "ip route get 198.18.0.5", "dev sixgate0")
	if err := CleanUp(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("cleaning up under a running gateway: %v", err)
	}
	device.Close()
	must(t, CleanUp())
	same(t, "cleaned up", before, snapshot(t))
	must(t, CleanUp())
	same(t, "cleaned up twice", before, snapshot(t))

	// A killed one, and a successor that ends well.
	device = tun(t, "sixgate0")
	must(t, network(t).Set(full()))
	device.Close()
	device = tun(t, "sixgate0")
	n = network(t)
	must(t, n.Set(full()))
	must(t, n.Close())
	device.Close()
	same(t, "closed after a killed one", before, snapshot(t))
}

// TestAdvertised has the kernel learn its default route from a router
// advertisement (RFC 4861, section 4.2), which it purges when it starts to
// forward, except where accept_ra is 2.
func TestAdvertised(t *testing.T) {
	enter(t)
	for _, line := range []string{
		"ip link add wan0 type veth peer name wan1",
		"sysctl -q net.ipv6.conf.wan0.accept_ra=1 net.ipv6.conf.wan1.accept_ra=0",
		"ip link set wan1 addrgenmode none up",
		"ip link set wan0 addrgenmode none up",
		"ip addr add fe80::1/64 dev wan1 nodad",
		"ip addr add fe80::2/64 dev wan0 nodad",
	} {
		sh(t, line)
	}
	advertise(t, "fe80::1", "wan1")
	for start := time.Now(); ; {
		_, found, err := Uplink("wan1")
		must(t, err)
		if len(found) > 0 {
			break
		}
		if time.Since(start) > patience {
			t.Fatal("the kernel did not heed the advertisement")
		}
	}
	tun(t, "sixgate0")
	n := network(t)
	must(t, n.Set(full()))
	if _, found, err := Uplink(); len(found) == 0 || err != nil {
		t.Errorf("forwarding cost the default route: %v", err)
	}
	must(t, n.Close())
	if _, found, err := Uplink(); len(found) == 0 || err != nil {
		t.Errorf("closing cost the default route: %v", err)
	}
}

// advertise sends a router advertisement to all nodes of a link from an address
// there; the kernel adds the checksum. Package net knows for a minute what the
// names of links meant before, as in another namespace.
func advertise(t *testing.T, from, link string) {
	t.Helper()
	found, err := net.InterfaceByName(link)
	must(t, err)
	zone := strconv.Itoa(found.Index)
	c, err := net.ListenPacket("ip6:ipv6-icmp", from+"%"+zone)
	must(t, err)
	defer c.Close()
	raw, err := c.(*net.IPConn).SyscallConn()
	must(t, err)
	var failed error
	must(t, raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
	}))
	must(t, failed)
	message := make([]byte, 16)
	message[0] = 134  // Type
	message[6] = 0x07 // Router Lifetime, 1800 s
	message[7] = 0x08
	_, err = c.WriteTo(message, &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: zone})
	must(t, err)
}

func TestSetUndoes(t *testing.T) {
	router(t)
	tun(t, "sixgate0")
	before := snapshot(t)
	n := network(t)
	bad := full()
	bad.MTU = 1 << 20
	if err := n.Set(bad); !errors.Is(err, unix.EINVAL) {
		t.Errorf("huge MTU: %v", err)
	}
	same(t, "first Set undone", before, snapshot(t))

	small := full()
	small.Forward6, small.Pools = false, small.Pools[:1]
	must(t, n.Set(small))
	held := snapshot(t)
	if err := n.Set(bad); !errors.Is(err, unix.EINVAL) {
		t.Errorf("huge MTU: %v", err)
	}
	same(t, "second Set undone", held, snapshot(t))

	bad = full()
	bad.LAN = []string{`x"; flush`}
	if err := n.Set(bad); err == nil {
		t.Error("accepted a name that ends an nft string")
	}
	must(t, n.Close())
	same(t, "closed", before, snapshot(t))
}

// TestSole wants routers of the LAN to be heeded no more where this machine is
// its router, also where it has forwarded before, and heeded again after.
func TestSole(t *testing.T) {
	router(t)
	tun(t, "sixgate0")
	sh(t, "sysctl -q net.ipv6.conf.all.forwarding=1 net.ipv6.conf.wan0.accept_ra=1 net.ipv6.conf.lan0.accept_ra=2")
	before := snapshot(t)
	n := network(t)
	accepts := func(what, lan string) {
		t.Helper()
		for iface, want := range map[string]string{"lan0": lan, "wan0": "1"} { // whose forwarding is not ours
			if got, err := readSysctl(conf("ipv6", iface, "accept_ra")); got != want || err != nil {
				t.Errorf("%s, accept_ra of %s is %s, %v", what, iface, got, err)
			}
		}
	}
	sole := full()
	sole.Sole = []string{"lan0", "gone"}
	for range 2 {
		must(t, n.Set(sole))
		accepts("set", "0")
	}
	must(t, n.Set(full()))
	accepts("no longer", "2")
	must(t, n.Set(sole))
	heir := network(t) // of a killed gateway
	must(t, heir.Set(sole))
	accepts("taken over", "0")
	must(t, heir.Close())
	accepts("closed", "2")
	must(t, n.Close())
	same(t, "closed", before, snapshot(t))
}

func TestReadOnlySysctls(t *testing.T) {
	router(t)
	tun(t, "sixgate0")
	sh(t, "mount --bind -o ro /proc/sys /proc/sys")
	before := snapshot(t)
	n := network(t)
	err := n.Set(full())
	if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), `"net.ipv4.conf.all.forwarding = 1"`) {
		t.Errorf("read-only: %v", err)
	}
	same(t, "undone", before, snapshot(t))
	if err := CheckHandover(full()); !errors.Is(err, unix.EROFS) {
		t.Errorf("checking handover where the kernel is strict about sources: %v", err)
	}

	sh(t, "umount /proc/sys")
	sh(t, "sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.sixgate0.rp_filter=2")
	sh(t, "mount --bind -o ro /proc/sys /proc/sys")
	before = snapshot(t)
	must(t, CheckHandover(full()))
	must(t, n.Set(full()))
	must(t, n.Close())
	same(t, "closed", before, snapshot(t))
}

func TestWithoutNft(t *testing.T) {
	enter(t)
	tun(t, "sixgate0")
	before := snapshot(t)
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	n := network(t)
	if err := n.Set(full()); !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "package nftables") {
		t.Errorf("LAN without nft: %v", err)
	}
	if err := CheckHandover(full()); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("checking handover without nft: %v", err)
	}
	alone := full()
	alone.LAN = nil
	if err := CheckHandover(alone); err == nil {
		t.Error("handover without a LAN would be possible")
	}
	must(t, n.Set(alone))
	must(t, n.Close())
	must(t, CleanUp())
	t.Setenv("PATH", path)
	same(t, "closed", before, snapshot(t))
}

func TestLookups(t *testing.T) {
	router(t)
	got, err := Addresses("lan0")
	must(t, err)
	if len(got) == 0 || got[0] != netip.MustParsePrefix("192.168.77.1/24") {
		t.Errorf("addresses of lan0: %v", got)
	}
	if _, err := Addresses("absent"); err == nil {
		t.Error("addresses of an absent interface")
	}
	local, err := LocalAddresses()
	must(t, err)
	found := map[netip.Addr]bool{}
	for _, a := range local {
		found[a] = true
	}
	for _, want := range []string{"127.0.0.1", "::1", "192.168.77.1", "203.0.113.1", "2001:db8:1::1"} {
		if !found[netip.MustParseAddr(want)] {
			t.Errorf("%s is missing in %v", want, local)
		}
	}
	uplink := func(want4, want6 bool, exclude ...string) {
		t.Helper()
		got4, got6, err := Uplink(exclude...)
		if len(got4) > 0 != want4 || len(got6) > 0 != want6 || err != nil {
			t.Errorf("uplink without %v: %v, %v, %v", exclude, got4, got6, err)
		}
	}
	uplink(true, true)
	uplink(true, true, "lan0", "absent")
	uplink(false, false, "wan0")
	sh(t, "ip -6 route del default")
	uplink(true, false)
	sh(t, "ip route del default")
	uplink(false, false)
	sh(t, "ip route add unreachable default metric 999")
	uplink(false, false)
	sh(t, "ip route add default nexthop via 203.0.113.2 nexthop via 203.0.113.3")
	uplink(true, false)
}

func TestFurnish(t *testing.T) {
	enter(t)
	sh(t, "ip link set lo down")
	tun(t, "sixgate0")
	own := []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15"), netip.MustParsePrefix("2001:2::1/48")}
	must(t, Furnish("sixgate0", 1400, own))
	for line, want := range map[string]string{
		"ip link show lo":                 "LOOPBACK,UP",
		"ip link show sixgate0":           "mtu 1400",
		"ip route get 192.0.2.1":          "dev sixgate0 src 198.18.0.1",
		"ip -6 route get 2001:db8::1":     "dev sixgate0 proto 163 src 2001:2::1",
		"ip -6 address show dev sixgate0": "nodad",
	} {
		if got := sh(t, line); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in\n%s", line, want, got)
		}
	}
	if err := Furnish("nolink0", 1500, nil); err == nil {
		t.Error("a link that is not there was furnished")
	}
}

// TestDefault has the link take IPv4 that no other route takes, and prefixes
// beside the pools.
func TestDefault(t *testing.T) {
	enter(t)
	tun(t, "sixgate0")
	before := snapshot(t)
	n, err := New(nil)
	must(t, err)
	literals := []netip.Prefix{netip.MustParsePrefix("64:ff9b:1::/48")}
	s := State{
		Link: "sixgate0", Pools: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")}, Literals: literals, Default4: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15"), netip.MustParsePrefix("64:ff9b:1::1/48")},
	}
	for range 2 {
		must(t, n.Set(s))
		for line, want := range map[string]string{
			"ip route":                             "default dev sixgate0 proto 163 metric 2147483647",
			"ip -6 route show type unreachable":    "64:ff9b:1::/48",
			"ip -6 route get 64:ff9b:1::192.0.2.1": "dev sixgate0",
			"ip route get 192.0.2.1":               "dev sixgate0",
		} {
			if got := sh(t, line); !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", line, want, got)
			}
		}
	}
	s.Default4 = false
	must(t, n.Set(s))
	if got := sh(t, "ip route"); strings.Contains(got, "default") {
		t.Errorf("there still is a default route:\n%s", got)
	}
	s.Default4 = true
	must(t, n.Set(s))
	must(t, n.Close())
	same(t, "after Close", before, snapshot(t))
}
