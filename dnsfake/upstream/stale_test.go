package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// curious returns a query for A that wants extended errors.
func curious(name string) *dns.Msg {
	q := query(name, dns.TypeA)
	tell(q, new(dns.EDNS0_EDE))
	return q
}

func TestStaleAnswers(t *testing.T) {
	clock := newClock()
	answer := zone(t, `
		a.example. 60 A 192.0.2.1
		mail.example. 60 MX 0 a.example.`)
	var broken atomic.Bool
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if broken.Load() {
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
			return
		}
		answer(w, q)
	})
	r := resolver(t, Config{Now: clock.now}, server.Server)
	ask := func(name string) (*dns.Msg, error) {
		return r.Exchange(t.Context(), curious(name))
	}
	for _, name := range []string{"a.example.", "absent.example.", "mail.example."} {
		if m, err := ask(name); err != nil || ExtendedError(m) != nil {
			t.Fatalf("%s: %v, %v", name, m, err)
		}
	}
	broken.Store(true)
	clock.add(time.Hour)
	for name, want := range map[string]struct {
		rcode int
		ede   uint16
	}{
		"a.example.":      {0, dns.ExtendedErrorCodeStaleAnswer},
		"absent.example.": {dns.RcodeNameError, dns.ExtendedErrorCodeStaleNXDOMAINAnswer},
		"mail.example.":   {0, dns.ExtendedErrorCodeStaleAnswer},
	} {
		m, err := ask(name)
		if err != nil || m.Rcode != want.rcode || ExtendedError(m) == nil || ExtendedError(m).InfoCode != want.ede {
			t.Errorf("%s: %v, %v", name, m, err)
		}
		for _, rr := range m.Answer {
			if rr.Header().Ttl != staleTTL {
				t.Errorf("%v", rr)
			}
		}
	}
	if m, err := r.Exchange(t.Context(), query("a.example.", dns.TypeA).SetEdns0(1232, false)); err != nil || len(m.Extra) != 0 {
		t.Errorf("who did not ask for errors gets %v, %v", m, err)
	}

	// The servers are left alone for a while, then asked again.
	before := server.asked("udp")
	clock.add(refreshed - 1)
	ask("a.example.")
	if n := server.asked("udp"); n != before {
		t.Errorf("%d queries too early", n-before)
	}
	broken.Store(false)
	clock.add(1)
	if m, err := ask("a.example."); err != nil || ExtendedError(m) != nil || m.Answer[0].Header().Ttl != 60 {
		t.Errorf("after the servers are back: %v, %v", m, err)
	}

	broken.Store(true)
	clock.add(time.Minute + maxStale)
	if m, err := ask("a.example."); err != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("after a day: %v, %v", m, err)
	}
}

// TestConnectsDoNotWait looks up a name whose addresses are stale from servers
// that are silent until they have been returned.
func TestConnectsDoNotWait(t *testing.T) {
	clock := newClock()
	var slow atomic.Bool
	release := make(chan struct{})
	answer := zone(t, "a.example. 60 A 192.0.2.1")
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if slow.Load() {
			<-release
		}
		answer(w, q)
	})
	r := resolver(t, Config{Now: clock.now}, server.Server)
	for range 2 {
		got, err := r.LookupNetIP(t.Context(), "ip4", "a.example")
		if err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
			t.Errorf("lookup = %v, %v", got, err)
		}
		slow.Store(true)
		clock.add(time.Hour)
	}
	close(release)
	m, err := r.Exchange(t.Context(), query("a.example.", dns.TypeA)) // joins what the lookup began
	if err != nil || m.Answer[0].Header().Ttl != 60 || server.asked("udp") != 2 {
		t.Errorf("%v, %v after %d queries", m, err, server.asked("udp"))
	}
}

// TestPatienceWithFreshAnswers is in a bubble, where time passes when all wait.
func TestPatienceWithFreshAnswers(t *testing.T) {
	stale, absent, fresh := &answer{addrs: addrs("192.0.2.1")}, &answer{}, &answer{}
	for name, c := range map[string]struct {
		known   *answer
		connect bool
		comes   time.Duration // the fresh one
		want    *answer
		after   time.Duration
	}{
		"in time":                     {stale, false, time.Second, fresh, time.Second},
		"late":                        {stale, false, 2 * time.Second, stale, staleAfter},
		"to connect":                  {stale, true, time.Second, stale, 0},
		"to connect to an absent one": {absent, true, time.Second, fresh, time.Second},
		"which stays absent":          {absent, true, 2 * time.Second, absent, staleAfter},
		"nothing known":               {nil, true, 3 * time.Second, fresh, 3 * time.Second},
		"given up":                    {nil, false, 5 * time.Second, nil, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
				defer cancel()
				j := &job{done: make(chan struct{}), answer: fresh}
				time.AfterFunc(c.comes, func() { close(j.done) })
				began := time.Now()
				s := share{known: c.known, job: j}
				wait := s.wait
				if c.connect {
					wait = s.waitToConnect
				}
				got, err := wait(ctx)
				if got != c.want || time.Since(began) != c.after || (err == nil) != (c.want != nil) {
					t.Errorf("%p after %v, %v", got, time.Since(began), err)
				}
			})
		})
	}
}

