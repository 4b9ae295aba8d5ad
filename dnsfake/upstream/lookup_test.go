package upstream

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

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
		if _, err := r.Exchange(t.Context(), query("a.example.", dns.TypeA)); err != nil { // no stale one
			t.Fatal(err)
		}
		got, err := r.LookupNetIP(t.Context(), "ip4", "a.example")
		if err != nil || !slices.Equal(got, addrs(step.want...)) {
			t.Errorf("of %v: %v, %v; want %v", step.has, got, err, step.want)
		}
		clock.add(time.Hour)
	}
}

func TestLookupAddr(t *testing.T) {
	server := serve(t, zone(t, `
		1.2.0.192.in-addr.arpa. 60 PTR a.example.
		1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 PTR b.example.`))
	r := resolver(t, Config{}, server.Server)
	for addr, want := range map[string][]string{
		"192.0.2.1": {"a.example."}, "2001:db8::1": {"b.example."}, "192.0.2.2": nil, "a.example": nil,
	} {
		got, err := r.LookupAddr(t.Context(), addr)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%s: %v, %v, want %v", addr, got, err, want)
		}
	}
}

// TestKnownNetIP has no answer, fresh ones, and stale ones, of which that there
// was no address is to be asked for again.
func TestKnownNetIP(t *testing.T) {
	clock := newClock()
	server := serve(t, zone(t, "a.example. 60 A 192.0.2.1"))
	r := resolver(t, Config{Now: clock.now}, server.Server)
	check := func(when, network string, want bool) {
		t.Helper()
		ips, known, err := r.KnownNetIP(network, "a.example")
		if known != want || known && (slices.Contains(ips, addrs("192.0.2.1")[0]) != (network == "ip4")) || known && (err == nil) != (network == "ip4") {
			t.Errorf("%s of %s: %v, known %v, %v", when, network, ips, known, err)
		}
	}
	for _, network := range []string{"ip4", "ip6"} {
		check("no answer", network, false)
		r.LookupNetIP(t.Context(), network, "a.example")
		check("a fresh answer", network, true)
		clock.add(time.Hour)
		check("a stale answer", network, network == "ip4")
	}
}
