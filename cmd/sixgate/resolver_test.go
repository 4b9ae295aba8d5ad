package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sixgate/appliance"
)

// testResolvers has one resolver after the other die while clients ask for names
// that nobody has asked for before.
func testResolvers(t *testing.T, n *namespaces) {
	servers := make([]net.PacketConn, 3)
	urls := make([]string, len(servers))
	at := func(i int) string { return fmt.Sprint("203.0.113.82:", 5301+i) }
	for i := range servers {
		servers[i] = n.resolver(t, at(i))
		urls[i] = "udp://" + at(i)
	}
	with := "[dns]\nrefuse-dot = true\nupstreams = [\"" + strings.Join(urls, `", "`) + `"]`
	gate := n.serve(t, "gate", strings.NewReplacer(
		"[dns]\nupstreams = [\"udp://203.0.113.53:53\"]", with,
		"[limits]", "[limits]\nnew-names-per-second = 0",
	).Replace(settings))
	t.Run("PortOfTLS", func(t *testing.T) { testPortOfTLS(t, n) })
	var load demand
	ctx, stop := context.WithCancel(t.Context())
	for range 4 {
		load.askers.Go(func() { load.run(ctx, n) })
	}
	down := func(want int) bool {
		var s appliance.Status
		if err := json.Unmarshal([]byte(n.run(t, "gate", n.binary, "status", "--json", "--config", n.config("gate"))), &s); err != nil {
			t.Fatal(err)
		}
		is := 0
		for _, r := range s.Resolvers {
			if r.Down {
				is++
			}
		}
		return is == want
	}
	for i := range servers {
		was := load.found.Load()
		n.await(t, "answers of the others", func() bool { return load.found.Load() > was+50 })
		if missed := load.missed.Load(); missed > 0 {
			t.Errorf("%d names were not found with %d resolvers dead", missed, i)
		}
		servers[i].Close()
		n.await(t, "word of a resolver that is down", func() bool { return down(i + 1) })
	}
	n.await(t, "an answer that tells of no resolver", func() bool { return load.missed.Load() > 0 })
	n.resolver(t, at(1))
	n.await(t, "word of one that is back", func() bool { return down(2) })
	was := load.found.Load()
	n.await(t, "its answers", func() bool { return load.found.Load() > was+50 })
	stop()
	load.askers.Wait()
	if denied := load.denied.Load(); denied > 0 {
		t.Errorf("%d names that exist did not", denied)
	}
	t.Logf("%d names were found, %d not, while there was no resolver; the slowest took %v",
		load.found.Load(), load.missed.Load(), time.Duration(load.slowest.Load()).Round(time.Millisecond))
	gate.stop(t)
}

// demand is clients that ask, and what they were told.
type demand struct {
	askers                       sync.WaitGroup
	asked, found, missed, denied atomic.Int64
	slowest                      atomic.Int64 // nanoseconds until a name was found
}

func (l *demand) run(ctx context.Context, n *namespaces) {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return n.dial(ctx, "lan", network, netip.MustParseAddrPort("192.168.77.1:53"))
	}}
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for ctx.Err() == nil {
		<-pace.C
		began := time.Now()
		_, err := resolver.LookupNetIP(ctx, "ip4", fmt.Sprintf("n%d.test.", l.asked.Add(1)))
		told, _ := errors.AsType[*net.DNSError](err)
		switch {
		case err == nil:
			l.found.Add(1)
			l.slowest.Store(max(l.slowest.Load(), int64(time.Since(began))))
		case ctx.Err() != nil:
		case told != nil && told.IsNotFound:
			l.denied.Add(1)
		default:
			l.missed.Add(1)
		}
	}
}

// resolver serves a world in which every name has one IPv4 address.
func (n *namespaces) resolver(t *testing.T, at string) net.PacketConn {
	t.Helper()
	conn, err := within(n, "world", func() (net.PacketConn, error) { return net.ListenPacket("udp", at) })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			size, from, err := conn.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			var m dnsmessage.Message
			if err != nil || m.Unpack(b[:size]) != nil {
				continue
			}
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: [4]byte{203, 0, 113, 80}},
				}}
			}
			if reply, err := m.Pack(); err == nil {
				conn.WriteTo(reply, from)
			}
		}
	}()
	return conn
}

// testPortOfTLS wants whoever asks others over TLS or QUIC to be told at once
// that this is not to be.
func testPortOfTLS(t *testing.T, n *namespaces) {
	for _, c := range []struct {
		client, server string
		udp            syscall.Errno // as the kernel has it of a message of ICMP
	}{{"lan", "203.0.113.53", syscall.EHOSTUNREACH}, {"lan6", "2001:db8:99::53", syscall.EACCES}} {
		dest := netip.AddrPortFrom(netip.MustParseAddr(c.server), 853)
		conn, err := n.dial(t.Context(), c.client, "tcp", dest)
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("TCP to %s: %v", dest, err)
		}
		for _, port := range []uint16{853, 8853} {
			dest := netip.AddrPortFrom(dest.Addr(), port)
			conn, err := n.dial(t.Context(), c.client, "udp", dest)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			if _, err := conn.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, c.udp) {
				t.Errorf("UDP to %s: %v, want %v", dest, err, c.udp)
			}
		}
	}
}
