package dnsfake

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// start runs serve until the test ends, and wants it to return nil then.
func start(t *testing.T, serve func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// dial returns a connection to s over TCP.
func dial(t *testing.T, s *Server) *net.TCPConn {
	t.Helper()
	pc, ln := listen(t)
	pc.Close()
	start(t, func(ctx context.Context) error { return s.ServeListener(ctx, ln) })
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn.(*net.TCPConn)
}

func TestServePacket(t *testing.T) {
	s := server(t, serve(t, testZone), Config{Clients: func(client netip.Addr) Families {
		return Families{IPv4: client == netip.MustParseAddr("127.0.0.1")}
	}})
	pc, ln := listen(t)
	ln.Close()
	addr := pc.LocalAddr().String()
	start(t, func(ctx context.Context) error { return s.ServePacket(ctx, pc) })
	m, err := dns.Exchange(query("six.example.", "A"), addr)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := brief(s, m), "six.example. 60 A fake six.example"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestRepliesLeaveFromWhereQueriesWent sends to sockets on every address at
// another than the first, from one that takes replies from there alone, and
// twice, as the second reply is at hand.
func TestRepliesLeaveFromWhereQueriesWent(t *testing.T) {
	s := server(t, serve(t, testZone), Config{})
	for _, c := range [][3]string{
		{"udp", ":0", "127.0.0.2"},
		{"udp", ":0", "::1"},
		{"udp4", "0.0.0.0:0", "127.0.0.2"},
		{"udp6", "[::]:0", "::1"},
		{"udp4", "127.0.0.2:0", "127.0.0.2"},
	} {
		pc, err := net.ListenPacket(c[0], c[1])
		if err != nil {
			t.Fatal(err)
		}
		start(t, func(ctx context.Context) error { return s.ServePacket(ctx, pc.(*net.UDPConn)) })
		_, port, err := net.SplitHostPort(pc.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		client, err := dns.Dial("udp", net.JoinHostPort(c[2], port))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for replies, tries := 0, 0; replies < 2; tries++ {
			if err := client.WriteMsg(query("four.example.", "A")); err != nil {
				t.Fatal(err)
			}
			client.SetReadDeadline(time.Now().Add(time.Second))
			// What arrives before the server runs goes unanswered.
			if _, err := client.ReadMsg(); err == nil {
				replies++
			} else if tries > 10 {
				t.Fatalf("%v: %v", c, err)
			}
		}
	}
}

// TestQueriesThatWaitTogether has more than a batch of them wait, to addresses
// of their own, from clients of their own, some of which get no reply.
func TestQueriesThatWaitTogether(t *testing.T) {
	s := server(t, serve(t, testZone), Config{})
	pc, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := wantPacketInfo(pc.(*net.UDPConn)); err != nil { // of what comes before it is served
		t.Fatal(err)
	}
	port := pc.LocalAddr().(*net.UDPAddr).Port
	exchange(t, s, query("six.example.", "A")) // from now on it is at hand
	type asker struct {
		conn *net.UDPConn
		id   uint16
	}
	var askers []asker
	for i := range 3*maxBatch + 1 {
		c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(i)+1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		q := query("six.example.", "A")
		if i%5 == 1 { // has to be looked up
			q = query(fmt.Sprintf("n%d.lazy.example.", i), "A")
		}
		wire, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if i%5 == 2 { // a response
			wire[2] |= 1 << 7
		} else {
			askers = append(askers, asker{c, q.Id})
		}
		if _, err := c.Write(wire); err != nil {
			t.Fatal(err)
		}
	}
	start(t, func(ctx context.Context) error { return s.ServePacket(ctx, pc.(*net.UDPConn)) })
	for _, a := range askers {
		var reply [512]byte
		n, err := a.conn.Read(reply[:])
		if err != nil {
			t.Fatalf("%v: %v", a.conn.RemoteAddr(), err)
		}
		if id := binary.BigEndian.Uint16(reply[:n]); id != a.id || reply[2]>>7 != 1 {
			t.Errorf("%v: got ID %d, want %d", a.conn.RemoteAddr(), id, a.id)
		}
	}
}

func TestServePacketReturnsErrors(t *testing.T) {
	s := server(t, serve(t, testZone), Config{})
	pc, ln := listen(t)
	ln.Close()
	pc.Close()
	if err := s.ServePacket(t.Context(), pc); err == nil {
		t.Error("no error from a closed socket")
	}
	if err := s.ServeListener(t.Context(), ln); err == nil {
		t.Error("no error from a closed listener")
	}
}

// TestStreamsAnswerOutOfOrder pipelines a query that upstream holds back before
// many others, then half-closes.
func TestStreamsAnswerOutOfOrder(t *testing.T) {
	up := serve(t, testZone)
	release := make(chan struct{})
	up.on("slow.example. TXT", func(*dns.Msg) bool {
		<-release
		return true
	})
	conn := dial(t, server(t, up, Config{}))
	names := []string{"slow.example."}
	for i := range 200 { // more than are answered at a time
		names = append(names, fmt.Sprintf("n%d.example.", i))
	}
	written := make(chan error, 1)
	go func() {
		var stream []byte
		for i, name := range names {
			q := query(name, "TXT")
			q.Id = uint16(i)
			wire, err := q.Pack()
			if err != nil {
				written <- err
				return
			}
			stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(wire))), wire...)
		}
		for i := 0; i < len(stream); i += 700 { // across messages
			if _, err := conn.Write(stream[i:min(i+700, len(stream))]); err != nil {
				written <- err
				return
			}
		}
		written <- conn.CloseWrite()
	}()
	for i := range names {
		wire, err := readMessage(conn)
		if err != nil {
			t.Fatalf("after %d replies: %v", i, err)
		}
		var m dns.Msg
		if err := m.Unpack(wire); err != nil || m.Question[0].Name != names[m.Id] {
			t.Fatalf("reply %v, %v", &m, err)
		}
		if (m.Id == 0) != (i == len(names)-1) {
			t.Fatalf("reply %d is to query %d", i, m.Id)
		}
		if i == len(names)-2 {
			close(release)
		}
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	if _, err := readMessage(conn); err == nil {
		t.Error("the connection stays open after the last reply")
	}
}

// TestKeepalive asks how long a connection may be idle (RFC 7828).
func TestKeepalive(t *testing.T) {
	s := server(t, serve(t, testZone), Config{})
	for _, c := range []struct {
		what         string
		stream, asks bool
		want         uint16 // tenths of a second; 0: not told
	}{
		{"over a stream", true, true, 150},
		{"over a stream, not asked", true, false, 0},
		{"in a datagram", false, true, 0},
	} {
		q := query("four.example.", "A").SetEdns0(1232, false)
		if c.asks {
			q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_TCP_KEEPALIVE{}}
		}
		wire, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second could be what the first left
			var m dns.Msg
			if err := m.Unpack(s.Reply(t.Context(), wire, netip.MustParseAddrPort("127.0.0.1:53"), c.stream)); err != nil {
				t.Fatal(err)
			}
			got := uint16(0)
			for _, option := range m.IsEdns0().Option {
				got = option.(*dns.EDNS0_TCP_KEEPALIVE).Timeout
			}
			if len(m.Answer) != 1 || got != c.want {
				t.Errorf("%s: %d records, timeout %d, want 1 and %d", c.what, len(m.Answer), got, c.want)
			}
		}
	}
}

