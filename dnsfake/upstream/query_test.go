package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// freePort returns a loopback address that nobody listens on.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, ln := listen(t)
	defer pc.Close()
	defer ln.Close()
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

// TestForgeriesAreDropped has a server send every kind of wrong reply before
// the right one.
func TestForgeriesAreDropped(t *testing.T) {
	forge := []func(m *dns.Msg){
		func(m *dns.Msg) { m.Id++ },
		func(m *dns.Msg) { m.Response = false },
		func(m *dns.Msg) { m.Question[0].Name = "other.example." },
		func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		func(m *dns.Msg) { m.Question = nil },
		func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus },
	}
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		for _, f := range forge {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(6, 6, 6, 6)}}
			f(m)
			w.WriteMsg(m)
		}
		w.Write([]byte("no message"))
		zone(t, "a.example. 60 A 192.0.2.1")(w, q)
	})
	r := resolver(t, Config{}, server.Server)
	got, err := r.LookupNetIP(t.Context(), "ip4", "a.example")
	if err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
		t.Errorf("lookup = %v, %v", got, err)
	}
	if n := r.Health()[0].Forged; n != uint64(len(forge))+1 {
		t.Errorf("%d counted, want %d", n, len(forge)+1)
	}
}

// TestMalformedRecords has a zone make up records that are none. A server that
// only forwards passes them on, and is neither down for it nor forged.
func TestMalformedRecords(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if !strings.HasPrefix(strings.ToLower(q.Question[0].Name), "bad") {
			zone(t, "a.example. 60 A 192.0.2.1")(w, q)
			return
		}
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.RFC3597{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, Rdata: "010203"}}
		w.WriteMsg(m)
	})
	r := resolver(t, Config{Timeout: time.Hour, Retry: time.Hour}, server.Server)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 2 * maxFailures {
		if _, err := r.LookupNetIP(ctx, "ip4", fmt.Sprintf("bad%d.example", i)); err == nil || ctx.Err() != nil {
			t.Fatalf("lookup: %v, want an error at once", err)
		}
	}
	if h := r.Health()[0]; h.Down || h.Forged != 0 || h.Failed != 2*maxFailures {
		t.Errorf("down: %v, forged: %d, failed: %d; want %d that failed", h.Down, h.Forged, h.Failed, 2*maxFailures)
	}
	got, err := r.LookupNetIP(t.Context(), "ip4", "a.example")
	if err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
		t.Errorf("lookup = %v, %v", got, err)
	}
}

// TestManyForgeries has one of them match, after so many that do not that it
// could be by luck.
func TestManyForgeries(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if w.LocalAddr().Network() != "udp" {
			zone(t, "a.example. 60 A 192.0.2.1")(w, q)
			return
		}
		for range maxForged + 1 {
			m := new(dns.Msg).SetReply(q)
			m.Id++
			w.WriteMsg(m)
		}
		zone(t, "a.example. 60 A 6.6.6.6")(w, q)
	})
	r := resolver(t, Config{}, server.Server)
	got, err := r.LookupNetIP(t.Context(), "ip4", "a.example")
	if err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
		t.Errorf("lookup = %v, %v; want what came over TCP", got, err)
	}
	if n := r.Health()[0].Forged; n != maxForged+1 {
		t.Errorf("%d counted, want %d", n, maxForged+1)
	}
}

func TestCaseIsMixedAndChecked(t *testing.T) {
	name := strings.Repeat("abcdefgh.", 20) + "example."
	var mixed atomic.Bool
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		mixed.Store(q.Question[0].Name != name && strings.EqualFold(q.Question[0].Name, name))
		q.Question[0].Name = strings.ToLower(name) // a forger cannot know better
		ip := "192.0.2.1"
		if w.LocalAddr().Network() == "udp" {
			ip = "6.6.6.6"
		}
		zone(t, name+" 60 A "+ip)(w, q)
	})
	got, err := resolver(t, Config{}, server.Server).LookupNetIP(t.Context(), "ip4", name)
	if err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
		t.Errorf("lookup = %v, %v; want what came over TCP", got, err)
	}
	if !mixed.Load() {
		t.Error("the query has the name in lower case")
	}
}

