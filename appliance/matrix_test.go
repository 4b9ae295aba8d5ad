package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
	"sixgate/socks"
	"sixgate/socks/datagram"
	"sixgate/socks/gateway"
	"sixgate/socks/outlet"
	"sixgate/stack"
	"sixgate/stack/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	far4 = netip.MustParseAddr("127.0.0.1")
	far6 = netip.MustParseAddr("::1")
)

// world is what the gateway reaches: a resolver, and a host that echoes TCP
// and UDP on one port of both loopback addresses, each answer preceded by the
// family it was asked by.
type world struct {
	resolver netip.AddrPort
	port     uint16
}

// zone holds the names of the world.
var zone = map[string][]netip.Addr{
	"dual.test.":   {far4, far6},
	"v4only.test.": {far4},
	"v6only.test.": {far6},
	"empty.test.":  {},
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	pc := listenUDP(t, netip.AddrPortFrom(far4, 0))
	w.resolver = addrPort(pc.LocalAddr())
	serveDatagrams(t, pc, resolveIn(zone))
	for range 100 { // the port that one family gave may be taken in the other
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.port = addrPort(ln.Addr()).Port()
		if w.echo(t, ln) {
			return w
		}
		ln.Close()
	}
	t.Fatal("no port is free for both families and protocols")
	return nil
}

// echo serves ln and the same port of the other family and protocol, or
// reports that one is taken.
func (w *world) echo(t *testing.T, ln net.Listener) bool {
	ln6, err := net.Listen("tcp", netip.AddrPortFrom(far6, w.port).String())
	if err != nil {
		return false
	}
	for ln, family := range map[net.Listener]string{ln: "4", ln6: "6"} {
		serveStreams(t, ln, func(c net.Conn) {
			io.WriteString(c, family)
			io.Copy(c, c)
		})
	}
	for ip, family := range map[netip.Addr]string{far4: "4", far6: "6"} {
		pc := listenUDP(t, netip.AddrPortFrom(ip, w.port))
		serveDatagrams(t, pc, func(b []byte) []byte { return append([]byte(family), b...) })
	}
	return true
}

func listenUDP(t *testing.T, addr netip.AddrPort) net.PacketConn {
	t.Helper()
	pc, err := net.ListenPacket("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return pc
}

// serveStreams serves each connection of ln until the test ends.
func serveStreams(t *testing.T, ln net.Listener, serve func(net.Conn)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
}

// serveDatagrams answers each datagram of pc until the test ends.
func serveDatagrams(t *testing.T, pc net.PacketConn, answer func([]byte) []byte) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(answer(buf[:n]), from)
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
}

// resolveIn returns what answers a query out of zone.
func resolveIn(zone map[string][]netip.Addr) func(query []byte) []byte {
	return func(query []byte) []byte { return resolve(zone, query) }
}

func resolve(zone map[string][]netip.Addr, query []byte) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	q := m.Questions[0]
	ips, known := zone[strings.ToLower(q.Name.String())] // its case is random
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}
	for _, ip := range ips {
		switch {
		case ip.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: ip.As4()}})
		case ip.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// box is a gateway in memory: its parts, its SOCKS server on both loopback
// addresses, and a client host on its TUN.
type box struct {
	config *config.Config
	parts  *parts
	socks4 socks.Addr
	socks6 socks.Addr
	client *stacktest.Host
}

