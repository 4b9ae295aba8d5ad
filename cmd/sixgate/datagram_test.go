package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// testDatagrams wants each datagram answered that is sent, once: of any size, also
// of none and such that go in fragments; of one flow and of many; the first ones
// of many that begin at once, and those of others beside some that wait for a hop
// of a chain that does not answer.
func testDatagrams(t *testing.T, n *namespaces) {
	n.echoDatagrams(t, "world", "203.0.113.80:5000")
	n.echoDatagrams(t, "world", "[2001:db8:99::80]:5000")
	silent, err := within(n, "far", func() (net.Listener, error) { return net.Listen("tcp", "192.0.2.2:1080") })
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gate := n.serve(t, "gate", strings.Replace(settings, `udp-idle = "1s"`, "", 1)) // no answer comes too late
	for _, c := range []struct{ typ, client, qtype, name string }{
		{"B", "lan", "A", "v6only.test"},
		{"C", "lan6", "AAAA", "v4only.test"},
	} {
		t.Run(c.typ, func(t *testing.T) {
			dest := netip.AddrPortFrom(n.resolve(t, c.client, c.name, c.qtype), 5000)
			chain := netip.AddrPortFrom(n.resolve(t, c.client, "only.far.test", c.qtype), 5000)
			for _, size := range []int{0, 1, 1400, 1473, 9000, 65507} {
				conn := n.dialMany(t, c.client, dest, 1)[0]
				if err := exchangeOne(conn, bytes.Repeat([]byte{byte(size)}, size)); err != nil {
					t.Errorf("%d octets: %v", size, err)
				}
			}
			for _, load := range []struct{ flows, each, waiting int }{{1, 2000, 0}, {64, 50, 0}, {200, 1, 0}, {100, 1, 200}} {
				for _, conn := range n.dialMany(t, c.client, chain, load.waiting) {
					if _, err := conn.Write([]byte("x")); err != nil {
						t.Fatal(err)
					}
				}
				if err := exchange(n.dialMany(t, c.client, dest, load.flows), load.each); err != nil {
					t.Errorf("%d flows, %d datagrams each, beside %d that wait: %v", load.flows, load.each, load.waiting, err)
				}
			}
		})
	}
	gate.stop(t)
}

// echoDatagrams sends back what comes to a port of a host, until the test ends.
func (n *namespaces) echoDatagrams(t *testing.T, host, at string) {
	t.Helper()
	server, err := within(n, host, func() (*net.UDPConn, error) {
		return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		buf := make([]byte, 65535)
		for {
			size, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			server.WriteToUDPAddrPort(buf[:size], from)
		}
	}()
}

// dialMany returns sockets of a host for dest, which live as long as the test.
func (n *namespaces) dialMany(t *testing.T, host string, dest netip.AddrPort, count int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, count)
	for i := range conns {
		conn, err := n.dial(t.Context(), host, "udp", dest)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns[i] = conn
	}
	return conns
}

// exchange sends datagrams by all of conns at once, by each the next when the
// answer is there.
func exchange(conns []net.Conn, each int) error {
	var workers sync.WaitGroup
	failed := make([]error, len(conns))
	for i, conn := range conns {
		workers.Go(func() {
			for j := range each {
				if err := exchangeOne(conn, bytes.Repeat([]byte{byte(j)}, 1+j%1400)); err != nil {
					failed[i] = fmt.Errorf("datagram %d of %s: %w", j, conn.LocalAddr(), err)
					return
				}
			}
		})
	}
	workers.Wait()
	return errors.Join(failed...)
}

func exchangeOne(conn net.Conn, b []byte) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	buf := make([]byte, 65535)
	size, err := conn.Read(buf)
	if err != nil {
		return err
	}
	if !bytes.Equal(buf[:size], b) {
		return fmt.Errorf("%d octets came back of %d, or others", size, len(b))
	}
	return nil
}
