package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// strict is a firewall of the box's operator, who lets through only what
// conntrack has seen from its first packet on.
const strict = `table inet strict {
	chain forward { type filter hook forward priority 10; policy drop;
		ct state established,related accept
		iifname { lan0, lan6 } oifname sixgate0 ct state new accept
	}
	chain input { type filter hook input priority 10; policy drop;
		ct state established,related accept
		iifname { lo, lan0, lan6, sixgate0 } accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
	}
}`

// deaf is one that lets nothing come out of the TUN device.
const deaf = `table inet deaf {
	chain input { type filter hook input priority 10; policy accept; iifname sixgate0 drop; }
}`

// mute has the world not answer whoever connects to the echo server.
const mute = `table inet mute {
	chain input { type filter hook input priority 0; tcp dport 7 tcp flags syn counter drop; }
}`

// escaped counts what of the pools comes to the world.
const escaped = `table inet escaped {
	chain arrived { type filter hook prerouting priority raw;
		ip saddr 198.18.0.0/15 counter
		ip daddr 198.18.0.0/15 counter
		ip6 saddr 2001:2::/48 counter
		ip6 daddr 2001:2::/48 counter
	}
}`

// testHandover has the kernel carry TCP, and troubles it.
func testHandover(t *testing.T, n *namespaces) {
	n.rules(t, "world", escaped)
	far := n.serve(t, "far", farSettings)
	h := &handover{namespaces: n}
	h.start = func() { h.gate = n.serve(t, "gate", byKernel) }
	h.start()
	h.learn(t)

	t.Run("Page", func(t *testing.T) { testPage(t, n) })
	t.Run("TUN", func(t *testing.T) { testTUN(t, n, h.gate, "tcp") })
	t.Run("Chain", func(t *testing.T) { testChain(t, n, h.gate, far) })
	t.Run("Refused", func(t *testing.T) { testRefused(t, n) })
	t.Run("Told", h.testTold)
	t.Run("Unreachable", h.testUnreachable)
	t.Run("Options", h.testOptions)
	t.Run("Routed", h.testRouted)
	given := h.testSlowDial(t)
	t.Run("GivenUp", func(t *testing.T) { h.testGivenUp(t, given) })
	t.Run("PortReuse", h.testPortReuse)
	t.Run("StrictFirewall", h.testStrictFirewall)
	t.Run("Untracked", h.testUntracked)
	t.Run("Flushed", h.testFlushed)
	t.Run("Listener", h.testListener)
	t.Run("OwnClient", h.testOwnClient)
	t.Run("Killed", h.testKilled)
	t.Run("DeafHost", h.testDeafHost)
	h.gate.stop(t)
	t.Run("SpoofedSYNs", h.testSpoofedSYNs)

	// What clients still send to a gateway that is killed, they send in vain.
	if counted := n.run(t, "world", "nft", "list", "table", "inet", "escaped"); strings.Count(counted, "packets 0 ") != 4 {
		t.Errorf("addresses of the pools came to the world:\n%s", counted)
	}
	n.run(t, "world", "nft", "delete", "table", "inet", "escaped")
	n.run(t, "gate", n.binary, "cleanup", "--config", n.config("gate"))
	far.stop(t)
}

// handover is the box whose kernel carries TCP.
type handover struct {
	*namespaces
	gate         *process
	start        func()         // the gate, until all tests end
	echo4, echo6 netip.AddrPort // of a server that echoes, for lan and lan6
}

// rules adds nft rules to a host.
func (n *namespaces) rules(t *testing.T, host, text string) {
	t.Helper()
	cmd := n.command(t.Context(), host, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("adding rules on %s: %v\n%s", host, err, out)
	}
}

// connect returns a connection from lan to its echo server.
func (h *handover) connect(t *testing.T) net.Conn { return h.connectFrom(t, "lan", h.echo4) }

func (h *handover) connectFrom(t *testing.T, client string, dest netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := h.dial(t.Context(), client, "tcp", dest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask wants a word back.
func (h *handover) ask(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("word")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 4))
	return err
}

// mustAsk is ask where the word must come.
func (h *handover) mustAsk(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := h.ask(conn); err != nil {
		t.Errorf("asking for an echo: %v", err)
	}
}

// count returns one of the stack's counters.
func (h *handover) count(t *testing.T, what string) uint64 {
	t.Helper()
	return h.status(t).TUN[what]
}

