package upstream

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// mortal is a server that can be silenced.
type mortal struct {
	*script
	dead atomic.Bool
}

func mortals(t *testing.T, n int) ([]*mortal, []Server) {
	t.Helper()
	var all []*mortal
	var servers []Server
	for range n {
		m := &mortal{}
		m.script = serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
			if !m.dead.Load() {
				zone(t, q.Question[0].Name+" 60 A 192.0.2.1")(w, q)
			}
		})
		all, servers = append(all, m), append(servers, m.Server)
	}
	return all, servers
}

// TestOneOfThreeDies also revives it. How long anything takes is left open: a
// slow machine has the living servers overtaken too.
func TestOneOfThreeDies(t *testing.T) {
	all, servers := mortals(t, 3)
	clock := newClock()
	r := resolver(t, Config{Now: clock.now, Retry: 50 * time.Millisecond}, servers...)
	question := 0
	// ask asks n questions, has answers, and returns how many queries the first
	// server got and what is known of it when it has none left.
	ask := func(n int) (uint64, Health) {
		t.Helper()
		before := r.Health()[0].Asked
		for range n {
			question++
			if _, err := r.LookupNetIP(t.Context(), "ip4", fmt.Sprintf("n%d.example", question)); err != nil {
				t.Fatal(err)
			}
		}
		for r.Health()[0].InFlight > 0 {
			time.Sleep(time.Millisecond)
		}
		h := r.Health()[0]
		return h.Asked - before, h
	}
	if asked, _ := ask(1); asked == 0 {
		t.Error("the first server is not preferred")
	}
	all[0].dead.Store(true)
	_, h := ask(maxFailures)
	if !h.Down || h.Failures < maxFailures || h.Failed < maxFailures || !errors.Is(h.Err, syscall.ETIMEDOUT) {
		t.Fatalf("of a dead server is known %+v", h)
	}
	if asked, _ := ask(20); asked == 20 {
		t.Error("a server that is down is asked as if it were up")
	}

	all[0].dead.Store(false)
	for tries := 0; h.Down; tries++ { // a probe may be overtaken
		if tries == 20 {
			t.Fatalf("a server that is back stays down: %+v", h)
		}
		clock.add(2 * maxPause)
		var probes uint64
		if probes, h = ask(1); probes == 0 {
			t.Fatal("a server that is due is not probed")
		}
	}
	if asked, _ := ask(1); asked == 0 {
		t.Error("a server that is back is not preferred")
	}
}

// TestAllServersDown also revives them. How many tries that takes is left to the
// machine.
func TestAllServersDown(t *testing.T) {
	all, servers := mortals(t, 2)
	r := resolver(t, Config{Now: newClock().now, Retry: 10 * time.Millisecond, Timeout: 200 * time.Millisecond}, servers...)
	const tries = 50
	question := 0
	ask := func() error {
		question++
		_, err := r.Exchange(t.Context(), query(fmt.Sprintf("n%d.example.", question), dns.TypeA))
		return err
	}
	down := func() bool {
		return !slices.ContainsFunc(r.Health(), func(h Health) bool { return !h.Down })
	}
	for _, m := range all {
		m.dead.Store(true)
	}
	for ask(); !down(); {
		if err := ask(); !errors.Is(err, syscall.ETIMEDOUT) || question == tries {
			t.Fatalf("silence is %v after %d questions", err, question)
		}
	}
	for _, m := range all {
		m.dead.Store(false)
	}
	last := question + tries
	for err := ask(); err != nil; err = ask() {
		if question == last {
			t.Fatalf("all are down and nobody is asked: %v", err)
		}
	}
}

