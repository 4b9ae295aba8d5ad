package dnsfake

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func rcode(t *testing.T, reply []byte) string {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	return dns.RcodeToString[m.Rcode]
}

// TestAgainIsAsAnew wants the same reply at hand and anew, whatever the query.
func TestAgainIsAsAnew(t *testing.T) {
	clock := newClock()
	s := server(t, serve(t, testZone), Config{
		Table: table(t, "198.18.0.0/15", "2001:2::/48", clock.now), Clients: clients("4"),
	})
	client := testClient.Addr()
	for _, name := range []string{"four.example.", "siX.eXample.", "mail.example.", "absent.example.", "alias.example.", "localhost."} {
		for _, qtype := range []string{"A", "AAAA", "MX"} {
			for _, change := range []func(*dns.Msg){
				func(*dns.Msg) {},
				func(q *dns.Msg) { q.RecursionDesired = false },
				func(q *dns.Msg) { q.SetEdns0(1232, false) },
				func(q *dns.Msg) { q.SetEdns0(512, true) },
				func(q *dns.Msg) { q.SetEdns0(4096, true); q.CheckingDisabled = true },
			} {
				q := query(name, qtype)
				change(q)
				wire, err := q.Pack()
				if err != nil {
					t.Fatal(err)
				}
				anew := s.slow(t.Context(), wire, client, false)
				for range 2 {
					wire[0]++
					anew[0]++
					reply, done := s.quick(nil, wire, client)
					if !done || !bytes.Equal(reply, anew) {
						t.Errorf("%v:\ngot  %x\nwant %x", q, reply, anew)
					}
				}
			}
		}
	}
}

func TestAgainKeepsTheCaseAndCountsDown(t *testing.T) {
	clock := newClock()
	s := server(t, serve(t, testZone), Config{
		Table: table(t, "198.18.0.0/15", "2001:2::/48", clock.now), Clients: clients("4"),
	})
	for _, c := range []struct {
		name string
		ttl  uint32
	}{{"six.example.", 60}, {"SIX.example.", 60}, {"six.EXAMPLE.", 57}} {
		if c.ttl < 60 {
			clock.add(3 * time.Second)
		}
		m := exchange(t, s, query(c.name, "A"))
		if len(m.Answer) != 1 || m.Answer[0].Header().Name != c.name || m.Answer[0].Header().Ttl != c.ttl {
			t.Errorf("%s: %v", c.name, m.Answer)
		}
	}
	if got := s.Counters().Fake; got != 3 {
		t.Errorf("%d fake answers", got)
	}
}

// TestAgainKeepsPromises has an address asked for until long after its first
// lease, and given out again without a look at the name.
func TestAgainKeepsPromises(t *testing.T) {
	clock := newClock()
	table := table(t, "198.18.0.0/27", "2001:2::/48", clock.now)
	s := server(t, serve(t, testZone), Config{Table: table, Clients: clients("4")})
	var last uint32
	for range 100 {
		m := exchange(t, s, query("six.example.", "A"))
		last = m.Answer[0].Header().Ttl
		clock.add(time.Second)
	}
	for i := range table.Cap() {
		_, err := table.Issue(string(rune('a'+i))+".example", time.Hour)
		if (i == table.Cap()-1) != (err != nil) {
			t.Errorf("name %d, with %d s of a TTL left: %v", i, last, err)
		}
	}
}

// TestAgainNoticesChanges changes what an answer depends on.
func TestAgainNoticesChanges(t *testing.T) {
	families, always, way := familiesOf("4"), Families{}, ToHost
	path := filepath.Join(t.TempDir(), "hosts")
	hosts := NewHosts([]string{path}, nil, nil)
	s := server(t, serve(t, testZone), Config{
		Clients: func(netip.Addr) Families { return families },
		Always:  func() Families { return always },
		Way:     func(netip.Addr, string) Way { return way },
		Hosts:   hosts,
	})
	for what, c := range map[string]struct {
		change, back func()
		want         string
	}{
		"families": {func() { families = familiesOf("6") }, func() { families = familiesOf("4") }, "NODATA"},
		"always":   {func() { always = familiesOf("4") }, func() { always = Families{} }, "four.example. 60 A fake four.example"},
		"chained":  {func() { way = ToChain }, func() { way = ToHost }, "four.example. 300 A fake four.example"},
		"rejected": {func() { way = ToNobody }, func() { way = ToHost }, "NXDOMAIN; four.example. 10 SOA"},
		"hosts": {func() {
			if err := os.WriteFile(path, []byte("192.0.2.99 four.example"), 0o600); err != nil {
				t.Fatal(err)
			}
			hosts.Reload()
		}, func() { os.Remove(path); hosts.Reload() }, "four.example. 10 A 192.0.2.99"},
	} {
		const before = "four.example. 60 A 192.0.2.4"
		for _, step := range []struct {
			do   func()
			want string
		}{{func() {}, before}, {c.change, c.want}, {c.back, before}} {
			step.do()
			for range 2 {
				got := brief(s, exchange(t, s, query("four.example.", "A")))
				if got != step.want && (step.want != "NODATA" || slices.Contains([]string{before, c.want}, got)) {
					t.Errorf("%s: got %s, want %s", what, got, step.want)
				}
			}
		}
	}
}

// TestAgainNoticesPolicies has a name that another policy bypasses.
func TestAgainNoticesPolicies(t *testing.T) {
	force := policy(t, nil, nil, 0)
	s := server(t, serve(t, testZone), Config{Clients: clients("4"), Policy: func() *Policy { return force() }})
	const fake, real = "six.example. 60 A fake six.example", "example. 60 SOA"
	for _, step := range []struct {
		bypass []string
		want   string
	}{{nil, fake}, {[]string{"six.example"}, real}, {nil, fake}} {
		force = policy(t, step.bypass, nil, 0)
		for range 2 {
			if got := brief(s, exchange(t, s, query("six.example.", "A"))); got != step.want {
				t.Errorf("bypassing %v: got %s, want %s", step.bypass, got, step.want)
			}
		}
	}
}

func TestRecentIsBounded(t *testing.T) {
	r := newRecent()
	what := func(i int) []byte { return []byte{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range 3 * recentRoom {
		r.put(what(i), &recentReply{})
	}
	if n := len(r.now) + len(r.old); n > 2*recentRoom {
		t.Errorf("%d replies are kept", n)
	}
	if r.get(what(3*recentRoom-1)) == nil || r.get(what(0)) != nil {
		t.Error("kept the first and not the last")
	}
}