// until waits until done.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// testTold wants the gateway to say what it does: all connections but those
// refused went to the kernel.
func (h *handover) testTold(t *testing.T) {
	conn := h.connect(t)
	h.mustAsk(t, conn)
	s := h.status(t)
	if s.Handover != "on" || s.TUN["tcp_handed_back"] == 0 || s.TUN["tcp_handed_back"] != s.TUN["tcp_accepted"] || s.TUN["tcp_not_taken"] != 0 {
		t.Errorf("handover is %s: %v", s.Handover, s.TUN)
	}
	if found := h.run(t, "gate", "ss", "-Htn", "state", "established"); !strings.Contains(found, h.echo4.String()) {
		t.Errorf("no connection to %s among the kernel's:\n%s", h.echo4, found)
	}
}

// testSlowDial has two clients that ask again and again while the gateway
// dials. One of them gives up. It returns how many were to be seen to do so.
func (h *handover) testSlowDial(t *testing.T) (givenUp uint64) {
	before := h.status(t).TUN
	h.rules(t, "world", mute)
	impatient, cancel := context.WithCancel(t.Context())
	results := make(chan error, 2)
	for _, ctx := range []context.Context{t.Context(), impatient} {
		go func() {
			conn, err := h.dial(ctx, "lan", "tcp", h.echo4)
			if err == nil {
				err = h.ask(conn)
				conn.Close()
			}
			results <- err
		}()
	}
	until(t, "dials, repeated", func() bool {
		counted := h.run(t, "world", "nft", "list", "table", "inet", "mute")
		var packets int
		_, after, _ := strings.Cut(counted, "counter ")
		fmt.Sscanf(after, "packets %d", &packets)
		return packets >= 4
	})
	cancel()
	if err := <-results; !errors.Is(err, context.Canceled) && !strings.Contains(fmt.Sprint(err), "canceled") {
		t.Errorf("the impatient client: %v", err)
	}
	h.run(t, "world", "nft", "delete", "table", "inet", "mute")
	if err := <-results; err != nil {
		t.Errorf("the patient client: %v", err)
	}
	if requests := h.count(t, "tcp_requests") - before["tcp_requests"]; requests != 2 {
		t.Errorf("2 clients made %d requests", requests)
	}
	return before["tcp_abandoned"] + 1
}

// testGivenUp wants nothing left of a client that gave up, whose reset the
// kernel has had.
func (h *handover) testGivenUp(t *testing.T, count uint64) {
	until(t, "the end of what nobody wants", func() bool {
		s := h.status(t)
		return s.TUN["tcp_abandoned"] == count && s.Flows.Live == 0
	})
	if missed := h.count(t, "tcp_not_taken"); missed != 1 {
		t.Errorf("the kernel was seen to lose %d connections, want the one that was given up", missed)
	}
	if flows := strings.Split(strings.TrimSpace(h.run(t, "gate", h.binary, "flows", "--config", h.config("gate"))), "\n"); len(flows) > 1 {
		t.Errorf("flows are left: %q", flows)
	}
}

// testPortReuse has a client ask for the same connection anew, first while the
// box has it as it was: the client has forgotten it, as one that was switched
// off, and has to reset it (RFC 5961, section 4).
func (h *handover) testPortReuse(t *testing.T) {
	forgotten := h.connectBy(t, 20001, h.echo4)
	h.mustAsk(t, forgotten)
	raw, err := forgotten.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_REPAIR, 1) })
	if err != nil {
		t.Fatal(err)
	}
	forgotten.Close()
	again := h.connectBy(t, 20001, h.echo4)
	h.mustAsk(t, again)
	again.Close()

	// The server ends first, so that the box holds the connection in TIME_WAIT.
	for range 3 {
		conn := h.connectBy(t, 20002, netip.AddrPortFrom(h.echo4.Addr(), 80))
		if _, err := conn.Write([]byte("GET /page HTTP/1.0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if page, err := io.ReadAll(conn); err != nil || len(page) < 10000 {
			t.Fatalf("a page of %d octets: %v", len(page), err)
		}
		conn.Close()
	}
}

