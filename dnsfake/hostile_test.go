package dnsfake

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestOurPoolFromUpstream has upstream answer with addresses of the pools, in
// every place.
func TestOurPoolFromUpstream(t *testing.T) {
	up := serve(t, testSOA+`
		a.example. 60 A 198.19.255.1
		aaaa.example. 60 AAAA 2001:2::1:2
		alias.example. 60 CNAME a.example.
		beside.example. 60 A 192.0.2.1
		beside.example. 60 A 198.18.0.20
		hint.example. 60 HTTPS 1 . ipv4hint=198.18.0.20 ipv6hint=2001:2::20
	`)
	s := server(t, up, Config{Always: func() Families { return familiesOf("46") }})
	for question, want := range map[string]string{
		"a.example. A": "SERVFAIL", "aaaa.example. AAAA": "SERVFAIL", "alias.example. A": "SERVFAIL",
		"beside.example. A": "SERVFAIL", "hint.example. HTTPS": "hint.example. 60 HTTPS 1 .",
	} {
		before := s.Counters().Loop
		name, qtype, _ := strings.Cut(question, " ")
		if got := brief(s, exchange(t, s, query(name, qtype))); got != want {
			t.Errorf("%s: %s, want %s", question, got, want)
		}
		if counted := s.Counters().Loop > before; counted != (want == "SERVFAIL") {
			t.Errorf("%s: counted %v", question, counted)
		}
	}
	if n := s.conf.Table.Len(); n > 0 {
		t.Errorf("%d names got an address", n)
	}
}

// TestTTLsOfUpstream has no TTL that a client could keep an address by for longer
// than it is promised, or not at all.
func TestTTLsOfUpstream(t *testing.T) {
	up := serve(t, testZone)
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for name, ttl := range map[string]uint32{"zero.example.": 0, "sign.example.": 1 << 31, "most.example.": 1<<32 - 1} {
			up.on(name+" "+dns.TypeToString[qtype], func(m *dns.Msg) bool {
				if qtype == dns.TypeA {
					m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: qtype, Class: dns.ClassINET, Ttl: ttl}, A: []byte{192, 0, 2, 1}}}
				}
				return true
			})
		}
	}
	s := server(t, up, Config{Always: func() Families { return familiesOf("46") }})
	for _, name := range []string{"zero.example.", "sign.example.", "most.example."} {
		m := exchange(t, s, query(name, "A"))
		if len(m.Answer) != 1 || m.Answer[0].Header().Ttl < 10 || m.Answer[0].Header().Ttl > 300 {
			t.Errorf("%v", m)
		}
	}
}

// TestEveryOctetOfTheJournal damages a journal at each octet, and cuts it at each.
// The start succeeds, and no name gets an address that was another's.
func TestEveryOctetOfTheJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	k := keep(t, path, nil)
	want := k.issue(t, 3, time.Minute)
	k.stop(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, at int, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		k := keep(t, path, nil)
		defer k.stop(t)
		for name, pair := range want {
			if got, ok := k.NameOf(pair.IPv4); ok && got != name {
				t.Errorf("%s at %d: %v is %s, want %s", what, at, pair.IPv4, got, name)
			}
		}
		if n := k.Len(); what == "flipped" && n < len(want) && k.log.Len() == 0 {
			t.Errorf("%s at %d: %d names, without a word", what, at, n)
		}
	}
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 0xff
		try("flipped", i, flipped)
		try("cut", i, whole[:i])
	}
}