// TestPopularAnswersStayFresh asks for a name until its end is near.
func TestPopularAnswersStayFresh(t *testing.T) {
	clock := newClock()
	server := serve(t, zone(t, "a.example. 100 A 192.0.2.1\nb.example. 100 A 192.0.2.1"))
	r := resolver(t, Config{Now: clock.now}, server.Server)
	ask := func(name string) uint32 {
		m, err := r.Exchange(t.Context(), query(name, dns.TypeA))
		if err != nil {
			t.Fatal(err)
		}
		return m.Answer[0].Header().Ttl
	}
	for range popular {
		ask("a.example.")
	}
	ask("b.example.")
	clock.add(89 * time.Second)
	if ttl := ask("a.example."); ttl != 11 || server.asked("udp") != 2 {
		t.Errorf("TTL %d after %d queries", ttl, server.asked("udp"))
	}
	clock.add(time.Second)
	for _, name := range []string{"a.example.", "b.example."} { // nobody waits
		if ttl := ask(name); ttl != 10 {
			t.Errorf("%s: TTL %d", name, ttl)
		}
	}
	for ask("a.example.") != 100 { // the fresh one is on its way
	}
	if n := server.asked("udp"); n != 3 {
		t.Errorf("%d queries, want the third for a.example", n)
	}
}

// TestPopularAnswersLeaveRoom has so many questions under way that none is asked
// before its time.
func TestPopularAnswersLeaveRoom(t *testing.T) {
	clock := newClock()
	server := serve(t, zone(t, "a.example. 100 A 192.0.2.1"))
	r := resolver(t, Config{Now: clock.now}, server.Server)
	for range popular {
		if _, err := r.Exchange(t.Context(), query("a.example.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	clock.add(95 * time.Second)
	key := question{name: "a.example.", qtype: dns.TypeA, qclass: dns.ClassINET}
	refreshes := func() bool {
		r.join(key)
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.jobs[key] != nil
	}
	r.mu.Lock()
	for i := range maxJobs / 4 {
		r.jobs[question{name: fmt.Sprint(i)}] = &job{done: make(chan struct{})}
	}
	r.mu.Unlock()
	if refreshes() {
		t.Error("asked before its time beside many others")
	}
	r.mu.Lock()
	delete(r.jobs, question{name: "0"})
	r.mu.Unlock()
	if !refreshes() && server.asked("udp") != 2 {
		t.Error("not asked before its time beside a few less")
	}
}

// TestServersTellWhy has a server explain a failure.
func TestServersTellWhy(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
		m.SetEdns0(1232, true)
		opt := m.IsEdns0()
		opt.Option = []dns.EDNS0{
			&dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "00"},
			&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus, ExtraText: "no"},
		}
		w.WriteMsg(m)
	})
	r := resolver(t, Config{}, server.Server)
	m, err := r.Exchange(t.Context(), curious("a.example."))
	if err != nil {
		t.Fatal(err)
	}
	if e := ExtendedError(m); e == nil || e.InfoCode != dns.ExtendedErrorCodeDNSBogus || e.ExtraText != "no" || len(m.IsEdns0().Option) != 1 {
		t.Errorf("reply %v", m)
	}
}

// TestRefusalsAreKept is TestFailuresAreKept with a lone server that is not there.
func TestRefusalsAreKept(t *testing.T) {
	clock := newClock()
	r := resolver(t, Config{Now: clock.now}, Server{Network: "udp", Addr: freePort(t)})
	for _, step := range []struct {
		later time.Duration
		asked uint64
	}{{0, 1}, {failure - 1, 1}, {1, 2}} {
		clock.add(step.later)
		_, err := r.Exchange(t.Context(), query("a.example.", dns.TypeA))
		if h := r.Health()[0]; !errors.Is(err, syscall.ECONNREFUSED) || h.Asked != step.asked {
			t.Errorf("%v after %d queries, want %d", err, h.Asked, step.asked)
		}
	}
}

// TestFailuresAreKept asks twice in the life of a failure.
func TestFailuresAreKept(t *testing.T) {
	clock := newClock()
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
	})
	r := resolver(t, Config{Now: clock.now}, server.Server, Server{Network: "tcp", Addr: freePort(t)})
	for _, step := range []struct {
		later time.Duration
		asked int
	}{{0, 1}, {failure - 1, 1}, {1, 2}} {
		clock.add(step.later)
		m, err := r.Exchange(t.Context(), query("a.example.", dns.TypeA))
		if err != nil || m.Rcode != dns.RcodeServerFailure || server.asked("udp") != step.asked {
			t.Errorf("%v, %v after %d queries", m, err, server.asked("udp"))
		}
	}
	if _, err := r.LookupNetIP(t.Context(), "ip4", "a.example"); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("lookup: %v", err)
	}
}