// TestAsks has a server look for the name that it is asked for.
func TestAsks(t *testing.T) {
	const name = "a-name-of-many-letters.example."
	var r atomic.Pointer[Resolver]
	seen := make(chan string, maxTries)
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		spelled := q.Question[0].Name
		seen <- spelled
		for name, want := range map[string]bool{spelled: true, strings.ToLower(spelled): false, "x" + spelled: false} {
			if got := r.Load().Asks(name); got != want {
				t.Errorf("asks for %s: %v, want %v", name, got, want)
			}
		}
		w.WriteMsg(new(dns.Msg).SetReply(q))
	})
	r.Store(resolver(t, Config{Retry: time.Minute, Timeout: time.Minute}, server.Server))
	if _, err := r.Load().Exchange(t.Context(), query(name, dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	r.Load().Close() // after which no try is under way
	if r.Load().Asks(<-seen) || len(r.Load().spellings.names) != 0 {
		t.Error("asks for it after the answer")
	}
}

// TestMixedCaseStaysInside has a server compress names to the question.
func TestMixedCaseStaysInside(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Compress = true
		h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeMX, Class: dns.ClassINET, Ttl: 60}
		m.Answer = []dns.RR{&dns.MX{Hdr: h, Mx: q.Question[0].Name}}
		w.WriteMsg(m)
	})
	m, err := resolver(t, Config{}, server.Server).Exchange(t.Context(), query("Abcdefghijklmnop.example.", dns.TypeMX))
	if err != nil {
		t.Fatal(err)
	}
	mx := m.Answer[0].(*dns.MX)
	if mx.Hdr.Name != "Abcdefghijklmnop.example." || mx.Mx != "abcdefghijklmnop.example." {
		t.Errorf("reply has %v", mx)
	}
}

func TestTruncatedGoesOnOverTCP(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if w.LocalAddr().Network() == "udp" {
			m := new(dns.Msg).SetReply(q)
			m.Truncated = true
			w.WriteMsg(m)
			return
		}
		zone(t, "a.example. 60 A 192.0.2.1")(w, q)
	})
	got, err := resolver(t, Config{}, server.Server).LookupNetIP(t.Context(), "ip4", "a.example")
	if err != nil || len(got) != 1 || server.asked("tcp") != 1 {
		t.Errorf("lookup = %v, %v after %d queries over TCP", got, err, server.asked("tcp"))
	}
}

func TestServersTakeTurns(t *testing.T) {
	good := serve(t, zone(t, "a.example. 60 A 192.0.2.1"))
	silent := serve(t, func(dns.ResponseWriter, *dns.Msg) {})
	broken := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeRefused))
	})
	var drops atomic.Int32
	lossy := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if drops.Add(1) > 1 {
			zone(t, "a.example. 60 A 192.0.2.1")(w, q)
		}
	})
	old := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() != nil {
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeFormatError))
			return
		}
		zone(t, "a.example. 60 A 192.0.2.1")(w, q)
	})
	tcp := good.Server
	tcp.Network = "tcp"
	for name, servers := range map[string][]Server{
		"silent first":    {silent.Server, good.Server},
		"broken first":    {broken.Server, good.Server},
		"shut first":      {{Network: "udp", Addr: freePort(t)}, good.Server},
		"one packet lost": {lossy.Server},
		"before EDNS":     {old.Server},
		"TCP alone":       {tcp},
	} {
		t.Run(name, func(t *testing.T) {
			r := resolver(t, Config{Retry: 5 * time.Millisecond}, servers...)
			got, err := r.LookupNetIP(t.Context(), "ip4", "a.example")
			if err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
				t.Errorf("lookup = %v, %v", got, err)
			}
		})
	}
}

