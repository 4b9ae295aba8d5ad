package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// offered is what the senders of datagrams send, in bits of payload a second.
	offered = 1e9
	// large is a payload that fits any path, with room for what QUIC and the
	// like put around it, in bytes.
	large = 1400
	// bundle is how many datagrams a sender hands to the kernel in one call, as
	// QUIC libraries do.
	bundle = 40
	// backlog is what a socket of the server may hold, in bytes: it is not what
	// is measured.
	backlog = 16 << 20
)

// datagrams are the scenarios of UDP.
func datagrams() []scenario {
	exchanges := &table{"Datagrams, each of which is answered", []measure{
		{"packets a second", func(r reading) float64 { return 2 * float64(r.Exchanges) / r.Seconds }, overKernel},
		{"CPU-s per million", func(r reading) float64 { return r.program() / (2 * float64(r.Exchanges)) * 1e6 }, nothing},
		{"p50 us", func(r reading) float64 { return r.P50 * 1e6 }, overKernel},
		{"lost", func(r reading) float64 { return float64(r.Errors) }, nothing},
	}}
	stream := &table{"Datagrams of 1400 bytes one way, 1 Gbit/s of them", []measure{
		{"Gbit/s", func(r reading) float64 { return r.Bytes * 8 / 1e9 / r.Seconds }, nothing},
		{"lost %", func(r reading) float64 { return 100 * max(0, 1-r.Bytes/r.Sent) }, nothing},
		{"CPU-s/GiB", func(r reading) float64 { return r.program() / (r.Bytes / gib) }, nothing},
		{"CPU-s per million", func(r reading) float64 { return r.program() / (r.Bytes / large) * 1e6 }, nothing},
		{"machine CPU-s/GiB", func(r reading) float64 { return r.machine() / (r.Bytes / gib) }, nothing},
	}}
	room := &table{"Memory with silent flows of UDP", []measure{
		{"RSS MiB", func(r reading) float64 { return r.after.rss() / (1 << 20) }, nothing},
		{"KiB a flow", func(r reading) float64 { return (r.after.rss() - r.before.rss()) / 1024 / float64(r.n) }, nothing},
	}}
	return []scenario{
		{name: "udp/64-1", table: exchanges, load: "small", n: 1},
		{name: "udp/64-64", table: exchanges, load: "small", n: 64},
		{name: "udp/1400-1", table: exchanges, load: "large", n: 1},
		{name: "udp/1400-64", table: exchanges, load: "large", n: 64},
		{name: "udp/plain-1", table: stream, load: "single", n: 1},
		{name: "udp/plain-64", table: stream, load: "single", n: 64},
		{name: "udp/merged-1", table: stream, load: "bundled", n: 1},
		{name: "udp/idle-10000", table: room, load: "silent", n: 10000},
	}
}

// serveDatagrams answers on the UDP ports of the server.
func serveDatagrams() error {
	echoes, err := listenUDP(echoPort)
	if err != nil {
		return err
	}
	counted, err := listenUDP(discardPort)
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, block)
		for {
			n, from, err := echoes.ReadFromUDPAddrPort(buf)
			if err != nil && errors.Is(err, net.ErrClosed) {
				return
			}
			echoes.WriteToUDPAddrPort(buf[:n], from) // a lost one is counted by who waits
		}
	}()
	go count(counted)
	return nil
}

func listenUDP(port int) (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err != nil {
		return nil, err
	}
	return conn, enlarge(conn)
}

// enlarge gives a socket a large backlog, in which the kernel may join
// datagrams.
func enlarge(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, backlog),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, backlog),
		)
	})
	return errors.Join(err, failed)
}

// count counts the bytes that come, and tells who sends a single one how many
// there were, as eight bytes, big endian.
func count(conn *net.UDPConn) {
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
	}
	var sum uint64
	for buf := make([]byte, block); ; {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil && errors.Is(err, net.ErrClosed) {
			return
		}
		if n == 1 {
			conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, sum), from)
			continue
		}
		sum += uint64(n)
	}
}

// letterBox is a socket for the datagrams of one destination.
type letterBox struct {
	*net.UDPConn
	header []byte // that the SOCKS server on the way wants before each, if there is one
	buf    [64 << 10]byte
}

