package outlet

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sixgate/socks"
	"sixgate/socks/datagram"
)

// echoUDP answers each datagram at ip, preceded by "re: ".
func echoUDP(t *testing.T, ip string) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, datagram.Max); ; {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(append([]byte("re: "), buf[:n]...), from)
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// letters keeps what comes to a PacketConn.
type letters struct {
	PacketConn
	came chan letter
}

type letter struct {
	payload string
	from    socks.Addr
}

func lettersOf(p PacketConn) *letters {
	l := &letters{p, make(chan letter, 100)}
	p.Forward(func(b datagram.Batch, from socks.Addr) {
		for one := range b.Each {
			l.came <- letter{string(one.Payload), from}
		}
	})
	return l
}

// ask sends a datagram to dest and returns where the answer comes from.
func ask(t *testing.T, p *letters, dest socks.Addr, payload string) socks.Addr {
	t.Helper()
	if err := p.Find(t.Context(), dest); err != nil {
		t.Fatal(err)
	}
	if err := p.Send(datagram.Batch{Payload: []byte(payload), TTL: datagram.DefaultTTL}, dest); err != nil {
		t.Fatal(err)
	}
	got := next(t, p.came)
	if want := "re: " + payload; got.payload != want {
		t.Fatalf("got %q, want %q", got.payload, want)
	}
	return got.from
}

// Who is written to by IPv4 answers from IPv4, also through a translator: here
// one in whose addresses ::1 is 0.0.0.1.
func TestDirectPacketsThroughNAT64(t *testing.T) {
	echo := echoUDP(t, "::1")
	p, err := NewDirect(DirectConfig{
		Resolver: &hosts{},
		NAT64:    func() netip.Prefix { return netip.MustParsePrefix("::/96") },
	}).ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dest := socks.Addr{IP: netip.MustParseAddr("0.0.0.1"), Port: echo.Port()}
	if from := ask(t, lettersOf(p), dest, "hello"); from != dest {
		t.Errorf("the answer is from %s, want %s", from, dest)
	}
}

// One PacketConn speaks to both families, looks up each name once, and hears
// nobody that it did not write to.
func TestDirectPackets(t *testing.T) {
	echo4, echo6 := echoUDP(t, "127.0.0.1"), echoUDP(t, "::1")
	names := &hosts{known: map[string]string{"v4.test": "127.0.0.1", "v6.test": "::1"}}
	p, err := NewDirect(DirectConfig{Resolver: names, Vet: NewGuard(nil, nil, prefixes("127.0.0.1/32 ::1/128")).Vet}).ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	heard := lettersOf(p)
	local := int(p.(*directPackets).socket.LocalPort())
	stranger, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 77)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: local})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.Write([]byte("unasked"))
	for range 2 {
		for dest, want := range map[socks.Addr]netip.AddrPort{
			{Name: "v4.test", Port: echo4.Port()}: echo4,
			{Name: "v6.test", Port: echo6.Port()}: echo6,
			socks.AddrFromAddrPort(echo4):         echo4,
			socks.AddrFromAddrPort(echo6):         echo6,
		} {
			if from := ask(t, heard, dest, "hello"); from != socks.AddrFromAddrPort(want) {
				t.Errorf("%s answers from %s, want %s", dest, from, want)
			}
		}
	}
	slices.Sort(names.asked)
	if !slices.Equal(names.asked, []string{"v4.test", "v6.test"}) {
		t.Errorf("looked up %v", names.asked)
	}
	for dest, want := range map[socks.Addr]syscall.Errno{
		{Name: "unknown.test", Port: 1}:                    syscall.EHOSTUNREACH,
		{IP: netip.MustParseAddr("127.0.0.2"), Port: 1}:    syscall.EACCES,
		{IP: netip.MustParseAddr("224.0.0.1"), Port: 5353}: syscall.EACCES,
	} {
		if err := p.Find(t.Context(), dest); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", dest, err, want)
		}
	}
}

func TestRememberForgets(t *testing.T) {
	m := map[int]bool{}
	for i := range 2 * maxPeers {
		remember(m, i, true)
	}
	if len(m) != maxPeers || !m[2*maxPeers-1] {
		t.Errorf("%d entries", len(m))
	}
}