// connectBy returns a connection from a port of lan, which may be in use, but is none
// that the kernel gives out: one in TIME_WAIT would be in the way.
func (h *handover) connectBy(t *testing.T, port int, dest netip.AddrPort) *net.TCPConn {
	t.Helper()
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(192, 168, 77, 2), Port: port}}
	dialer.Control = func(_, _ string, c syscall.RawConn) (err error) {
		controlled := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return errors.Join(controlled, err)
	}
	conn, err := within(h.namespaces, "lan", func() (net.Conn, error) { return dialer.Dial("tcp", dest.String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// testStrictFirewall has conntrack not pick up connections in their midst, and
// the operator drop what it does not know.
func (h *handover) testStrictFirewall(t *testing.T) {
	before := h.count(t, "tcp_not_taken")
	h.run(t, "gate", "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")
	h.rules(t, "gate", strict)
	testPage(t, h.namespaces)
	testTUN(t, h.namespaces, h.gate, "tcp")
	testRefused(t, h.namespaces)
	h.run(t, "gate", "nft", "delete", "table", "inet", "strict")
	h.run(t, "gate", "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=1")
	if missed := h.count(t, "tcp_not_taken") - before; missed != 0 {
		t.Errorf("the kernel took %d connections less than it should", missed)
	}
}

// testUntracked has conntrack forget all connections, and learn of none.
func (h *handover) testUntracked(t *testing.T) {
	conn := h.connect(t)
	h.mustAsk(t, conn)
	h.rules(t, "gate", `table inet untracked {
		chain in { type filter hook prerouting priority raw; notrack; }
		chain out { type filter hook output priority raw; notrack; }
	}`)
	h.mustAsk(t, conn)
	h.mustAsk(t, h.connect(t))
	h.run(t, "gate", "nft", "delete", "table", "inet", "untracked")
	h.mustAsk(t, conn)
}

// testFlushed has other tools remove what leads connections to the kernel.
func (h *handover) testFlushed(t *testing.T) {
	for _, removal := range []string{
		"nft flush ruleset",
		"ip rule del pref 163",
		"ip -6 rule del pref 163",
		"ip route flush table 20791",
		"ip -6 route flush table 20791",
	} {
		t.Run(removal, func(t *testing.T) {
			connect := h.connect
			if strings.Contains(removal, "-6") {
				connect = func(t *testing.T) net.Conn { return h.connectFrom(t, "lan6", h.echo6) }
			}
			old := connect(t)
			h.mustAsk(t, old)
			h.run(t, "gate", strings.Fields(removal)...)
			h.mustAsk(t, connect(t)) // while it is gone, or after
			h.mustAsk(t, old)
			handed := h.count(t, "tcp_handed_back")
			until(t, "a connection that goes to the kernel", func() bool {
				h.mustAsk(t, connect(t))
				return h.count(t, "tcp_handed_back") > handed
			})
		})
	}
}

// testUnreachable wants clients told by ICMP of what is not reached, and not by
// an RST or in silence.
func (h *handover) testUnreachable(t *testing.T) {
	h.rules(t, "world", `table inet unreachable {
		chain input { type filter hook input priority 0; tcp dport 81 reject with icmpx host-unreachable; }
	}`)
	for client, qtype := range map[string]string{"lan": "A", "lan6": "AAAA"} {
		conn, err := h.dial(t.Context(), client, "tcp", netip.AddrPortFrom(h.resolve(t, client, "closed.test", qtype), 81))
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("%s: %v, want %v", client, err, syscall.EHOSTUNREACH)
		}
	}
	h.run(t, "world", "nft", "delete", "table", "inet", "unreachable")
}

// testOptions has clients with small MTUs, ECN and Multipath TCP, which the
// gateway's kernel does not take part in (RFC 8684, section 3.1).
func (h *handover) testOptions(t *testing.T) {
	for client, mtus := range map[string][]string{"lan": {"1400", "576", "1500"}, "lan6": {"1400", "1280", "1500"}} {
		h.run(t, client, "sysctl", "-qw", "net.ipv4.tcp_ecn=1") // of both families
		dest := map[string]netip.AddrPort{"lan": h.echo4, "lan6": h.echo6}[client]
		for _, mtu := range mtus {
			t.Run(client+" "+mtu, func(t *testing.T) {
				h.run(t, client, "ip", "link", "set", "eth0", "mtu", mtu)
				handed := h.count(t, "tcp_handed_back")
				conn, err := within(h.namespaces, client, func() (net.Conn, error) {
					dialer := net.Dialer{Timeout: patience}
					dialer.SetMultipathTCP(true)
					return dialer.Dial("tcp", dest.String())
				})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				tcp := conn.(*net.TCPConn)
				const all = 1 | 2 | 4 | 8 // timestamps, SACK, window scale, ECN: TCPI_OPT_* of include/uapi/linux/tcp.h
				if got := options(t, tcp); got&all != all {
					t.Errorf("options %#x, want %#x", got, all)
				}
				if multipath, err := tcp.MultipathTCP(); multipath || err != nil {
					t.Errorf("multipath %v, %v", multipath, err)
				}
				if err := echoStream(conn); err != nil {
					t.Error(err)
				}
				if h.count(t, "tcp_handed_back") != handed+1 {
					t.Error("the kernel did not carry it")
				}
			})
		}
		h.run(t, client, "sysctl", "-qw", "net.ipv4.tcp_ecn=2")
	}
}

// options returns what both ends have agreed on, as TCP_INFO has it.
func options(t *testing.T, conn *net.TCPConn) (agreed uint8) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	controlled := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			agreed = info.Options
		}
	})
	if err := errors.Join(controlled, err); err != nil {
		t.Fatal(err)
	}
	return agreed
}

