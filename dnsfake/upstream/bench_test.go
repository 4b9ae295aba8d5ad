package upstream

import (
	"testing"

	"github.com/miekg/dns"
)

// warm returns a resolver that knows the addresses of a.example, and their
// absence.
func warm(b *testing.B) *Resolver {
	server := serve(b, zone(b, `
		a.example. 86400 A 192.0.2.1
		a.example. 86400 A 192.0.2.2
		example. 86400 SOA ns.example. hostmaster.example. 1 2 3 4 86400`))
	r := resolver(b, Config{}, server.Server)
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if _, err := r.Exchange(b.Context(), query("a.example.", qtype)); err != nil {
			b.Fatal(err)
		}
	}
	return r
}

func BenchmarkExchange(b *testing.B) {
	r := warm(b)
	q := query("a.example.", dns.TypeA)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Exchange(b.Context(), q); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookupNetIP(b *testing.B) {
	r := warm(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.LookupNetIP(b.Context(), "ip", "a.example"); err != nil {
			b.Fatal(err)
		}
	}
}
