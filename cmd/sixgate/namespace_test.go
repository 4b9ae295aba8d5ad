package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds what must happen but may take long on a busy machine.
const patience = 30 * time.Second

// settings are those of the gateway on the box. Every name gets a fake
// address, so that all four types pass through the gateway; UDP flows end, and
// are logged, soon.
const settings = `
[lan]
interfaces = ["lan0", "lan6"]
[dns]
upstreams = ["udp://203.0.113.53:53"]
fake = "always"
[limits]
udp-idle = "1s"
[[outlet]]
name = "far"
type = "socks5"
server = "192.0.2.2:1080"
[[rule]]
names = ["*.far.test"]
outlet = "far"
[log]
level = "debug"
`

// byKernel are the same with the kernel carrying TCP of the LAN.
const byKernel = settings + `
[tun]
handover = "on"
`

// farSettings are those of the second gateway of a chain.
const farSettings = `
[dns]
upstreams = ["udp://198.51.100.53:53"]
[socks]
listen = ["192.0.2.2:1080"]
clients = ["192.0.2.1/32"]
[log]
level = "debug"
`

// TestNamespaces runs the real binary in the network of scripts/topology, with
// real clients and servers around it.
func TestNamespaces(t *testing.T) {
	n := newNamespaces(t)
	before := n.snapshot(t)
	t.Run("Serving", func(t *testing.T) { testServing(t, n) })
	t.Run("Clients", func(t *testing.T) { testClients(t, n) })
	t.Run("Conformance", func(t *testing.T) { testConformance(t, n) })
	t.Run("Servers", func(t *testing.T) { testServers(t, n) })
	t.Run("Neighbours", func(t *testing.T) { testNeighbours(t, n) })
	t.Run("Datagrams", func(t *testing.T) { testDatagrams(t, n) })
	t.Run("ThreeGateways", func(t *testing.T) { testThreeGateways(t, n) })
	t.Run("StopLeavesNothing", func(t *testing.T) { n.checkSnapshot(t, before) })
	t.Run("Handover", func(t *testing.T) { testHandover(t, n) })
	t.Run("HandoverLeavesNothing", func(t *testing.T) { n.checkSnapshot(t, before) })
	t.Run("Killed", func(t *testing.T) { testKilled(t, n, before) })
	t.Run("FakeOnlyWhereNeeded", func(t *testing.T) { testNeeded(t, n) })
	t.Run("Drills", func(t *testing.T) { testDrills(t, n) })
	t.Run("FullDisk", func(t *testing.T) { testFullDisk(t, n) })
	t.Run("DeadUpstream", func(t *testing.T) { testDeadUpstream(t, n) })
	t.Run("Resolvers", func(t *testing.T) { testResolvers(t, n) })
	t.Run("Translation", func(t *testing.T) { testTranslation(t, n) })
	t.Run("TranslationLeavesNothing", func(t *testing.T) { n.checkSnapshot(t, before) })
	t.Run("Advertised", func(t *testing.T) { testAdvertised(t, n) })
	t.Run("AdvertisedLeavesNothing", func(t *testing.T) { n.checkSnapshot(t, before) })
	t.Run("Run", func(t *testing.T) { testRun(t, n) })
	t.Run("RunLeavesNothing", func(t *testing.T) { n.checkSnapshot(t, before) })
	t.Run("ParallelDownloads", func(t *testing.T) { testParallelDownloads(t, n, settings) })
	t.Run("ParallelDownloadsByKernel", func(t *testing.T) { testParallelDownloads(t, n, byKernel) })
	t.Run("ReplacedLink", func(t *testing.T) { testReplacedLink(t, n) })
}

func testServing(t *testing.T, n *namespaces) {
	far := n.serve(t, "far", farSettings)
	gate := n.serve(t, "gate", settings)
	t.Run("Page", func(t *testing.T) { testPage(t, n) })
	t.Run("TUN", func(t *testing.T) { testTUN(t, n, gate, "tcp", "udp") })
	t.Run("SOCKS", func(t *testing.T) { testSOCKS(t, n, gate) })
	t.Run("Chain", func(t *testing.T) { testChain(t, n, gate, far) })
	t.Run("DNS", func(t *testing.T) { testDNS(t, n) })
	t.Run("Refused", func(t *testing.T) { testRefused(t, n) })
	t.Run("Ping", func(t *testing.T) { testPing(t, n) })
	t.Run("OnePort", func(t *testing.T) { testOnePort(t, n) })
	t.Run("Programs", func(t *testing.T) { testPrograms(t, n) })
	t.Run("HTTP3", func(t *testing.T) { testHTTP3(t, n) })
	t.Run("Status", func(t *testing.T) { testStatus(t, n) })
	t.Run("Reload", func(t *testing.T) { testReload(t, n, gate) })
	gate.stop(t)
	far.stop(t)
}

