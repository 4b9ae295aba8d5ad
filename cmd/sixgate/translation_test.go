package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv6"
)

// translationSettings are those of a gateway that finds its network's NAT64.
const translationSettings = `
[lan]
interfaces = ["lan0", "lan6"]
[dns]
upstreams = ["udp://203.0.113.53:53"]
[direct]
nat64 = "auto"
[log]
level = "debug"
`

// testTranslation has IPv4 addresses where there is no IPv4: with the client,
// and with the uplink.
func testTranslation(t *testing.T, n *namespaces) {
	gate := n.serve(t, "gate", translationSettings)
	t.Run("Clients", func(t *testing.T) { testIPv4OfIPv6Clients(t, n) })
	t.Run("Uplink", func(t *testing.T) { testIPv4OverIPv6Uplink(t, n, gate) })
	t.Run("Router", func(t *testing.T) { testNAT64OfRouter(t, n, gate) })
	gate.stop(t)
}

// testIPv4OfIPv6Clients has the gateway announce itself as a NAT64, and be one.
func testIPv4OfIPv6Clients(t *testing.T, n *namespaces) {
	if got := n.dig(t, "lan6", "+short ipv4only.arpa AAAA"); got != "64:ff9b::c000:aa\n64:ff9b::c000:ab\n" {
		t.Errorf("clients discover %q", got)
	}
	for _, ip := range []string{"64:ff9b::203.0.113.80", "64:ff9b:1::203.0.113.80"} {
		greeting := n.run(t, "lan6", "curl", "-sS", "http://["+ip+"]/")
		if !strings.HasSuffix(greeting, "(IPv4 only) greets 203.0.113.1\n") {
			t.Errorf("at %s the server said %q", ip, greeting)
		}
		conn, err := n.dial(t.Context(), "lan6", "udp", netip.AddrPortFrom(netip.MustParseAddr(ip), 7))
		if err != nil {
			t.Fatal(err)
		}
		if err := echoDatagram(conn); err != nil {
			t.Errorf("by UDP to %s: %v", ip, err)
		}
		conn.Close()
		if pinged := n.run(t, "lan6", "ping", "-6", "-n", "-c", "1", "-W", "10", ip); !strings.Contains(pinged, " 0% packet loss") {
			t.Errorf("pinging %s:\n%s", ip, pinged)
		}
	}
	told := n.run(t, "gate", n.binary, "explain", "--config", n.config("gate"), "--client", "fd00:77::2", "64:ff9b::203.0.113.80")
	if !strings.Contains(told, "takes it as 203.0.113.80") || !strings.Contains(told, "a connection of type C") {
		t.Errorf("explained as:\n%s", told)
	}
	if conn, err := n.dial(t.Context(), "lan6", "tcp", netip.MustParseAddrPort("[64:ff9b::7f00:1]:1080")); err == nil {
		conn.Close()
		t.Error("a client has reached the gateway's loopback")
	}
}

// testIPv4OverIPv6Uplink takes IPv4 away from the uplink of a running gateway.
func testIPv4OverIPv6Uplink(t *testing.T, n *namespaces, gate *process) {
	for _, ip := range []string{"64:ff9b::203.0.113.80/128", "64:ff9b::192.0.2.200/128"} { // behind the NAT64
		n.run(t, "world", "ip", "address", "add", ip, "dev", "gate0", "nodad")
	}
	logged := gate.mark()
	n.run(t, "gate", "ip", "-4", "route", "del", "default")
	defer n.run(t, "gate", "ip", "-4", "route", "add", "default", "via", "203.0.113.254")
	gate.await(t, logged, "prefix=64:ff9b::/96")
	gate.await(t, logged, "link=sixgate0") // the network is set for it
	told := n.run(t, "gate", n.binary, "explain", "--config", n.config("gate"), "--client", "192.168.77.2", "192.0.2.200")
	if !strings.Contains(told, "is dialled as 64:ff9b::c000:2c8") || !strings.Contains(told, "a connection of type B") {
		t.Errorf("explained as:\n%s", told)
	}
	for _, dest := range []netip.Addr{
		n.resolve(t, "lan", "v4only.test", "A"), // a fake one
		netip.MustParseAddr("192.0.2.200"),
	} {
		logged := gate.mark()
		conn, err := n.dial(t.Context(), "lan", "tcp", netip.AddrPortFrom(dest, 7))
		if err != nil {
			t.Errorf("connecting to %s: %v", dest, err)
			continue
		}
		if err := echoStream(conn); err != nil {
			t.Errorf("by TCP to %s: %v", dest, err)
		}
		conn.Close()
		gate.await(t, logged, "msg=flow", "inlet=tun", "type=B")
	}
}

