package dnsfake

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"sixgate/dnsfake/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is an upstream server on loopback, UDP and TCP at one port. It answers
// from records, by owner and type as asked for, with the whole of a named
// alias chain; names without records are NXDOMAIN. An entry of special, by
// "name TYPE", goes first.
type script struct {
	addr    netip.AddrPort
	records map[string][]dns.RR
	special map[string]func(m *dns.Msg) bool // false: no answer

	mu    sync.Mutex
	asked []string // "name TYPE"
}

const testSOA = "example. 300 SOA ns.example. admin.example. 1 7200 3600 86400 60"

func serve(t testing.TB, records string) *script {
	t.Helper()
	s := &script{records: make(map[string][]dns.RR), special: make(map[string]func(*dns.Msg) bool)}
	for line := range strings.Lines(records) {
		rr, err := dns.NewRR(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		if rr != nil {
			name := strings.ToLower(rr.Header().Name)
			s.records[name] = append(s.records[name], rr)
		}
	}
	pc, ln := listen(t)
	s.addr = netip.MustParseAddrPort(pc.LocalAddr().String())
	for _, server := range []*dns.Server{{PacketConn: pc, Handler: s}, {Listener: ln, Handler: s}} {
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
func listen(t testing.TB) (*net.UDPConn, net.Listener) {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", ln.Addr().String())
		if err == nil {
			return pc.(*net.UDPConn), ln
		}
		ln.Close()
	}
}

func (s *script) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	name, qtype := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	asked := name + " " + dns.Type(qtype).String()
	s.mu.Lock()
	s.asked = append(s.asked, asked)
	special := s.special[asked]
	s.mu.Unlock()
	if special != nil {
		if special(m) {
			w.WriteMsg(m)
		}
		return
	}
	s.fill(m, name, qtype)
	if w.LocalAddr().Network() == "udp" {
		m.Truncate(1232)
	}
	w.WriteMsg(m)
}

func (s *script) fill(m *dns.Msg, name string, qtype uint16) {
	found := false
	for end := ""; name != end; {
		end = name
		rrs, ok := s.records[name]
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
		for _, rr := range rrs {
			c, alias := rr.(*dns.CNAME)
			if rr.Header().Rrtype == qtype || alias {
				m.Answer = append(m.Answer, rr)
			}
			found = found || rr.Header().Rrtype == qtype
			if alias {
				name = strings.ToLower(c.Target)
			}
		}
	}
	if !found {
		rr, _ := dns.NewRR(testSOA)
		m.Ns = []dns.RR{rr}
	}
}

// on makes the upstream do answer when asked "name TYPE".
func (s *script) on(asked string, answer func(m *dns.Msg) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.special[asked] = answer
}

func (s *script) queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// rcodeOf answers with an RCODE and nothing else.
func rcodeOf(rcode int) func(*dns.Msg) bool {
	return func(m *dns.Msg) bool {
		m.Rcode = rcode
		return true
	}
}

// server returns a Server over an upstream; conf may leave out the rest.
func server(t testing.TB, up *script, conf Config) *Server {
	t.Helper()
	r, err := upstream.New(upstream.Config{Servers: upstream.Static(upstream.Server{Network: "udp", Addr: up.addr})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	conf.Resolver = r
	if conf.Table == nil {
		conf.Table = table(t, "198.18.0.0/15", "2001:2::/48", nil)
	}
	s, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// policy returns a Config.Policy that stays.
func policy(t testing.TB, bypass, known []string, newNames int) func() *Policy {
	t.Helper()
	p, err := NewPolicy(PolicyConfig{Bypass: bypass, Known: known, NewNames: newNames})
	if err != nil {
		t.Fatal(err)
	}
	return func() *Policy { return p }
}

// clients returns a Config.Clients that gives all the same families.
func clients(text string) func(netip.Addr) Families {
	return func(netip.Addr) Families { return familiesOf(text) }
}

// familiesOf reads "4", "6", "46" or "".
func familiesOf(text string) Families {
	return Families{IPv4: strings.Contains(text, "4"), IPv6: strings.Contains(text, "6")}
}

// ways returns a Config.Way of the names that end so, which go to a chain, to
// nobody, or as the gateway decides.
func ways(chain, nobody, gateway string) func(netip.Addr, string) Way {
	return func(_ netip.Addr, name string) Way {
		switch {
		case strings.HasSuffix(name, chain):
			return ToChain
		case strings.HasSuffix(name, nobody):
			return ToNobody
		case strings.HasSuffix(name, gateway):
			return ToGateway
		}
		return ToHost
	}
}

var testClient = netip.MustParseAddrPort("192.168.77.9:5353")

func query(name, qtype string) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, dns.StringToType[qtype])
}

// exchange asks s over UDP and checks what holds for every reply.
func exchange(t testing.TB, s *Server, q *dns.Msg) *dns.Msg {
	t.Helper()
	return exchangeFrom(t, s, testClient.Addr(), q)
}

func exchangeFrom(t testing.TB, s *Server, client netip.Addr, q *dns.Msg) *dns.Msg {
	t.Helper()
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	reply := s.Reply(t.Context(), wire, netip.AddrPortFrom(client, 5353), false)
	m := new(dns.Msg)
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("reply to %v: %v", q.Question, err)
	}
	h := m.MsgHdr
	if h.Id != q.Id || !h.Response || !h.RecursionAvailable || h.RecursionDesired != q.RecursionDesired ||
		h.CheckingDisabled != q.CheckingDisabled || h.Authoritative || h.AuthenticatedData || h.Zero {
		t.Errorf("header of the reply to %v: %+v", q.Question, h)
	}
	if (m.IsEdns0() == nil) != (q.IsEdns0() == nil) {
		t.Errorf("OPT in the reply: %v, in the query: %v", m.IsEdns0(), q.IsEdns0())
	}
	if says, is := slices.Contains(told(m), dns.ExtendedErrorCodeSynthesized), madeUp(s, m); q.IsEdns0() != nil && says != is {
		t.Errorf("reply to %v: says %v that it is made up", q.Question, says)
	}
	return m
}

// told returns the extended errors in m.
func told(m *dns.Msg) (codes []uint16) {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			codes = append(codes, o.(*dns.EDNS0_EDE).InfoCode)
		}
	}
	return codes
}