// testPage fetches an IPv6-only page from an IPv4-only client, by name and by
// address.
func testPage(t *testing.T, n *namespaces) {
	direct := n.run(t, "world", "curl", "-sS", "http://[2001:db8:99::80]/page")
	for _, host := range []string{"v6only.test", "2001-db8-99--80.ipv6-literal.net"} {
		if through := n.run(t, "lan", "curl", "-sS", "http://"+host+"/page"); through != direct || len(direct) == 0 {
			t.Errorf("%s: the page has %d octets through the gateway and %d without, or others", host, len(through), len(direct))
		}
	}
}

// testTUN is the matrix of types A to D by TCP and UDP (RFC 3089, section 2).
func testTUN(t *testing.T, n *namespaces, gate *process, networks ...string) {
	for _, c := range []struct{ typ, client, qtype, name string }{
		{"A", "lan", "A", "v4only.test"},
		{"B", "lan", "A", "v6only.test"},
		{"C", "lan6", "AAAA", "v4only.test"},
		{"D", "lan6", "AAAA", "v6only.test"},
	} {
		fake := n.resolve(t, c.client, c.name, c.qtype)
		for _, network := range networks {
			t.Run(c.typ+" "+network, func(t *testing.T) {
				logged := gate.mark()
				conn, err := n.dial(t.Context(), c.client, network, netip.AddrPortFrom(fake, 7))
				if err != nil {
					t.Fatal(err)
				}
				if network == "tcp" {
					err = echoStream(conn)
				} else {
					err = echoDatagrams(conn)
				}
				if err != nil {
					t.Error(err)
				}
				conn.Close()
				gate.await(t, logged, "msg=flow", "inlet=tun", "client="+conn.LocalAddr().String(), "network="+network, "name="+c.name, "type="+c.typ)
			})
		}
	}
}

// testSOCKS is the matrix for clients that speak SOCKS, by name and by literal.
func testSOCKS(t *testing.T, n *namespaces, gate *process) {
	const v4, v6 = "127.0.0.1:1080", "[::1]:1080"
	for _, c := range []struct{ typ, server, host, peer, dest string }{
		{"A", v4, "v4only.test", "203.0.113.1", "dest=v4only.test:80"},
		{"B", v4, "v6only.test", "2001:db8:99::1", "dest=v6only.test:80"},
		{"C", v6, "v4only.test", "203.0.113.1", "dest=v4only.test:80"},
		{"D", v6, "v6only.test", "2001:db8:99::1", "dest=v6only.test:80"},
		{"A", v4, "203.0.113.80", "203.0.113.1", "dest=203.0.113.80:80"},
		{"B", v4, "[2001:db8:99::80]", "2001:db8:99::1", "dest=[2001:db8:99::80]:80"},
		{"C", v6, "203.0.113.80", "203.0.113.1", "dest=203.0.113.80:80"},
		{"D", v6, "[2001:db8:99::80]", "2001:db8:99::1", "dest=[2001:db8:99::80]:80"},
	} {
		t.Run(c.typ+" "+c.host, func(t *testing.T) {
			logged := gate.mark()
			greeting := n.run(t, "gate", "curl", "-sS", "--socks5-hostname", c.server, "http://"+c.host+"/")
			if !strings.HasSuffix(greeting, "greets "+c.peer+"\n") {
				t.Errorf("the server said %q, and should have seen %s", greeting, c.peer)
			}
			gate.await(t, logged, "msg=flow", "inlet=socks", c.dest, "type="+c.typ)
		})
	}
}

// testChain reaches a name that only the second gateway can resolve, over a
// path to it that has IPv4 only (RFC 3089, section 4).
func testChain(t *testing.T, n *namespaces, gate, far *process) {
	for _, c := range []struct{ client, typ string }{{"lan", "B"}, {"lan6", "D"}} {
		t.Run(c.client, func(t *testing.T) {
			nearLogged, farLogged := gate.mark(), far.mark()
			greeting := n.run(t, c.client, "curl", "-sS", "http://only.far.test/")
			if want := "only.far.test (IPv6 only) greets 2001:db8:98::1\n"; greeting != want {
				t.Errorf("the server said %q, want %q", greeting, want)
			}
			gate.await(t, nearLogged, "msg=flow", "name=only.far.test", "outlet=far", "type="+c.typ)
			far.await(t, farLogged, "msg=flow", "inlet=socks", "name=only.far.test", "type=B")
		})
	}
}