func TestPeerHealth(t *testing.T) {
	clock := newClock()
	var log strings.Builder
	p := &peer{now: clock.now, log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, step := range []struct {
		later time.Duration
		rtt   time.Duration // 0: fails
		down  bool
		probe bool
	}{
		{0, 0, false, false},
		{0, 0, false, false},
		{0, time.Millisecond, false, false}, // not three in a row
		{0, 0, false, false},
		{0, 0, false, false},
		{0, 0, true, false},
		{minPause - 1, 0, true, false},
		{minPause/4 + 1, 0, true, true},
		{2*minPause - 1, 0, true, false}, // probes get rarer
		{2*minPause/4 + 1, 0, true, true},
		{0, time.Millisecond, false, false},
	} {
		clock.add(step.later)
		if !p.begin(false) {
			t.Fatal("busy")
		}
		var err error
		if step.rtt == 0 {
			err = syscall.ETIMEDOUT
		}
		p.end(step.rtt, err)
		if down, probe := p.state(); down != step.down || probe != step.probe {
			t.Errorf("%+v: down %v, probe %v", step, down, probe)
		}
	}
	if text := log.String(); strings.Count(text, "is down") != 1 || strings.Count(text, "is back") != 1 {
		t.Errorf("logged %s", text)
	}
}

func TestPatience(t *testing.T) {
	const limit = 400 * time.Millisecond
	p := &peer{now: time.Now}
	if got := p.patience(limit); got != limit {
		t.Errorf("%v with a server that is not known", got)
	}
	for _, step := range []struct {
		rtt, least, most time.Duration
	}{
		{time.Millisecond, minPatience, minPatience},
		{30 * time.Millisecond, minPatience, 100 * time.Millisecond},
		{2 * time.Second, limit, limit},
	} {
		for range 100 {
			p.begin(false)
			p.end(step.rtt, nil)
		}
		if got := p.patience(limit); got < step.least || got > step.most {
			t.Errorf("%v at round trips of %v", got, step.rtt)
		}
	}
}

// TestOrder has all servers down, which are then not probed besides.
func TestOrder(t *testing.T) {
	var peers []*peer
	for range 3 {
		p := &peer{now: time.Now}
		p.health.Down, p.pause = true, minPause
		peers = append(peers, p)
	}
	a := &asking{}
	if got := a.order(peers); !slices.Equal(got, peers) || a.started != 0 {
		t.Errorf("order %v after %d probes", got, a.started)
	}
	peers[1].health.Down = false
	if got := a.order(peers); !slices.Equal(got, []*peer{peers[1], peers[0], peers[2]}) {
		t.Errorf("order %v", got)
	}
}

// TestNoStorm fills a server with queries.
func TestNoStorm(t *testing.T) {
	p := &peer{now: time.Now}
	for range maxInFlight / 2 {
		if !p.begin(true) {
			t.Fatal("too few")
		}
	}
	if p.begin(true) {
		t.Error("repeated queries take all the room")
	}
	for range maxInFlight / 2 {
		if !p.begin(false) {
			t.Fatal("too few")
		}
	}
	if p.begin(false) {
		t.Error("a query too many")
	}
	p.end(time.Millisecond, nil)
	if !p.begin(false) {
		t.Error("room does not come back")
	}
}

func TestEDNSIsLeftOut(t *testing.T) {
	clock := newClock()
	var withOPT atomic.Int32
	old := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() != nil {
			withOPT.Add(1)
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeFormatError))
			return
		}
		zone(t, q.Question[0].Name+" 60 A 192.0.2.1")(w, q)
	})
	r := resolver(t, Config{Now: clock.now}, old.Server)
	for i, step := range []struct {
		later time.Duration
		want  int32
	}{{0, 1}, {0, 1}, {withoutEDNS - 1, 1}, {1, 2}} {
		clock.add(step.later)
		if _, err := r.LookupNetIP(t.Context(), "ip4", fmt.Sprintf("n%d.example", i)); err != nil {
			t.Fatal(err)
		}
		if got := withOPT.Load(); got != step.want {
			t.Errorf("question %d: %d queries with OPT, want %d", i, got, step.want)
		}
	}
}

// TestServersChange has a host get another resolver.
func TestServersChange(t *testing.T) {
	all, servers := mortals(t, 2)
	servers[0].Network, servers[1].Network = "tcp", "tcp"
	var current atomic.Pointer[[]Server]
	r := resolver(t, Config{Retry: time.Minute, Servers: func() ([]Server, error) { return *current.Load(), nil }})
	for i, list := range [][]Server{servers[:1], {servers[0], servers[0]}, servers[1:], servers} {
		current.Store(&list)
		if _, err := r.LookupNetIP(t.Context(), "ip4", fmt.Sprintf("n%d.example", i)); err != nil {
			t.Error(err)
		}
	}
	if a, b := all[0].asked("tcp"), all[1].asked("tcp"); a+b != 4 || a == 0 || b == 0 {
		t.Errorf("%d and %d queries", a, b)
	}
	if h := r.Health(); len(h) != 2 || h[0].Server != servers[0] || h[1].Asked != 1 {
		t.Errorf("health %+v", h)
	}
}
