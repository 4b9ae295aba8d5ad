package upstream

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a server on loopback, UDP and TCP at one port, that answers as
// handle says, and counts the queries by network.
type script struct {
	Server
	mu    sync.Mutex
	count map[string]int
}

func serve(t testing.TB, handle func(w dns.ResponseWriter, q *dns.Msg)) *script {
	t.Helper()
	pc, ln := listen(t)
	s := &script{
		Server: Server{Network: "udp", Addr: netip.MustParseAddrPort(pc.LocalAddr().String())},
		count:  make(map[string]int),
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		s.mu.Lock()
		s.count[w.LocalAddr().Network()]++
		s.mu.Unlock()
		handle(w, q)
	})
	for _, server := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: ln, Handler: handler}} {
		ready, done := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(ready) }
		go func() {
			defer close(done)
			server.ActivateAndServe()
		}()
		<-ready
		t.Cleanup(func() {
			server.Shutdown()
			<-done
		})
	}
	return s
}

// listen returns sockets of both kinds at one free port.
func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", ln.Addr().String())
		if err == nil {
			return pc, ln
		}
		ln.Close()
	}
}

func (s *script) asked(network string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[network]
}

// zone answers from records in presentation form; a name without records is
// NXDOMAIN.
func zone(t testing.TB, records string) func(dns.ResponseWriter, *dns.Msg) {
	t.Helper()
	parser := dns.NewZoneParser(strings.NewReader(strings.ReplaceAll(records, "\t", "")), ".", "")
	byName := make(map[string][]dns.RR)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		name := strings.ToLower(rr.Header().Name)
		byName[name] = append(byName[name], rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		rrs, ok := byName[strings.ToLower(q.Question[0].Name)]
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
		for _, rr := range rrs {
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		w.WriteMsg(m)
	}
}

func resolver(t testing.TB, conf Config, servers ...Server) *Resolver {
	t.Helper()
	if conf.Servers == nil {
		conf.Servers = Static(servers...)
	}
	r, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func query(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

func addrs(texts ...string) []netip.Addr {
	var ips []netip.Addr
	for _, text := range texts {
		ips = append(ips, netip.MustParseAddr(text))
	}
	return ips
}

// clock is a clock that stands still until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newClock() *clock { return &clock{t: time.Unix(1e9, 0)} }