func testDNS(t *testing.T, n *namespaces) {
	pool4, pool6 := netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("2001:2::/48")
	if fake := n.resolve(t, "lan", "v6only.test", "A"); !pool4.Contains(fake) {
		t.Errorf("an IPv4-only client got %s, which is not in %s", fake, pool4)
	}
	if fake := n.resolve(t, "lan6", "v4only.test", "AAAA"); !pool6.Contains(fake) {
		t.Errorf("an IPv6-only client got %s, which is not in %s", fake, pool6)
	}
	for _, c := range []struct {
		query string
		want  []string
		never string
	}{
		{"nowhere.test A", []string{"status: NXDOMAIN", "SOA"}, ""},
		{"nowhere.test AAAA", []string{"status: NXDOMAIN", "SOA"}, ""},
		{"v6only.test AAAA", []string{"status: NOERROR", "ANSWER: 0", "SOA"}, "2001:db8"},
		{"mail.test A", []string{"status: NOERROR", "ANSWER: 0", "SOA"}, "198.18."},
		{"mail.test MX", []string{"10 dual.test.", "20 v6only.test."}, "203.0.113"},
		{"dual.test HTTPS", []string{`1 . alpn="h2,http/1.1"`}, "hint"},
		{"alias.test A", []string{"status: NOERROR", "198.1"}, "CNAME"},
		{"@192.0.2.99 v6only.test A", []string{"status: NOERROR", "198.1"}, ""},
		{"+tcp v6only.test A", []string{"status: NOERROR", "198.1"}, ""},
	} {
		t.Run(c.query, func(t *testing.T) {
			reply := n.dig(t, "lan", c.query)
			for _, want := range c.want {
				if !strings.Contains(reply, want) {
					t.Errorf("no %q in the reply:\n%s", want, reply)
				}
			}
			if c.never != "" && strings.Contains(reply, c.never) {
				t.Errorf("the reply has %q:\n%s", c.never, reply)
			}
		})
	}
}

// testRefused wants a refusal at once, and not a connection that then dies.
func testRefused(t *testing.T, n *namespaces) {
	for _, c := range []struct {
		what, client string
		dest         netip.Addr
	}{
		{"closed port, IPv4 client", "lan", n.resolve(t, "lan", "closed.test", "A")},
		{"closed port, IPv6 client", "lan6", n.resolve(t, "lan6", "closed.test", "AAAA")},
		{"IPv4 address that stands for nothing", "lan", netip.MustParseAddr("198.19.200.200")},
		{"IPv6 address that stands for nothing", "lan6", netip.MustParseAddr("2001:2::ffff:1")},
	} {
		t.Run(c.what, func(t *testing.T) {
			start := time.Now()
			conn, err := n.dial(t.Context(), c.client, "tcp", netip.AddrPortFrom(c.dest, 80))
			took := time.Since(start)
			if err == nil {
				conn.Close()
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("connecting: %v, want %v", err, syscall.ECONNREFUSED)
			}
			t.Logf("refused after %.1f ms", float64(took.Microseconds())/1000)
			if took > time.Second { // a retransmitted SYN; a good refusal takes a few ms
				t.Errorf("refused after %v", took)
			}
		})
	}
}

// testNeighbours has an IPv4-only client reach an IPv6-only one of the served
// networks, to which no name leads unless that is allowed.
func testNeighbours(t *testing.T, n *namespaces) {
	n.echoDatagrams(t, "lan6", "[fd00:77::2]:5000")
	const name = "fd00-77--2.ipv6-literal.net"
	gate := n.serve(t, "gate", settings)
	if got := n.run(t, "lan", "dig", "+short", name, "A"); got != "" {
		t.Errorf("a name that leads into the LAN has the address %s", got)
	}
	gate.stop(t)

	gate = n.serve(t, "gate", settings+"[direct]\nallow = ['fd00:77::2/128']\n")
	conn, err := n.dial(t.Context(), "lan", "udp", netip.AddrPortFrom(n.resolve(t, "lan", name, "A"), 5000))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := echoDatagrams(conn); err != nil {
		t.Error(err)
	}
	gate.stop(t)
}

