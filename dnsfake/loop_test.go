package dnsfake

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"sixgate/dnsfake/upstream"
)

// relay is an upstream that passes questions on, changing the case as it likes.
type relay struct{ to **Server }

func (r relay) Exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	q = q.Copy()
	q.Question[0].Name = strings.ToUpper(q.Question[0].Name)
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	return m, m.Unpack((*r.to).Reply(ctx, wire, netip.MustParseAddrPort("127.0.0.1:53"), false))
}

// TestQuestionsComeBack has an upstream server that asks us what it is asked, as
// after its own settings were changed.
func TestQuestionsComeBack(t *testing.T) {
	const long, short = "a-name-of-many-letters.example.", "brief.example."
	up := serve(t, testZone)
	var us atomic.Pointer[Server]
	var mu sync.Mutex
	var said []string
	for _, name := range []string{long, short} {
		up.on(name+" TXT", func(m *dns.Msg) bool {
			q := new(dns.Msg)
			q.Question = m.Question // as it is spelled
			q.SetEdns0(1232, false)
			wire, err := q.Pack()
			if err != nil {
				t.Error(err)
			}
			back := new(dns.Msg)
			if err := back.Unpack(us.Load().Reply(t.Context(), wire, netip.MustParseAddrPort("127.0.0.1:53"), false)); err != nil {
				t.Error(err)
			}
			mu.Lock()
			said = append(said, brief(us.Load(), back))
			mu.Unlock()
			m.Rcode = back.Rcode
			return true
		})
	}
	s := server(t, up, Config{})
	s.conf.Asks = s.conf.Resolver.(*upstream.Resolver).Asks
	us.Store(s)
	if m := exchange(t, s, query(long, "TXT")); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("the client is told %v", m)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(said) == 0 || said[0] != "REFUSED; EDE 0" || s.Counters().Loop == 0 {
		t.Errorf("upstream is told %q, counters %+v", said, s.Counters())
	}
	if m := exchange(t, s, query("a-name-of-many-letters.four.example.", "TXT")); m.Rcode != dns.RcodeNameError {
		t.Errorf("another name: %v", m)
	}
}

func TestFindLoop(t *testing.T) {
	straight := server(t, serve(t, testZone), Config{})
	if err := straight.FindLoop(t.Context()); err != nil {
		t.Errorf("without one: %v", err)
	}
	var circle *Server
	circle, err := New(Config{Table: table(t, "198.18.0.0/15", "2001:2::/48", nil), Resolver: relay{&circle}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := circle.FindLoop(t.Context()); !errors.Is(err, errCircle) {
			t.Errorf("with one: %v", err)
		}
	}
	if got := circle.Counters().Refused; got != 2 {
		t.Errorf("%d questions were refused, want ours", got)
	}
	dead, err := New(Config{Table: table(t, "198.18.0.0/15", "2001:2::/48", nil), Resolver: relay{&straight}})
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.FindLoop(t.Context()); err != nil {
		t.Errorf("through another gateway: %v", err)
	}
}
