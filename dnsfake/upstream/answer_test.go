package upstream

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// message returns a reply to a question for qtype of q.example. with sections
// of records in presentation form.
func message(t testing.TB, qtype uint16, rcode int, answer, authority, additional []string) *dns.Msg {
	t.Helper()
	m := query("Q.example.", qtype)
	m.Rcode = rcode
	for section, texts := range map[*[]dns.RR][]string{&m.Answer: answer, &m.Ns: authority, &m.Extra: additional} {
		for _, text := range texts {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Fatal(err)
			}
			*section = append(*section, rr)
		}
	}
	return m
}

func text(rrs []dns.RR) string {
	var lines []string
	for _, rr := range rrs {
		h := rr.Header()
		lines = append(lines, h.Name+" "+dns.Type(h.Rrtype).String())
	}
	return strings.Join(lines, ", ")
}

// aliases returns a chain of n aliases from q.example to an address.
func aliases(n int, ip string) (records []string) {
	owner := "q.example."
	for i := range n {
		target := fmt.Sprintf("%d.example.", i+1)
		records = append(records, owner+" 60 CNAME "+target)
		owner = target
	}
	return append(records, owner+" 60 A "+ip)
}

func TestScrub(t *testing.T) {
	for name, c := range map[string]struct {
		qtype             uint16
		answer, authority []string
		want, wantNS      string
		rcode             int
	}{
		"chain in any order, and poison": {
			qtype: dns.TypeA,
			answer: []string{
				"c.example. 60 A 192.0.2.1",
				"bank.example. 60 A 6.6.6.6",
				"q.example. 60 CNAME b.example.",
				"B.example. 60 CNAME c.example.",
				"b.example. 60 A 6.6.6.6",
				"c.example. 60 AAAA 2001:db8::1",
			},
			authority: []string{"example. 60 NS ns.example.", "bank.test. 60 NS ns.evil.test.", "example. 60 A 6.6.6.6"},
			want:      "c.example. A, q.example. CNAME, B.example. CNAME",
			wantNS:    "example. NS",
		},
		"loop": {
			qtype:  dns.TypeA,
			answer: []string{"q.example. 60 CNAME b.example.", "b.example. 60 CNAME q.example.", "q.example. 60 A 6.6.6.6"},
			rcode:  dns.RcodeServerFailure,
		},
		"alias of itself": {
			qtype:     dns.TypeAAAA,
			answer:    []string{"q.example. 60 CNAME Q.example."},
			authority: []string{"example. 60 NS ns.example."},
			rcode:     dns.RcodeServerFailure,
		},
		"loop of others": {
			qtype:  dns.TypeA,
			answer: []string{"q.example. 60 A 192.0.2.1", "a.test. 60 CNAME b.test.", "b.test. 60 CNAME a.test."},
			want:   "q.example. A",
		},
		"longest": {
			qtype:  dns.TypeA,
			answer: aliases(maxAliases, "192.0.2.1"),
			want:   "q.example. CNAME, 1.example. CNAME, 2.example. CNAME, 3.example. CNAME, 4.example. CNAME, 5.example. CNAME, 6.example. CNAME, 7.example. CNAME, 8.example. CNAME, 9.example. CNAME, 10.example. CNAME, 11.example. CNAME, 12.example. CNAME, 13.example. CNAME, 14.example. CNAME, 15.example. CNAME, 16.example. A",
		},
		"too long": {
			qtype:  dns.TypeA,
			answer: aliases(maxAliases+1, "192.0.2.1"),
			rcode:  dns.RcodeServerFailure,
		},
		"DNAME": {
			qtype:  dns.TypeA,
			answer: []string{"example. 60 DNAME test.", "q.example. 60 CNAME q.test.", "q.test. 60 A 192.0.2.1", "other. 60 DNAME evil."},
			want:   "example. DNAME, q.example. CNAME, q.test. A",
		},
		"CNAME asked for": {
			qtype:  dns.TypeCNAME,
			answer: []string{"q.example. 60 CNAME b.example.", "b.example. 60 CNAME c.example."},
			want:   "q.example. CNAME",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := message(t, c.qtype, 0, c.answer, c.authority, nil)
			scrub(m)
			if got := text(m.Answer); got != c.want {
				t.Errorf("answer: %s\n   want: %s", got, c.want)
			}
			if m.Rcode != c.rcode || (ExtendedError(m) != nil) != (c.rcode != 0) {
				t.Errorf("%v", m)
			}
			if got := text(m.Ns); got != c.wantNS {
				t.Errorf("authority: %s\n     want: %s", got, c.wantNS)
			}
		})
	}
}

func TestLifetime(t *testing.T) {
	soa := func(ttl, minimum string) []string {
		return []string{"example. " + ttl + " SOA ns.example. a.example. 1 2 3 4 " + minimum}
	}
	for name, c := range map[string]struct {
		rcode             int
		answer, authority []string
		want              time.Duration
	}{
		"least of the chain": {0, []string{"q.example. 300 CNAME b.example.", "b.example. 60 A 192.0.2.1"}, nil, time.Minute},
		"too short":          {0, []string{"q.example. 1 A 192.0.2.1"}, nil, minFresh},
		"too long":           {0, []string{"q.example. 999999 A 192.0.2.1"}, nil, maxFresh},
		"SOA minimum":        {3, nil, soa("300", "60"), time.Minute},
		"SOA TTL":            {0, nil, soa("60", "300"), time.Minute},
		"SOA too long":       {3, nil, soa("86400", "86400"), maxNegative},
		"SOA 0":              {3, nil, soa("0", "60"), 0},
		"no SOA":             {3, nil, nil, noSOA},
		"failure":            {2, nil, soa("300", "300"), failure},
	} {
		t.Run(name, func(t *testing.T) {
			m := message(t, dns.TypeA, c.rcode, c.answer, c.authority, nil)
			scrub(m)
			if got := lifetime(m); got != c.want {
				t.Errorf("lifetime %v, want %v", got, c.want)
			}
		})
	}
}

func FuzzMatch(f *testing.F) {
	q, err := query("Q.Example.", dns.TypeA).Pack()
	if err != nil {
		f.Fatal(err)
	}
	reply := bytes.Clone(q)
	reply[2] |= 0x80
	f.Add(reply)
	for _, m := range []*dns.Msg{
		message(f, dns.TypeA, 0, []string{"q.example. 60 CNAME b.example.", "b.example. 60 A 192.0.2.1"}, nil, nil),
		message(f, dns.TypeA, dns.RcodeNameError, nil, []string{"example. 300 SOA ns.example. a.example. 1 2 3 4 60"}, nil),
	} {
		m.Response, m.Compress = true, true
		tell(m, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeStaleAnswer})
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(bytes.Clone(q[:2]), wire[2:]...))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		reply, err := match(wire, q)
		if err != nil {
			return
		}
		scrub(reply)
		now := time.Unix(0, 0)
		a := newAnswer(reply, nil, now)
		if life := a.expires.Sub(now); life < 0 || life > maxFresh {
			t.Errorf("lives %v", life)
		}
		for _, later := range []time.Duration{0, time.Hour, maxStale} {
			m, err := a.reply(curious("q.EXAMPLE."), now.Add(later))
			if a.err == nil && (err != nil || m.Question[0].Name != "q.EXAMPLE.") {
				t.Errorf("after %v: %v, %v", later, m, err)
			}
		}
	})
}