// Datagrams travel over three hops, each of the other family than the one
// before it, and names to the last alone.
func TestChainUDP(t *testing.T) {
	for _, target := range []string{"127.0.0.1", "::1"} {
		t.Run(target, func(t *testing.T) {
			echo := echoUDP(t, target)
			third := newNode(t, "127.0.0.1", map[string]string{"target.test": target})
			second := newNode(t, "::1", map[string]string{"third.test": "127.0.0.1"})
			first := newNode(t, "127.0.0.1", nil)
			local := &hosts{}
			var way Outlet = NewDirect(DirectConfig{Resolver: local})
			way = NewVia(way, socks.Client{Server: first.addr}, nil)
			way = NewVia(way, socks.Client{Server: second.addr}, nil)
			chain := NewVia(way, socks.Client{Server: socks.Addr{Name: "third.test", Port: third.addr.Port}}, nil)

			p, err := chain.ListenPacket(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			heard := lettersOf(p)
			name := socks.Addr{Name: "target.test", Port: echo.Port()}
			for _, dest := range []socks.Addr{name, socks.AddrFromAddrPort(echo)} {
				if from := ask(t, heard, dest, ""); from != socks.AddrFromAddrPort(echo) {
					t.Errorf("%s answers from %s", dest, from)
				}
			}
			third.hosts.mu.Lock()
			if len(local.asked) > 0 || !slices.Equal(third.asked, []string{"target.test"}) {
				t.Errorf("looked up %v here and %v there", local.asked, third.asked)
			}
			third.hosts.mu.Unlock()
		})
	}
}

// A hop that refuses UDP is not asked again for a while.
func TestViaRemembersNoUDP(t *testing.T) {
	n := newNode(t, "127.0.0.1", nil)
	n.noUDP = true
	v := NewVia(NewDirect(DirectConfig{}), socks.Client{Server: n.addr}, nil)
	for range 3 {
		if _, err := v.Reach(t.Context(), "udp", netip.AddrPort{}, name); !errors.Is(err, syscall.EOPNOTSUPP) {
			t.Errorf("got %v", err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seen) != 1 {
		t.Errorf("asked %d times", len(n.seen))
	}
	if h := v.Health(); h != (Health{Server: n.addr, Asked: 1, NoUDP: true}) {
		t.Errorf("health %+v", h)
	}
}

// The end of a hop is the end of what goes through it.
func TestViaPacketsEndWithHop(t *testing.T) {
	ln := listen(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- (&socks.Server{Handler: &node{}}).Serve(ctx, ln) }()
	server := socks.AddrFromAddrPort(ln.Addr().(*net.TCPAddr).AddrPort())
	p, err := NewVia(NewDirect(DirectConfig{}), socks.Client{Server: server}, nil).ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	cancel()
	next(t, p.Done())
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A server may have its relay where it is itself, or elsewhere where the Guard
// lets datagrams go: not on this host's loopback, nor in its LAN.
func TestViaVetsTheRelay(t *testing.T) {
	guard := NewGuard(nil, nil, prefixes("203.0.113.0/24"))
	for bound, want := range map[string]syscall.Errno{
		"01 7f000001 0007":                         0,
		"01 00000000 0007":                         0,
		"01 cb007107 0007":                         0,
		"01 7f000002 0035":                         syscall.EACCES,
		"04 00000000000000000000000000000001 0035": syscall.EACCES,
		"03 09 6c6f63616c686f7374 0035":            syscall.EPROTO,
	} {
		ln := listen(t, "127.0.0.1")
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			io.ReadFull(conn, make([]byte, 3))
			conn.Write([]byte{5, 0})
			io.ReadFull(conn, make([]byte, 10))
			reply, _ := hex.DecodeString(strings.ReplaceAll("05 00 00"+bound, " ", ""))
			conn.Write(reply)
			io.Copy(io.Discard, conn)
		}()
		server := socks.AddrFromAddrPort(ln.Addr().(*net.TCPAddr).AddrPort())
		p, err := NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: server}, guard.Vet).ListenPacket(t.Context())
		if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
			t.Errorf("a relay at %s: %v, want %v", bound, err, want)
		}
		if p != nil {
			p.Close()
		}
		<-done
	}
}

func TestReachable(t *testing.T) {
	v := NewVia(Reject{}, socks.Client{Server: name}, nil)
	chained := NewVia(v, socks.Client{Server: name}, nil)
	echo, _ := echoServer(t, "127.0.0.1")
	conn, err := net.Dial("tcp", echo.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	real := socks.Addr{IP: netip.MustParseAddr("192.0.2.1"), Port: 7}
	for _, tt := range []struct {
		via         *Via
		bound, want socks.Addr
	}{
		{v, real, real},
		{v, socks.Addr{Name: "x.test", Port: 7}, socks.Addr{Name: "x.test", Port: 7}},
		{v, socks.Addr{IP: netip.IPv4Unspecified(), Port: 7}, socks.Addr{IP: echo.Addr(), Port: 7}},
		{v, socks.Addr{Port: 7}, socks.Addr{IP: echo.Addr(), Port: 7}},
		{chained, socks.Addr{IP: netip.IPv6Unspecified(), Port: 7}, socks.Addr{Name: name.Name, Port: 7}},
	} {
		if got := tt.via.reachable(tt.bound, conn); got != tt.want {
			t.Errorf("%v is reached at %v, want %v", tt.bound, got, tt.want)
		}
	}
}

// A server behind a NAT tells its own address, which means nothing here.
func TestRelayBehindNAT(t *testing.T) {
	at := func(s string) socks.Addr { return socks.Addr{IP: netip.MustParseAddr(s), Port: 7} }
	first := NewVia(Reject{}, socks.Client{Server: name}, nil)
	conn, far := net.Pipe()
	defer conn.Close()
	defer far.Close()
	for _, tt := range []struct{ server, bound, want string }{
		{"203.0.113.9", "10.0.0.2", "203.0.113.9"},
		{"203.0.113.9", "127.0.0.1", "203.0.113.9"},
		{"203.0.113.9", "169.254.0.1", "203.0.113.9"},
		{"203.0.113.9", "fd00::2", "203.0.113.9"},
		{"203.0.113.9", "198.51.100.1", "198.51.100.1"},
		{"2001:db8::9", "fd00::2", "2001:db8::9"},
		{"10.0.0.1", "10.0.0.2", "10.0.0.2"},
		{"127.0.0.1", "127.0.0.2", "127.0.0.2"},
	} {
		v := NewVia(first, socks.Client{Server: at(tt.server)}, nil) // chained, so that its own address counts
		if got := v.relay(at(tt.bound), conn); got != at(tt.want) {
			t.Errorf("of the server %s the relay %s is at %v, want %s", tt.server, tt.bound, got, tt.want)
		}
	}
}

func TestRemember(t *testing.T) {
	m := map[int]bool{}
	for i := range maxPeers + 10 {
		remember(m, i, true)
	}
	if len(m) != maxPeers || !m[maxPeers+9] {
		t.Errorf("%d are remembered, the latest among them: %v", len(m), m[maxPeers+9])
	}
	before := maps.Clone(m)
	for i := range before {
		remember(m, i, true) // takes nobody's place
	}
	if !maps.Equal(m, before) {
		t.Error("what was known already has taken the place of something")
	}
}