func dialUDP(ctx context.Context, server netip.Addr, port uint16) (*letterBox, error) {
	box, to := &letterBox{}, netip.AddrPortFrom(server, port)
	if proxy, ok := ctx.Value(proxied{}).(string); ok {
		relay, err := associateSOCKS(ctx, proxy)
		if err != nil {
			return nil, err
		}
		box.header, to = append([]byte{0, 0, 0}, addressSOCKS(to)...), relay
	}
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	box.UDPConn = conn
	return box, enlarge(conn)
}

// Write sends b, or as many datagrams as merge has made of it.
func (l *letterBox) Write(b []byte) (int, error) {
	if len(l.header) == 0 {
		return l.UDPConn.Write(b)
	}
	out := l.buf[:0]
	for rest := b; ; {
		one := rest[:min(len(rest), large)]
		out, rest = append(append(out, l.header...), one...), rest[len(one):]
		if len(rest) == 0 {
			break
		}
	}
	_, err := l.UDPConn.Write(out)
	return len(b), err
}

func (l *letterBox) Read(b []byte) (int, error) {
	n, err := l.UDPConn.Read(l.buf[:])
	return copy(b, l.buf[min(n, len(l.header)):n]), err
}

// letters makes exchanges of datagrams of this size over n sockets at once.
func letters(size int) func(context.Context, netip.Addr, int, time.Duration) (done, error) {
	return func(ctx context.Context, server netip.Addr, n int, length time.Duration) (done, error) {
		conns := make([]*letterBox, n)
		for i := range conns {
			conn, err := dialUDP(ctx, server, echoPort)
			if err != nil {
				return done{}, err
			}
			conns[i] = conn
		}
		return repeat(ctx, n, length, func(i int) error { return post(conns[i], size) })
	}
}

// post sends a datagram and waits for its echo.
func post(conn *letterBox, size int) error {
	buf := make([]byte, size)
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write(buf); err != nil {
		return err
	}
	_, err := conn.Read(buf)
	return err
}

// send sends what is offered over n sockets, each datagram on its own or
// bundles of them, and counts what the server says has come.
func send(bundled bool) func(context.Context, netip.Addr, int, time.Duration) (done, error) {
	return func(ctx context.Context, server netip.Addr, n int, length time.Duration) (done, error) {
		conns := make([]*letterBox, n)
		var err error
		for i := range conns {
			if conns[i], err = dialUDP(ctx, server, discardPort); err != nil {
				return done{}, err
			}
			if bundled {
				err = merge(conns[i])
			}
			if err != nil {
				return done{}, err
			}
		}
		size := large
		if bundled {
			size = bundle * large
		}
		before, err := counted(conns[0])
		if err != nil {
			return done{}, err
		}
		var sent float64
		start := time.Now()
		for buf, i := make([]byte, size), 0; time.Since(start) < length && ctx.Err() == nil; i++ {
			if due := time.Since(start).Seconds() * offered / 8; sent > due {
				time.Sleep(100 * time.Microsecond)
				continue
			}
			if _, err := conns[i%n].Write(buf); err != nil {
				return done{}, fmt.Errorf("sending datagrams: %w", err)
			}
			sent += float64(size)
		}
		took := time.Since(start)
		time.Sleep(settle / 2) // for what is under way
		after, err := counted(conns[0])
		return done{Seconds: took.Seconds(), Bytes: float64(after - before), Sent: sent}, err
	}
}

// merge makes the kernel cut what is written to a socket into datagrams.
func merge(conn *letterBox) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, large+len(conn.header))
	})
	return errors.Join(err, failed)
}

// counted asks the server how much has come.
func counted(conn *letterBox) (uint64, error) {
	var failed error
	for range 50 {
		if err := conn.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return 0, err
		}
		var count [8]byte
		if _, failed = conn.Write([]byte{0}); failed == nil {
			if _, failed = conn.Read(count[:]); failed == nil {
				return binary.BigEndian.Uint64(count[:]), conn.SetDeadline(time.Time{})
			}
		}
	}
	return 0, fmt.Errorf("asking how much has come: %w", failed)
}

// silent opens n flows, each of which has carried a message, and leaves them.
func silent(ctx context.Context, server netip.Addr, n int, _ time.Duration) (done, error) {
	start := time.Now()
	for i := range n {
		conn, err := dialUDP(ctx, server, echoPort)
		if err != nil {
			return done{}, err
		}
		context.AfterFunc(ctx, func() { conn.Close() })
		if err := post(conn, message); err != nil {
			return done{}, fmt.Errorf("opening flow %d of %d: %w", i+1, n, err)
		}
	}
	return done{Seconds: time.Since(start).Seconds()}, nil
}
