package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestAddresses(t *testing.T) {
	clock := newClock()
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Qtype == dns.TypeAAAA || q.Question[0].Name[0]|0x20 == 'x' {
			m := new(dns.Msg).SetReply(q)
			if q.Question[0].Name[0]|0x20 == 'x' {
				m.Rcode = dns.RcodeNameError
			}
			soa, _ := dns.NewRR("example. 300 SOA ns.example. hostmaster.example. 1 2 3 4 60")
			m.Ns = []dns.RR{soa}
			w.WriteMsg(m)
			return
		}
		zone(t, "a.example. 60 A 192.0.2.1\na.example. 50 A 192.0.2.2")(w, q)
	})
	r := resolver(t, Config{Now: clock.now}, server.Server)
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int
		addrs []string
		ttl   time.Duration // after 10 s
	}{
		{"a.example.", dns.TypeA, 0, []string{"192.0.2.1", "192.0.2.2"}, 40 * time.Second},
		{"A.Example", dns.TypeA, 0, []string{"192.0.2.1", "192.0.2.2"}, 40 * time.Second},
		{"a.example.", dns.TypeAAAA, 0, nil, 0},
		{"x.example.", dns.TypeA, dns.RcodeNameError, nil, 0},
	} {
		if _, err := r.Addresses(t.Context(), c.name, c.qtype); err != nil {
			t.Fatal(err)
		}
		clock.add(10 * time.Second)
		before := server.asked("udp")
		a, ok := r.Known(c.name, c.qtype)
		if !ok || a.Rcode != c.rcode || !slices.Equal(a.Addrs, addrs(c.addrs...)) || len(a.Addrs) > 0 && a.TTL != c.ttl || a.Stale {
			t.Errorf("%s %d: %+v", c.name, c.qtype, a)
		}
		if soa := a.SOA(); (soa == nil) != (len(c.addrs) > 0) || soa != nil && soa.Hdr.Ttl != 50 {
			t.Errorf("%s %d: SOA %v", c.name, c.qtype, soa)
		}
		if server.asked("udp") != before {
			t.Errorf("%s is asked for although known", c.name)
		}
		clock.add(-10 * time.Second)
	}
	if _, ok := r.Known("b.example.", dns.TypeA); ok || server.asked("udp") != 3 {
		t.Errorf("%d queries, or an address from nowhere", server.asked("udp"))
	}
	clock.add(2 * time.Minute)
	if a, ok := r.Known("a.example.", dns.TypeA); ok {
		t.Errorf("known after its end: %+v", a)
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	if _, err := r.Addresses(left, "b.example.", dns.TypeA); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("who left gets %v", err)
	}
}

// TestAddressesKeepTheirOrder has the servers rotate and exchange them.
func TestAddressesKeepTheirOrder(t *testing.T) {
	clock := newClock()
	var current atomic.Value
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		zone(t, current.Load().(string))(w, q)
	})
	r := resolver(t, Config{Now: clock.now}, server.Server)
	for _, step := range []struct{ has, want []string }{
		{[]string{"192.0.2.2", "192.0.2.1"}, []string{"192.0.2.2", "192.0.2.1"}},
		{[]string{"192.0.2.1", "192.0.2.2", "192.0.2.1"}, []string{"192.0.2.2", "192.0.2.1"}},
		{[]string{"192.0.2.3", "192.0.2.1"}, []string{"192.0.2.1", "192.0.2.3"}},
		{[]string{"192.0.2.4"}, []string{"192.0.2.4"}},
	} {
		var records strings.Builder
		for i, ip := range step.has {
			fmt.Fprintf(&records, "a.example. %d A %s\n", 60+i, ip)
		}
		current.Store(records.String())
		known, err := r.Addresses(t.Context(), "a.example.", dns.TypeA)
		if err != nil || !slices.Equal(known.Addrs, addrs(step.want...)) {
			t.Errorf("of %v: %v, %v; want %v", step.has, known.Addrs, err, step.want)
		}
		clock.add(time.Hour)
	}
}