// further puts host deep behind a host that becomes a router ($1) of the gate
// ($2), by which the gate reaches it ($3). Of its network ($4) the router has
// one address ($5) and deep another ($6); $7 has a kernel forward. What goes to
// deep is to be less than its interface takes.
const further = `
ip netns add $0
ip netns exec $0 sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
ip link add eth0 netns $0 type veth peer name deep0 netns $1
ip -n $0 link set lo up
ip -n $0 link set eth0 up
ip -n $1 link set deep0 up
ip -n $1 address add $5/${4#*/} dev deep0
ip -n $0 address add $6/${4#*/} dev eth0
ip -n $0 route add default via $5
ip -n $1 route add $6 dev deep0 mtu 1300
ip -n $2 route add $4 via $3
ip netns exec $1 sysctl -qw $7=1
`

// nearer undoes what further did.
const nearer = `
ip netns exec $1 sysctl -qw $7=0
ip -n $2 route del $4
ip netns delete $0
`

// testRouted has a client behind a further router, on whose way back to it the
// MTU is less than what both ends think (RFC 1191, RFC 8201).
func (h *handover) testRouted(t *testing.T) {
	for _, c := range []struct {
		router, via, network, near, far, forwarding string
		dest                                        netip.AddrPort
	}{
		{"lan", "192.168.77.2", "192.168.78.0/24", "192.168.78.1", "192.168.78.2", "net.ipv4.ip_forward", h.echo4},
		{"lan6", "fd00:77::2", "fd00:78::/64", "fd00:78::1", "fd00:78::2", "net.ipv6.conf.all.forwarding", h.echo6},
	} {
		t.Run(c.router, func(t *testing.T) {
			script := func(text string) {
				t.Helper()
				out, err := exec.Command("sh", "-ec", text, h.prefix+"-deep", h.prefix+"-"+c.router, h.prefix+"-gate",
					c.via, c.network, c.near, c.far, c.forwarding).CombinedOutput()
				if err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			}
			defer script(nearer)
			script(further)
			handed := h.count(t, "tcp_handed_back")
			conn := h.connectFrom(t, "deep", c.dest)
			if err := echoStream(conn); err != nil {
				t.Error(err)
			}
			conn.Close()
			if h.count(t, "tcp_handed_back") != handed+1 {
				t.Error("the kernel did not carry it")
			}
			until(t, "the flow's end", func() bool { return h.status(t).Flows.Live == 0 })
		})
	}
}

// testListener connects to the sockets that take connections from the kernel.
func (h *handover) testListener(t *testing.T) {
	for _, line := range strings.Split(strings.TrimSpace(h.run(t, "gate", "ss", "-Hltnp")), "\n") {
		socket, err := netip.ParseAddrPort(strings.Fields(line)[3])
		if err != nil || !strings.Contains(line, "sixgate") || socket.Port() == 1080 || socket.Port() == 8064 || socket.Port() == 53 {
			continue
		}
		conn, err := h.dial(t.Context(), "gate", "tcp", socket)
		if err == nil {
			conn.SetDeadline(time.Now().Add(patience))
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a program of the box, at %s: %v", socket, err)
		}
		for client, box := range map[string]string{"lan": "192.168.77.1", "lan6": "fd00:77::1"} {
			conn, err := h.dial(t.Context(), client, "tcp", netip.AddrPortFrom(netip.MustParseAddr(box), socket.Port()))
			if err == nil {
				conn.Close()
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s, at %s port %d: %v", client, box, socket.Port(), err)
			}
		}
	}
}

// testOwnClient has the box use its own gateway, whose kernel would take no
// packet that seems to be from itself.
func (h *handover) testOwnClient(t *testing.T) {
	before := h.count(t, "tcp_not_taken")
	h.mustAsk(t, h.connectFrom(t, "gate", h.echo4))
	h.mustAsk(t, h.connectFrom(t, "gate", h.echo6))
	if missed := h.count(t, "tcp_not_taken") - before; missed != 0 {
		t.Errorf("%d connections were offered to the kernel in vain", missed)
	}
}

