package upstream

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestExchangeIsCoalesced(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	answer := zone(t, "a.example. 60 A 192.0.2.1")
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		arrived <- struct{}{}
		<-release
		answer(w, q)
	})
	r := resolver(t, Config{}, server.Server)

	leaver, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := r.Exchange(leaver, query("a.example.", dns.TypeA))
		left <- err
	}()
	<-arrived
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who leaves gets %v", err)
	}
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			m, err := r.Exchange(t.Context(), query("A.Example.", dns.TypeA))
			if err != nil || len(m.Answer) != 1 || m.Answer[0].Header().Name != "A.Example." {
				t.Errorf("Exchange = %v, %v", m, err)
			}
		})
	}
	close(release)
	clients.Wait()
	if n := server.asked("udp"); n != 1 {
		t.Errorf("%d queries, want 1", n)
	}
}

func TestExchangeAgesAndExpires(t *testing.T) {
	server := serve(t, zone(t, "a.example. 60 A 192.0.2.1\nshort.example. 0 A 192.0.2.2"))
	clock := newClock()
	r := resolver(t, Config{Now: clock.now}, server.Server)
	for _, step := range []struct {
		name    string
		seconds int
		ttl     uint32
		asked   int
	}{
		{"a.example.", 0, 60, 1},
		{"a.example.", 50, 10, 1},
		{"a.example.", 10, 60, 2},
		{"short.example.", 0, 0, 3},
		{"short.example.", 9, 0, 3}, // as long as a fake for it lives
		{"short.example.", 1, 0, 4},
	} {
		clock.add(time.Duration(step.seconds) * time.Second)
		m, err := r.Exchange(t.Context(), query(step.name, dns.TypeA))
		if err != nil {
			t.Fatal(err)
		}
		if ttl := m.Answer[0].Header().Ttl; ttl != step.ttl || server.asked("udp") != step.asked {
			t.Errorf("%+v: TTL %d after %d queries", step, ttl, server.asked("udp"))
		}
	}
}

func TestLookupNetIP(t *testing.T) {
	server := serve(t, zone(t, `
		dual.example. 60 A 192.0.2.1
		dual.example. 60 AAAA 2001:db8::1
		four.example. 60 A 192.0.2.4
		mail.example. 60 MX 0 four.example.`))
	r := resolver(t, Config{}, server.Server)
	for _, c := range []struct {
		network, name string
		want          []string
	}{
		{"ip", "dual.example", []string{"2001:db8::1", "192.0.2.1"}},
		{"ip4", "dual.example.", []string{"192.0.2.1"}},
		{"ip6", "DUAL.example", []string{"2001:db8::1"}},
		{"ip", "four.example", []string{"192.0.2.4"}},
		{"ip6", "four.example", nil},
		{"ip", "mail.example", nil},
		{"ip", "absent.example", nil},
	} {
		got, err := r.LookupNetIP(t.Context(), c.network, c.name)
		if !slices.Equal(got, addrs(c.want...)) {
			t.Errorf("%s %s: %v, want %v", c.network, c.name, got, c.want)
		}
		var e interface{ Temporary() bool }
		if c.want == nil && (!errors.Is(err, syscall.EHOSTUNREACH) || !errors.As(err, &e) || e.Temporary()) {
			t.Errorf("%s %s: error %v", c.network, c.name, err)
		}
	}
	if n := server.asked("udp"); n != 8 {
		t.Errorf("%d queries, want one for each name and family: 8", n)
	}
}

func TestLookupNetIPFailures(t *testing.T) {
	refusing := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
	})
	silent := serve(t, func(dns.ResponseWriter, *dns.Msg) {})
	closed := Server{Network: "tcp", Addr: freePort(t)}
	for name, c := range map[string]struct {
		conf    Config
		timeout bool
	}{
		"SERVFAIL":   {conf: Config{Servers: Static(refusing.Server)}},
		"no server":  {conf: Config{Servers: Static()}},
		"no file":    {conf: Config{Servers: ResolvConf(t.TempDir()+"/absent", nil)}},
		"port shut":  {conf: Config{Servers: Static(closed)}},
		"no replies": {conf: Config{Servers: Static(silent.Server), Timeout: 50 * time.Millisecond}, timeout: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := resolver(t, c.conf)
			_, err := r.LookupNetIP(t.Context(), "ip", "a.example")
			var e interface {
				Temporary() bool
				Timeout() bool
			}
			if !errors.Is(err, syscall.EHOSTUNREACH) || !errors.As(err, &e) || !e.Temporary() || e.Timeout() != c.timeout {
				t.Errorf("error %#v", err)
			}
			if errors.Is(err, syscall.ECONNREFUSED) {
				t.Error("a resolver's refusal passes for the destination's")
			}
		})
	}
}

func TestCloseEndsQuestions(t *testing.T) {
	arrived := make(chan struct{})
	server := serve(t, func(dns.ResponseWriter, *dns.Msg) { arrived <- struct{}{} })
	r := resolver(t, Config{}, server.Server)
	failed := make(chan error)
	go func() {
		_, err := r.Exchange(t.Context(), query("a.example.", dns.TypeA))
		failed <- err
	}()
	<-arrived
	r.Close()
	if err := <-failed; err == nil {
		t.Error("a question outlived Close")
	}
	if _, err := r.Exchange(t.Context(), query("b.example.", dns.TypeA)); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}
