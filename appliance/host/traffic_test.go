package host

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds what should come at once.
const patience = 10 * time.Second

// TestTraffic has a client, the gateway and a server that knows no route to
// the client, each in a namespace.
func TestTraffic(t *testing.T) {
	gateway := enter(t)
	client := another(t)
	server := another(t)
	gateway.back(t)
	sh(t, "ip link add lan0 type veth peer name eth0 netns "+client.String())
	sh(t, "ip link add wan0 type veth peer name eth0 netns "+server.String())
	plumb(t, client, "eth0", "192.168.77.2/24", "fd77::2/64", "192.168.77.1", "fd77::1")
	plumb(t, server, "eth0", "203.0.113.2/24", "2001:db8:1::2/64", "", "")
	sh(t, "ip route add 198.18.0.0/15 via 203.0.113.1")
	echo(t, "203.0.113.2:7")
	gateway.back(t)
	plumb(t, gateway, "wan0", "203.0.113.1/24", "2001:db8:1::1/64", "203.0.113.2", "2001:db8:1::2")
	plumb(t, gateway, "lan0", "192.168.77.1/24", "fd77::1/64", "", "")
	echo(t, ":5364")
	device := tun(t, "sixgate0")
	n := network(t)
	state := full()
	state.Private = []netip.AddrPort{netip.MustParseAddrPort("192.168.77.1:5364"), netip.MustParseAddrPort("[fd77::1]:5364")}
	must(t, n.Set(state))

	client.back(t)
	for _, network := range []string{"udp", "tcp"} {
		for _, resolver := range []string{"8.8.8.8:53", "192.168.77.1:53", "[2001:4860:4860::8888]:53", "[fd77::1]:53"} {
			host, _, _ := net.SplitHostPort(dial(t, network, resolver))
			if host != "192.168.77.2" && host != "fd77::2" {
				t.Errorf("%s to %s was answered as from %s", network, resolver, host)
			}
		}
		host, _, _ := net.SplitHostPort(dial(t, network, "203.0.113.2:7"))
		if host != "203.0.113.1" {
			t.Errorf("%s to the world came from %s, want the uplink's address", network, host)
		}
	}

	// The gateway's own addresses in the pools are there, and nobody's fakes.
	for _, own := range []string{"198.18.0.1:5364", "[2001:2::1]:5364"} {
		dial(t, "tcp", own)
	}

	// A stranger's datagram reaches the guard and not the device; a client's
	// reaches it with its own address.
	gateway.back(t)
	for _, line := range []string{
		"nft add table inet other",
		"nft add chain inet other before { type filter hook forward priority -10; }",
		"nft add rule inet other before oifname sixgate0 counter",
	} {
		sh(t, line)
	}
	server.back(t)
	send(t, "198.18.0.7:9", "stranger")
	gateway.back(t)
	for start := time.Now(); !strings.Contains(sh(t, "nft list table inet other"), "packets 1 "); {
		if time.Since(start) > patience {
			t.Fatal("the stranger's datagram was not forwarded")
		}
	}
	strangersStayOut(t, server, gateway)
	client.back(t)
	send(t, "198.18.0.7:9", "client")
	source, payload := receive(t, device)
	if source != netip.MustParseAddr("192.168.77.2") || payload != "client" {
		t.Errorf("the device got %q from %v", payload, source)
	}

	// A route that outlives the device, and is more specific than ours, must
	// not lead fakes to the world.
	gateway.back(t)
	sh(t, "ip route add 198.18.0.0/16 via 203.0.113.2")
	device.Close()
	client.back(t)
	refused(t, "198.18.0.7:80", unix.ECONNREFUSED)
	gateway.back(t)
	sh(t, "ip route del 198.18.0.0/16")
	client.back(t)
	refused(t, "198.18.0.7:80", unix.ECONNREFUSED)
	refused(t, "[2001:2::7]:80", unix.ECONNREFUSED)

	gateway.back(t)
	must(t, n.Close())
}