// testPing pings hosts of both families from clients of both, and what is not
// there, nor may be pinged.
func testPing(t *testing.T, n *namespaces) {
	if _, err := exec.LookPath("ping"); err != nil {
		t.Skip("needs what scripts/setup installs: ", err)
	}
	for _, c := range []struct{ client, option, dest, want string }{
		{"lan", "-4", "v6only.test", " 0% packet loss"},
		{"lan", "-4", "v4only.test", " 0% packet loss"},
		{"lan6", "-6", "v6only.test", " 0% packet loss"},
		{"lan6", "-6", "v4only.test", " 0% packet loss"},
		{"lan", "-4", "198.19.200.200", "Destination Host Unreachable"},
		{"lan6", "-6", "2001:2::ffff:1", "Address unreachable"},
		{"lan", "-4", "only.far.test", "Packet filtered"}, // no chain can carry it
		{"lan6", "-6", "only.far.test", "Administratively prohibited"},
	} {
		t.Run(c.client+" "+c.dest, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			// 3000 bytes go in fragments.
			out, _ := n.command(ctx, c.client, "ping", c.option, "-n", "-c", "1", "-W", "10", "-s", "3000", c.dest).CombinedOutput()
			if !strings.Contains(string(out), c.want) {
				t.Errorf("no %q in\n%s", c.want, out)
			}
		})
	}
}

// testOnePort wants all that one port of a client sends to come from one port
// of the gateway, to whomever it goes, and the answers from whom was asked.
func testOnePort(t *testing.T, n *namespaces) {
	port := uint16(5000)
	for _, c := range []struct{ client, qtype string }{{"lan", "A"}, {"lan6", "AAAA"}} {
		conn, err := within(n, c.client, func() (*net.UDPConn, error) { return net.ListenUDP("udp", nil) })
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		sources := map[uint16]bool{}
		for _, server := range []struct{ name, at string }{
			{"v4only.test", "203.0.113.80"}, {"v6only.test", "2001:db8:99::80"}, {"dual.test", "2001:db8:99::81"}, {"v6only.test", "2001:db8:99::80"},
		} {
			port++ // the last one's socket is open to the end
			n.run(t, "gate", n.binary, "reload", "--config", n.config("gate"))
			far, err := within(n, "world", func() (*net.UDPConn, error) {
				return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(server.at), port)))
			})
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			far.SetDeadline(time.Now().Add(patience))
			fake := netip.AddrPortFrom(n.resolve(t, c.client, server.name, c.qtype), port)
			if _, err := conn.WriteToUDPAddrPort([]byte("question"), fake); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			_, source, err := far.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatal(err)
			}
			sources[source.Port()] = true
			if _, err := far.WriteToUDPAddrPort([]byte("answer"), source); err != nil {
				t.Fatal(err)
			}
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil || string(buf[:size]) != "answer" || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != fake {
				t.Errorf("%s asked %s, and got %q from %s, %v", c.client, fake, buf[:size], from, err)
			}
		}
		if len(sources) != 1 {
			t.Errorf("%s was seen with %d ports", c.client, len(sources))
		}
	}
}