// TestIdleStreamsAreClosed is in a bubble, where time passes when all wait.
func TestIdleStreamsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Table: table(t, "198.18.0.0/15", "2001:2::/48", nil), Resolver: everything{}})
		if err != nil {
			t.Fatal(err)
		}
		wire, err := query("a.example.", "TXT").Pack()
		if err != nil {
			t.Fatal(err)
		}
		client, conn := net.Pipe()
		defer client.Close()
		go s.ServeStream(t.Context(), conn)
		for _, pause := range []time.Duration{0, streamIdle - time.Second} {
			time.Sleep(pause)
			if _, err := client.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)); err != nil {
				t.Fatal(err)
			}
			if _, err := readMessage(client); err != nil {
				t.Fatal(err)
			}
		}
		last := time.Now()
		if _, err := readMessage(client); err != io.EOF || time.Since(last) != streamIdle {
			t.Errorf("%v after %v, want the end after %v", err, time.Since(last), streamIdle)
		}
	})
}

// TestStreamsAreBounded opens one connection too many.
func TestStreamsAreBounded(t *testing.T) {
	s := server(t, serve(t, testZone), Config{})
	for range clientStreams {
		s.streams.take(netip.MustParseAddr("127.0.0.1"))
	}
	if _, err := dial(t, s).Read(make([]byte, 1)); err != io.EOF || s.Counters().Dropped != 1 {
		t.Errorf("reading gave %v, want the end", err)
	}
}

// TestStopWithQueriesUnderWay ends a server whose upstream hangs.
func TestStopWithQueriesUnderWay(t *testing.T) {
	up := serve(t, testZone)
	arrived := make(chan struct{}, 10)
	up.on("slow.example. TXT", func(*dns.Msg) bool {
		arrived <- struct{}{}
		return false
	})
	s := server(t, up, Config{})
	client, conn := net.Pipe()
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeStream(ctx, conn)
	}()
	wire, err := query("slow.example.", "TXT").Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)); err != nil {
		t.Fatal(err)
	}
	<-arrived
	cancel()
	<-done
}

// BenchmarkReply answers for a name that was asked for before.
func BenchmarkReply(b *testing.B) {
	for what, c := range map[string]struct {
		conf  Config
		query string
	}{
		"fake":   {Config{Clients: clients("4"), Policy: policy(b, nil, nil, 50)}, "six.example."},
		"real":   {Config{Clients: clients("4"), Policy: policy(b, nil, nil, 50)}, "four.example."},
		"nodata": {Config{Clients: clients("4"), Policy: policy(b, nil, nil, 50)}, "mail.example."},
	} {
		wire, err := query(c.query, "A").Pack()
		if err != nil {
			b.Fatal(err)
		}
		s := server(b, serve(b, testZone), c.conf)
		loopback := netip.MustParseAddrPort("127.0.0.1:53")
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Reply(b.Context(), wire, loopback, false)
			}
		})
		b.Run(what+" anew", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.slow(b.Context(), wire, loopback.Addr(), false)
			}
		})
	}
}

// TestAnswered tells what stands in the way of a connection, and what does not.
func TestAnswered(t *testing.T) {
	var told []string
	s := server(t, serve(t, "a.example. 60 A 192.0.2.1\nsome.example. 60 TXT x"), Config{
		Answered: func(_ netip.Addr, question, why string, _ time.Duration) {
			told = append(told, question+": "+why)
		},
	})
	for _, q := range [][2]string{
		{"a.example.", "A"}, {"some.example.", "A"}, {"nowhere.example.", "AAAA"},
		{"7.0.18.198.in-addr.arpa.", "PTR"}, {"1.2.0.192.in-addr.arpa.", "PTR"},
	} {
		exchange(t, s, query(q[0], q[1]))
	}
	want := []string{
		"a.example A: ", "some.example A: ", "nowhere.example AAAA: there is no such name",
		"7.0.18.198.in-addr.arpa PTR: ", "1.2.0.192.in-addr.arpa PTR: ",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