// testNAT64OfRouter has routers advertise a NAT64. That of the uplink is believed
// more than DNS, and one of the LAN is not.
func testNAT64OfRouter(t *testing.T, n *namespaces, gate *process) {
	n.run(t, "world", "ip", "address", "add", "2001:db8:64::203.0.113.80/128", "dev", "gate0", "nodad")
	n.run(t, "gate", "ip", "-4", "route", "del", "default")
	defer n.run(t, "gate", "ip", "-4", "route", "add", "default", "via", "203.0.113.254")
	logged := gate.mark()
	n.advertiseNAT64(t, "lan6", "eth0", 600, "2001:db8:66::/96")
	n.advertiseNAT64(t, "world", "gate0", 600, "2001:db8:64::/96")
	gate.await(t, logged, "prefix=2001:db8:64::/96")
	if got := n.status(t).NAT64; got != "2001:db8:64::/96: its router advertises it" {
		t.Errorf("status has %q", got)
	}
	told := n.run(t, "gate", n.binary, "explain", "--config", n.config("gate"), "--client", "192.168.77.2", "203.0.113.80")
	if !strings.Contains(told, "is dialled as 2001:db8:64::cb00:7150, through the NAT64 of the network: its router advertises it") {
		t.Errorf("explained as:\n%s", told)
	}
	conn, err := n.dial(t.Context(), "lan", "tcp", netip.AddrPortFrom(n.resolve(t, "lan", "v4only.test", "A"), 7))
	if err != nil {
		t.Fatal(err)
	}
	if err := echoStream(conn); err != nil {
		t.Error(err)
	}
	conn.Close()
	back := gate.mark()
	n.advertiseNAT64(t, "world", "gate0", 0, "2001:db8:64::/96")
	gate.await(t, back, "prefix=64:ff9b::/96")
	if tail := gate.tail(); strings.Contains(tail, "2001:db8:66::") {
		t.Errorf("a client of the LAN was believed:\n%s", tail)
	}
}

// advertiseNAT64 sends a router advertisement from a host, with the prefix of a
// NAT64 (RFC 8781) and its lifetime in seconds.
func (n *namespaces) advertiseNAT64(t *testing.T, host, iface string, lifetime uint16, prefix string) {
	t.Helper()
	message := []byte{134, 15: 0, 38, 2}
	message = binary.BigEndian.AppendUint16(message, lifetime/8<<3)
	n.advertise(t, host, iface, "", append(message, netip.MustParsePrefix(prefix).Addr().AsSlice()[:12]...))
}

// advertise sends a router advertisement from a host, by an address of its
// interface, or by any.
func (n *namespaces) advertise(t *testing.T, host, iface, from string, message []byte) {
	t.Helper()
	_, err := within(n, host, func() (struct{}, error) {
		conn, err := net.ListenPacket("ip6:ipv6-icmp", "::")
		if err != nil {
			return struct{}{}, err
		}
		defer conn.Close()
		p := ipv6.NewPacketConn(conn)
		if err := p.SetMulticastHopLimit(255); err != nil {
			return struct{}{}, err
		}
		_, err = p.WriteTo(message, &ipv6.ControlMessage{Src: net.ParseIP(from)}, &net.IPAddr{IP: net.ParseIP("ff02::1"), Zone: iface})
		return struct{}{}, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// echoDatagram sends a datagram until it comes back, as UDP may lose some.
func echoDatagram(conn net.Conn) error {
	sent, buf := []byte("IPv4 and IPv6"), make([]byte, 100)
	var size int
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err = conn.Write(sent); err != nil {
			return err
		}
		if err = conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		size, err = conn.Read(buf)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	if err == nil && !bytes.Equal(buf[:size], sent) {
		err = fmt.Errorf("%q came back", buf[:size])
	}
	return err
}