// testStatus asks the gateway what the other tests have made it do.
func testStatus(t *testing.T, n *namespaces) {
	s := n.status(t)
	if s.TUN["tcp_handed_back"] != 0 || s.Handover != "off" {
		t.Errorf("the kernel was given connections, with handover %s: %v", s.Handover, s.TUN)
	}
	if s.Flows.Joined["A"] == 0 || s.Flows.Joined["D"] == 0 || s.Flows.Refused["connection refused"] == 0 || s.Names.Mapped == 0 ||
		s.DNS["fake"] == 0 || s.DNS["nx_domain"] == 0 || s.TUN["received"] == 0 || s.Uplink != "IPv4 and IPv6" {
		t.Errorf("the gateway forgot something: %+v", s)
	}
	held, err := n.dial(t.Context(), "lan", "tcp", netip.AddrPortFrom(n.resolve(t, "lan", "v6only.test", "A"), 7))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	flows := n.run(t, "gate", n.binary, "flows", "--config", n.config("gate"))
	if want := held.LocalAddr().String(); !strings.Contains(flows, want) || !strings.Contains(flows, "v6only.test:7") {
		t.Errorf("the flow of %s is not among the flows:\n%s", want, flows)
	}
	if names := n.run(t, "gate", n.binary, "names", "--config", n.config("gate")); !strings.Contains(names, "\nv6only.test ") {
		t.Errorf("v6only.test is not among the names:\n%s", names)
	}
	for target, want := range map[string]string{
		"v6only.test":    "a connection of type B",
		"nowhere.test":   "NXDOMAIN",
		"only.far.test":  `Rule 1 of 1 sends it (TCP to port 443) to the outlet "far"`,
		"198.19.200.200": "stands for nothing",
		"127.0.0.1":      "is not dialled",
	} {
		if told := n.run(t, "gate", n.binary, "explain", "--config", n.config("gate"), target); !strings.Contains(told, want) {
			t.Errorf("no %q in what explains %s:\n%s", want, target, told)
		}
	}
	clients := n.run(t, "gate", n.binary, "clients", "--config", n.config("gate"))
	for _, want := range []string{"192.168.77.2 ", "fd00:77::2 ", "reached ", "failed DNS nowhere.test A", "failed tcp closed.test:80"} {
		if !strings.Contains(clients, want) {
			t.Errorf("no %q among the clients:\n%s", want, clients)
		}
	}
	metrics := n.run(t, "gate", "curl", "-sS", "http://127.0.0.1:8064/metrics")
	if !strings.Contains(metrics, "\nsixgate_flows_total{proto=\"tcp\",type=\"B\",outlet=\"direct\"} ") {
		t.Errorf("no flows in the metrics:\n%s", metrics)
	}
	if health := n.run(t, "gate", "curl", "-sS", "http://127.0.0.1:8064/healthz"); health != "ok\n" {
		t.Errorf("health is %q", health)
	}
}

// testKilled kills the gateway, which has no time to undo anything then, and
// wants a new one, or `sixgate cleanup`, to undo it, and its names to keep their
// addresses.
func testKilled(t *testing.T, n *namespaces, before string) {
	n.serve(t, "gate", settings).kill(t)
	n.run(t, "gate", n.binary, "cleanup", "--config", n.config("gate"))
	n.checkSnapshot(t, before)

	gate := n.serve(t, "gate", settings)
	fake := n.resolve(t, "lan", "v6only.test", "A")
	n.awaitSaved(t, "gate", "v6only.test")
	// SIGABRT ends it as a panic does, in netstack for one: at once, after a
	// dump. To start it again is the service manager's part.
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGABRT} {
		gate.die(t, signal)
		died := time.Now()
		gate = n.serve(t, "gate", settings)
		// A client that still knows the address does not ask for it again.
		n.run(t, "lan", "curl", "-sSf", "--resolve", "v6only.test:80:"+fake.String(), "http://v6only.test/page")
		t.Logf("serves again %v after %v", time.Since(died), signal)
		if got := n.resolve(t, "lan", "v6only.test", "A"); got != fake {
			t.Errorf("the name has %s after %v and a restart, and had %s", got, signal, fake)
		}
	}
	gate.stop(t)
	n.checkSnapshot(t, before)
}

// testNeeded wants the real address for what the client reaches without us.
func testNeeded(t *testing.T, n *namespaces) {
	gate := n.serve(t, "gate", strings.Replace(settings, `"always"`, `"needed"`, 1))
	if got, want := n.resolve(t, "lan", "v4only.test", "A"), netip.MustParseAddr("203.0.113.80"); got != want {
		t.Errorf("an IPv4-only client got %s for an IPv4-only server, want the real %s", got, want)
	}
	for _, name := range []string{"v4only.test", "v6only.test"} {
		n.run(t, "lan", "curl", "-sS", "http://"+name+"/page")
	}
	gate.stop(t)
}

// testDeadUpstream wants SERVFAIL, soon, when no resolver answers: a name that
// may not exist gets no fake address.
func testDeadUpstream(t *testing.T, n *namespaces) {
	silent, err := within(n, "world", func() (net.PacketConn, error) {
		return net.ListenPacket("udp", "203.0.113.82:5300")
	})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for what, upstream := range map[string]string{"refusing": "203.0.113.82:53", "silent": "203.0.113.82:5300"} {
		t.Run(what, func(t *testing.T) {
			gate := n.serve(t, "gate", strings.Replace(settings, "203.0.113.53:53", upstream, 1))
			start := time.Now()
			if reply := n.dig(t, "lan", "+tries=1 +time=20 v6only.test A"); !strings.Contains(reply, "status: SERVFAIL") {
				t.Errorf("no SERVFAIL in the reply:\n%s", reply)
			}
			t.Logf("SERVFAIL after %v", time.Since(start).Round(time.Millisecond))
			gate.stop(t)
		})
	}
}