// TestLossyServer loses the first datagram of every fifth question.
func TestLossyServer(t *testing.T) {
	const questions = 200
	name := func(i int) string { return fmt.Sprintf("n%d.example", i) }
	var mu sync.Mutex
	lost := make(map[string]bool)
	for i := 0; i < questions; i += 5 {
		lost[name(i)+"."] = true
	}
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked := strings.ToLower(q.Question[0].Name)
		mu.Lock()
		drop := lost[asked]
		delete(lost, asked)
		mu.Unlock()
		if !drop {
			zone(t, asked+" 60 A 192.0.2.1")(w, q)
		}
	})
	r := resolver(t, Config{}, server.Server)
	var askers sync.WaitGroup
	for i := range questions {
		askers.Go(func() {
			if _, err := r.LookupNetIP(t.Context(), "ip4", name(i)); err != nil {
				t.Error(err)
			}
		})
	}
	askers.Wait()
}

// TestSocketsAreShort has the machine refuse the first sockets.
func TestSocketsAreShort(t *testing.T) {
	server := serve(t, zone(t, "a.example. 60 A 192.0.2.1"))
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			server := server.Server
			server.Network = network
			var sockets atomic.Int32
			r := resolver(t, Config{Control: func(string, string, syscall.RawConn) error {
				if sockets.Add(1) <= maxFailures {
					return syscall.EMFILE
				}
				return nil
			}}, server)
			got, err := r.LookupNetIP(t.Context(), "ip4", "a.example")
			if err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
				t.Errorf("lookup = %v, %v", got, err)
			}
			if h := r.Health()[0]; h.Failed != 0 || h.Down {
				t.Errorf("the server is blamed: %+v", h)
			}
		})
	}
}

// refusedOnce has an ICMP error of an earlier datagram wait for its first write.
type refusedOnce struct {
	net.Conn
	refused bool
}

func (c *refusedOnce) Write(b []byte) (int, error) {
	if !c.refused {
		c.refused = true
		return 0, &net.OpError{Op: "write", Err: syscall.ECONNREFUSED}
	}
	return c.Conn.Write(b)
}

func TestEarlierRefusalLosesNoQuery(t *testing.T) {
	server := serve(t, zone(t, "a.example. 60 A 192.0.2.1"))
	query, _, err := question{name: "a.example.", qtype: dns.TypeA, qclass: dns.ClassINET}.query(true, false)
	if err != nil {
		t.Fatal(err)
	}
	u := newUDP(func(ctx context.Context) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "udp", server.Addr.String())
		return &refusedOnce{Conn: conn}, err
	}, new(atomic.Uint64))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if reply, err := u.exchange(ctx, query); err != nil || len(reply.Answer) != 1 {
		t.Errorf("got %v, %v", reply, err)
	}
}

func TestControlSeesEverySocket(t *testing.T) {
	server := serve(t, zone(t, "a.example. 60 A 192.0.2.1"))
	var seen atomic.Value
	r := resolver(t, Config{Control: func(network, address string, _ syscall.RawConn) error {
		seen.Store(network + " " + address)
		return nil
	}}, server.Server)
	if _, err := r.LookupNetIP(t.Context(), "ip4", "a.example"); err != nil {
		t.Fatal(err)
	}
	if want := "udp4 " + server.Addr.String(); seen.Load() != want {
		t.Errorf("control saw %v, want %s", seen.Load(), want)
	}
}

// TestConnect has a way to the server that carries TCP alone.
func TestConnect(t *testing.T) {
	server := serve(t, zone(t, "a.example. 60 A 192.0.2.1"))
	var asked atomic.Value
	r := resolver(t, Config{Connect: func(ctx context.Context, server netip.AddrPort) (net.Conn, error) {
		asked.Store(server)
		return new(net.Dialer).DialTCP(ctx, "tcp", netip.AddrPort{}, server)
	}}, server.Server)
	got, err := r.LookupNetIP(t.Context(), "ip4", "a.example")
	if err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
		t.Errorf("lookup = %v, %v", got, err)
	}
	if asked.Load() != server.Addr || server.asked("udp") > 0 {
		t.Errorf("connected to %v, %d queries by UDP", asked.Load(), server.asked("udp"))
	}
}