// newBox starts a gateway that may reach loopback, and ends it with the test.
func newBox(t *testing.T, w *world, change func(*config.Config)) *box {
	t.Helper()
	c := config.Default()
	c.DNS.Upstreams = []config.Upstream{{Network: "udp", Addr: w.resolver}}
	c.DNS.Fake = config.FakeAlways
	c.Direct.Mark = 0 // needs a capability
	c.Direct.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.PrefixFrom(far6, 128)}
	if change != nil {
		change(c)
	}
	p, err := build(c, &machine{ipv6: true}, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	b := &box{config: c, parts: p}
	client, device := stacktest.New(t)
	b.client = client
	packets, err := stack.New(stack.Config{Device: device, MTU: c.TUN.MTU, Handler: p.tun})
	if err != nil {
		t.Fatal(err)
	}
	p.tun.packets.Store(packets)
	ctx, cancel := context.WithCancel(context.Background())
	var running []func() error
	run := func(f func() error) {
		done := make(chan error, 1)
		go func() { done <- f() }()
		running = append(running, func() error { return <-done })
	}
	run(func() error { return packets.Run(ctx) })
	for ip, addr := range map[netip.Addr]*socks.Addr{far4: &b.socks4, far6: &b.socks6} {
		ln, err := net.Listen("tcp", netip.AddrPortFrom(ip, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		*addr = socks.AddrFromAddrPort(addrPort(ln.Addr()))
		run(func() error { return p.socks.Serve(ctx, ln) })
	}
	t.Cleanup(func() {
		cut, now := context.WithCancel(context.Background())
		now()
		cancel()
		p.gateway.Shutdown(cut)
		for _, wait := range running {
			if err := wait(); err != nil {
				t.Error(err)
			}
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func addrPort(a net.Addr) netip.AddrPort {
	return a.(interface{ AddrPort() netip.AddrPort }).AddrPort()
}

// dialTUN resolves name by the gateway's DNS and dials the fake address, all
// through the TUN and all in the family of the client.
func (b *box) dialTUN(ctx context.Context, network string, client6 bool, name string, port uint16) (net.Conn, error) {
	server, qtype := netip.MustParseAddrPort("198.18.0.9:53"), dnsmessage.TypeA
	if client6 {
		server, qtype = netip.MustParseAddrPort("[2001:2::9]:53"), dnsmessage.TypeAAAA
	}
	dns, err := b.client.DialUDP(server)
	if err != nil {
		return nil, err
	}
	defer dns.Close()
	ip, err := ask(ctx, dns, name, qtype)
	if err != nil {
		return nil, err
	}
	if !b.parts.table.Contains(ip) {
		return nil, fmt.Errorf("%s is %s, which is no fake address", name, ip)
	}
	if network == "udp" {
		return b.client.DialUDP(netip.AddrPortFrom(ip, port))
	}
	return b.client.DialTCP(ctx, netip.AddrPortFrom(ip, port))
}

// ask returns the one address that a DNS server on conn gives for name.
func ask(ctx context.Context, conn net.Conn, name string, qtype dnsmessage.Type) (netip.Addr, error) {
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: qtype, Class: dnsmessage.ClassINET}},
	}
	b, err := query.Pack()
	if err != nil {
		return netip.Addr{}, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := conn.Write(b); err != nil {
		return netip.Addr{}, err
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		return netip.Addr{}, err
	}
	var reply dnsmessage.Message
	if err := reply.Unpack(buf[:n]); err != nil {
		return netip.Addr{}, err
	}
	for _, rr := range reply.Answers {
		switch body := rr.Body.(type) {
		case *dnsmessage.AResource:
			return netip.AddrFrom4(body.A), nil
		case *dnsmessage.AAAAResource:
			return netip.AddrFrom16(body.AAAA), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s: %s without address", name, reply.RCode)
}

// dialSOCKS connects to dest through the gateway's SOCKS server.
func (b *box) dialSOCKS(ctx context.Context, network string, client6 bool, dest socks.Addr) (net.Conn, error) {
	server := b.socks4
	if client6 {
		server = b.socks6
	}
	via := outlet.NewVia(outlet.NewDirect(outlet.DirectConfig{}), socks.Client{Server: server}, nil)
	if network == "tcp" {
		return via.Dial(ctx, network, dest)
	}
	packets, err := via.ListenPacket(ctx)
	if err != nil {
		return nil, err
	}
	return newDatagrams(packets, dest), nil
}

// datagrams is a net.Conn to one destination of a PacketConn.
type datagrams struct {
	net.Conn // the end of a pipe, at whose other end the answers come in
	packets  outlet.PacketConn
	dest     socks.Addr
}

func newDatagrams(packets outlet.PacketConn, dest socks.Addr) *datagrams {
	near, far := net.Pipe()
	packets.Forward(func(b datagram.Batch, _ socks.Addr) { far.Write(b.Payload) }) // ends with near
	return &datagrams{near, packets, dest}
}

func (d *datagrams) Write(b []byte) (int, error) {
	if err := d.packets.Find(context.Background(), d.dest); err != nil {
		return 0, err
	}
	return len(b), d.packets.Send(datagram.Batch{Payload: b, TTL: datagram.DefaultTTL}, d.dest)
}

func (d *datagrams) Close() error {
	d.Conn.Close() // never fails
	return d.packets.Close()
}

// exchange sends a message over conn and checks the echo and the family that
// the far side was reached by.
func exchange(t *testing.T, conn net.Conn, family string) {
	t.Helper()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	const message = "hello across"
	if _, err := io.WriteString(conn, message); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(family)+len(message))
	for read := 0; read < len(got); { // a datagram comes whole, a stream in any parts
		n, err := conn.Read(got[read:])
		if err != nil {
			t.Fatalf("after %q: %v", got[:read], err)
		}
		read += n
	}
	if want := family + message; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestMatrix is RFC 3089, section 2 as a table: each of the four types, from
// the TUN and from SOCKS, directly and through one further gateway, by name
// and where there is one by literal.
func TestMatrix(t *testing.T) {
	w := newWorld(t)
	direct := newBox(t, w, nil)
	last := newBox(t, w, nil)
	chain := func(hop socks.Addr) *box {
		return newBox(t, w, func(c *config.Config) {
			c.DNS.Upstreams = []config.Upstream{{Network: "udp", Addr: netip.AddrPortFrom(far4, 9)}} // nobody: names must travel
			c.Outlets = []config.Outlet{{Name: "far", Type: config.OutletSOCKS5, Server: hop}}
			c.Rules = []config.Rule{{Outlet: "far"}}
		})
	}
	boxes := map[string]*box{
		"direct": direct, "chain over IPv4": chain(last.socks4), "chain over IPv6": chain(last.socks6),
	}
	types := []struct {
		typ     gateway.Type
		client6 bool
		name    string
		literal netip.Addr
		family  string
	}{
		{gateway.A, false, "v4only.test", far4, "4"},
		{gateway.B, false, "v6only.test", far6, "6"},
		{gateway.C, true, "v4only.test", far4, "4"},
		{gateway.D, true, "v6only.test", far6, "6"},
	}
	for path, b := range boxes {
		for _, tt := range types {
			byName := socks.Addr{Name: tt.name, Port: w.port}
			byLiteral := socks.Addr{IP: tt.literal, Port: w.port}
			dials := map[string]func(context.Context) (net.Conn, error){
				"TUN/tcp/name":      func(ctx context.Context) (net.Conn, error) { return b.dialTUN(ctx, "tcp", tt.client6, tt.name, w.port) },
				"TUN/udp/name":      func(ctx context.Context) (net.Conn, error) { return b.dialTUN(ctx, "udp", tt.client6, tt.name, w.port) },
				"SOCKS/tcp/name":    func(ctx context.Context) (net.Conn, error) { return b.dialSOCKS(ctx, "tcp", tt.client6, byName) },
				"SOCKS/tcp/literal": func(ctx context.Context) (net.Conn, error) { return b.dialSOCKS(ctx, "tcp", tt.client6, byLiteral) },
				"SOCKS/udp/name":    func(ctx context.Context) (net.Conn, error) { return b.dialSOCKS(ctx, "udp", tt.client6, byName) },
				"SOCKS/udp/literal": func(ctx context.Context) (net.Conn, error) { return b.dialSOCKS(ctx, "udp", tt.client6, byLiteral) },
			}
			for way, dial := range dials {
				t.Run(fmt.Sprintf("%s/%s/%s", path, way, tt.typ), func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					// No hop tells the family that a name has at the far end.
					any := path != "direct" && way == "TUN/udp/name"
					joined := func() (sum uint64) {
						for kind, n := range b.parts.gateway.Counters().Joined {
							if any || kind.Type == tt.typ {
								sum += n
							}
						}
						return sum
					}
					before := joined()
					conn, err := dial(ctx)
					if err != nil {
						t.Fatal(err)
					}
					exchange(t, conn, tt.family)
					if after := joined(); after != before+1 {
						t.Errorf("%d sessions of type %s, want one", after-before, tt.typ)
					}
				})
			}
		}
	}
}

// TestResolve asks Tor's RESOLVE of a gateway, and of one that has to pass it
// on.
func TestResolve(t *testing.T) {
	w := newWorld(t)
	last := newBox(t, w, nil)
	first := newBox(t, w, func(c *config.Config) {
		c.Outlets = []config.Outlet{{Name: "far", Type: config.OutletSOCKS5, Server: last.socks6}}
		c.Rules = []config.Rule{{Outlet: "far"}}
	})
	for _, b := range []*box{last, first} {
		way := outlet.NewVia(outlet.NewDirect(outlet.DirectConfig{}), socks.Client{Server: b.socks4}, nil)
		for name, want := range map[string]netip.Addr{"v4only.test": far4, "v6only.test": far6} {
			if ip, err := way.Resolve(t.Context(), name); ip != want || err != nil {
				t.Errorf("%s is %s, %v", name, ip, err)
			}
		}
		if _, err := way.Resolve(t.Context(), "none.test"); !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("got %v", err)
		}
	}
}

// TestFamilies says what clients of each kind of network are told.
func TestFamilies(t *testing.T) {
	prefixes := func(ss ...string) (ps []netip.Prefix) {
		for _, s := range ss {
			ps = append(ps, netip.MustParsePrefix(s))
		}
		return ps
	}
	v4, v6, dual := dnsfake.Families{IPv4: true}, dnsfake.Families{IPv6: true}, dnsfake.Families{IPv4: true, IPv6: true}
	m := &machine{ipv6: true}
	for name, addresses := range map[string][]netip.Prefix{
		"lan0": prefixes("192.168.77.1/24", "fe80::1/64"),
		"lan6": prefixes("fd00:77::1/64", "fe80::2/64"),
		"both": prefixes("192.168.78.1/24", "fd00:78::1/64"),
	} {
		m.lan = append(m.lan, lan{name: name, addresses: addresses, families: families(config.FamiliesAuto, addresses)})
	}
	for _, tt := range []struct {
		m      *machine
		client string
		want   dnsfake.Families
	}{
		{m, "192.168.77.9", v4},
		{m, "fd00:77::9", v6},
		{m, "192.168.78.9", dual},
		{m, "fd00:78::9", dual},
		{m, "fe80::9%lan0", v4},
		{m, "fe80::9%lan6", v6},
		{m, "fe80::9%elsewhere", dual},
		{m, "10.1.1.1", dual},
		{m, "127.0.0.1", dual},
		{&machine{ipv6: true}, "127.0.0.1", dual},
		{&machine{}, "127.0.0.1", v4},
		{&machine{lan: []lan{{addresses: prefixes("192.168.77.1/24"), families: v4}}}, "10.1.1.1", v4},
	} {
		if got := tt.m.clientFamilies(netip.MustParseAddr(tt.client)); got != tt.want {
			t.Errorf("clientFamilies(%s) = %+v, want %+v", tt.client, got, tt.want)
		}
	}
}
