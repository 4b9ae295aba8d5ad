package upstream

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestTruncatedForEver has a server that truncates over TCP, too, until there is
// nothing left, which is no answer: the name may have what was asked for.
func TestTruncatedForEver(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Truncated = true
		w.WriteMsg(m)
	})
	if m, err := resolver(t, Config{}, server.Server).Exchange(t.Context(), query("a.example.", dns.TypeA)); err != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v, %v", m, err)
	}
	good := serve(t, zone(t, "a.example. 60 A 192.0.2.1"))
	got, err := resolver(t, Config{}, server.Server, good.Server).LookupNetIP(t.Context(), "ip4", "a.example")
	if err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
		t.Errorf("with another server: %v, %v", got, err)
	}
}

// TestLongestMessage has a server send as much as a message can have.
func TestLongestMessage(t *testing.T) {
	server := serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if w.LocalAddr().Network() == "udp" {
			m.Truncated = true
			w.WriteMsg(m)
			return
		}
		m.Compress = true
		h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: 65280, Class: dns.ClassINET, Ttl: 60}
		m.Answer = []dns.RR{&dns.RFC3597{Hdr: h}}
		wire, _ := m.Pack()
		h.Rdlength = uint16(65535 - len(wire))
		m.Answer = []dns.RR{&dns.RFC3597{Hdr: h, Rdata: strings.Repeat("ab", 65535-len(wire))}}
		if wire, _ = m.Pack(); len(wire) != 65535 {
			t.Errorf("%d octets", len(wire))
		}
		w.Write(wire)
	})
	m, err := resolver(t, Config{}, server.Server).Exchange(t.Context(), query("a.example.", 65280))
	if err != nil || len(m.Answer) != 1 {
		t.Errorf("%v", err)
	}
}