// testKilled wants clients to learn of the end of a gateway that is killed:
// those whose connections the kernel had, or the stack, and, where the names are
// lost as well, those who were still to be answered.
func (h *handover) testKilled(t *testing.T) {
	byKernel := h.connect(t)
	h.rules(t, "gate", deaf)
	byStack := h.connect(t)
	h.run(t, "gate", "nft", "delete", "table", "inet", "deaf")
	for _, conn := range []net.Conn{byKernel, byStack} {
		h.mustAsk(t, conn)
	}
	before := h.count(t, "tcp_requests")
	h.rules(t, "world", mute)
	waiting := make(chan error, 1)
	go func() {
		conn, err := h.dial(t.Context(), "lan", "tcp", h.echo4)
		if err == nil {
			conn.Close()
		}
		waiting <- err
	}()
	until(t, "the request", func() bool { return h.count(t, "tcp_requests") > before })

	h.gate.kill(t)
	if conn, err := h.dial(t.Context(), "lan", "tcp", h.echo4); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without a gateway: %v, %v, want %v", conn, err, syscall.ECONNREFUSED)
	}
	if err := os.Remove(h.names("gate")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	h.run(t, "world", "nft", "delete", "table", "inet", "mute")
	h.start()
	if err := <-waiting; !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("who was not yet answered: %v, want %v", err, syscall.ECONNREFUSED)
	}
	for what, conn := range map[string]net.Conn{"kernel": byKernel, "stack": byStack} {
		err := h.ask(conn)
		for ; err == nil; err = h.ask(conn) { // what was sent before its end
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the client hears nothing where the %s had its connection", what)
		}
	}
	h.learn(t)
	h.mustAsk(t, h.connect(t))
}

// learn looks up the echo servers.
func (h *handover) learn(t *testing.T) {
	t.Helper()
	h.echo4 = netip.AddrPortFrom(h.resolve(t, "lan", "v6only.test", "A"), 7)
	h.echo6 = netip.AddrPortFrom(h.resolve(t, "lan6", "v4only.test", "AAAA"), 7)
}

// testDeafHost wants connections to go by the stack where a firewall keeps
// them from the kernel's.
func (h *handover) testDeafHost(t *testing.T) {
	h.rules(t, "gate", deaf)
	h.mustAsk(t, h.connect(t))
	if missed := h.count(t, "tcp_not_taken"); missed != 1 {
		t.Errorf("the kernel did not take %d connections, want 1", missed)
	}
	h.run(t, "gate", "nft", "delete", "table", "inet", "deaf")
}

// testSpoofedSYNs has a flood of SYNs from nobody fill what the kernel may
// hold.
func (h *handover) testSpoofedSYNs(t *testing.T) {
	h.run(t, "gate", "sysctl", "-qw", "net.core.somaxconn=16")
	h.start()
	before := h.count(t, "tcp_requests")
	raw, err := within(h.namespaces, "lan", func() (int, error) {
		return unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(raw)
	const spoofed = 40
	for i := range spoofed {
		source := netip.AddrFrom4([4]byte{192, 168, 77, byte(100 + i)})
		to := &unix.SockaddrInet4{Addr: h.echo4.Addr().As4()}
		if err := unix.Sendto(raw, rawSYN(netip.AddrPortFrom(source, 1000), h.echo4), 0, to); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the flood", func() bool { return h.count(t, "tcp_requests") == before+spoofed })
	h.mustAsk(t, h.connect(t))
	if s := h.status(t); s.Handover != "on" || s.TUN["tcp_not_taken"] != 0 {
		t.Errorf("handover is %s: %v", s.Handover, s.TUN)
	}
	h.gate.kill(t) // their handshakes would go on for a while
	h.run(t, "gate", "sysctl", "-qw", "net.core.somaxconn=4096")
}

// rawSYN returns an IPv4 packet with a SYN (RFC 9293, section 3.1). The kernel
// sees to the header of IP.
func rawSYN(from, to netip.AddrPort) []byte {
	b := make([]byte, 40)
	b[0], b[8], b[9] = 0x45, 64, 6
	copy(b[12:], from.Addr().AsSlice())
	copy(b[16:], to.Addr().AsSlice())
	p := b[20:]
	binary.BigEndian.PutUint16(p, from.Port())
	binary.BigEndian.PutUint16(p[2:], to.Port())
	p[12], p[13] = 5<<4, 2
	binary.BigEndian.PutUint16(p[14:], 65535)
	sum := uint32(6 + 20)
	for i := 12; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[16:], ^uint16(sum))
	return b
}