// strangersStayOut sends datagrams from the uplink's side to addresses that the
// machine has and the LAN alone may use.
func strangersStayOut(t *testing.T, stranger, gateway namespace) {
	t.Helper()
	gateway.back(t)
	for _, line := range []string{
		"nft add chain inet other arrived { type filter hook input priority -10; }",
		"nft add rule inet other arrived iifname wan0 meta l4proto udp counter",
		"nft add chain inet other admitted { type filter hook input priority 10; }",
		"nft add rule inet other admitted iifname wan0 meta l4proto udp counter",
	} {
		sh(t, line)
	}
	stranger.back(t)
	sh(t, "ip route add 192.168.77.0/24 via 203.0.113.1")
	sh(t, "ip route add fd77::/64 via 2001:db8:1::1")
	sh(t, "ip route add 2001:2::/48 via 2001:db8:1::1")
	for _, address := range []string{"192.168.77.1:5364", "[fd77::1]:5364", "198.18.0.1:53", "[2001:2::1]:53"} {
		send(t, address, "stranger")
	}
	gateway.back(t)
	for start := time.Now(); !strings.Contains(sh(t, "nft list chain inet other arrived"), "packets 4 "); {
		if time.Since(start) > patience {
			t.Fatal("the stranger's datagrams did not arrive")
		}
	}
	if admitted := sh(t, "nft list chain inet other admitted"); !strings.Contains(admitted, "packets 0 ") {
		t.Errorf("a stranger's datagram was let in:\n%s", admitted)
	}
}

func plumb(t *testing.T, ns namespace, iface, ipv4, ipv6, router4, router6 string) {
	t.Helper()
	ns.back(t)
	sh(t, "ip link set "+iface+" up")
	sh(t, "ip addr add "+ipv4+" dev "+iface)
	sh(t, "ip addr add "+ipv6+" dev "+iface+" nodad")
	if router4 != "" {
		sh(t, "ip route add default via "+router4)
		sh(t, "ip -6 route add default via "+router6)
	}
}

// echo answers every datagram and connection at an address with the address
// that it came from.
func echo(t *testing.T, address string) {
	t.Helper()
	datagrams, err := net.ListenPacket("udp", address)
	must(t, err)
	streams, err := net.Listen("tcp", address)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b [512]byte
		for {
			_, from, err := datagrams.ReadFrom(b[:])
			if err != nil {
				return
			}
			datagrams.WriteTo([]byte(from.String()), from)
		}
	}()
	go func() {
		for {
			c, err := streams.Accept()
			if err != nil {
				return
			}
			c.Write([]byte(c.RemoteAddr().String()))
			c.Close()
		}
	}()
	t.Cleanup(func() {
		datagrams.Close()
		streams.Close()
		<-done
	})
}

// dial asks echo at address. A connected socket takes an answer only from
// where it sent the question.
func dial(t *testing.T, network, address string) string {
	t.Helper()
	c, err := net.DialTimeout(network, address, patience)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(patience)))
	if network == "udp" {
		_, err = c.Write([]byte("?"))
		must(t, err)
	}
	var b [512]byte
	n, err := c.Read(b[:])
	if err != nil {
		t.Fatalf("%s to %s: %v", network, address, err)
	}
	return string(b[:n])
}

func send(t *testing.T, address, payload string) {
	t.Helper()
	c, err := net.Dial("udp", address)
	must(t, err)
	defer c.Close()
	_, err = c.Write([]byte(payload))
	must(t, err)
}

// receive returns source and payload of the first IPv4 datagram on a device.
func receive(t *testing.T, device *os.File) (netip.Addr, string) {
	t.Helper()
	must(t, device.SetReadDeadline(time.Now().Add(patience)))
	var b [2048]byte
	for {
		n, err := device.Read(b[:])
		must(t, err)
		if b[0] == 0x45 && b[9] == unix.IPPROTO_UDP {
			return netip.AddrFrom4([4]byte(b[12:16])), string(bytes.Clone(b[28:n]))
		}
	}
}

func refused(t *testing.T, address string, want ...unix.Errno) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err == nil {
		c.Close()
	}
	for _, errno := range want {
		if errors.Is(err, errno) {
			return
		}
	}
	t.Errorf("connecting to %s: %v, want one of %v", address, err, want)
}