// madeUp reports whether m answers with a fake address.
func madeUp(s *Server, m *dns.Msg) bool {
	return slices.ContainsFunc(upstream.Addrs(m), s.conf.Table.Contains)
}

// brief returns what m says in short: the RCODE, the answers' data with fake
// addresses as "fake", the authority section's owner, TTL and type, and the
// extended errors but the one that all fakes have.
func brief(s *Server, m *dns.Msg) string {
	var parts []string
	if m.Rcode != 0 {
		parts = append(parts, dns.RcodeToString[m.Rcode])
	}
	if m.Truncated {
		parts = append(parts, "TC")
	}
	for _, rr := range m.Answer {
		data := strings.TrimPrefix(rr.String(), rr.Header().String())
		if ip, err := netip.ParseAddr(data); err == nil && s.conf.Table.Contains(ip) {
			name, _ := s.conf.Table.NameOf(ip)
			data = "fake " + name
		}
		parts = append(parts, fmt.Sprintf("%s %d %s %s", rr.Header().Name, rr.Header().Ttl, dns.Type(rr.Header().Rrtype), data))
	}
	for _, rr := range m.Ns {
		parts = append(parts, fmt.Sprintf("%s %d %s", rr.Header().Name, rr.Header().Ttl, dns.Type(rr.Header().Rrtype)))
	}
	for _, code := range told(m) {
		if code != dns.ExtendedErrorCodeSynthesized {
			parts = append(parts, fmt.Sprintf("EDE %d", code))
		}
	}
	return strings.Join(parts, "; ")
}
