package dnsfake

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// everything is an upstream where every name has records of many types.
type everything struct{}

func (everything) Exchange(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg).SetReply(q)
	h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 60}
	switch h.Rrtype {
	case dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: h, A: []byte{192, 0, 2, 1}}}
	case dns.TypeAAAA:
		m.Answer = []dns.RR{&dns.AAAA{Hdr: h, AAAA: []byte{0x20, 1, 0xd, 0xb8, 15: 1}}}
	case dns.TypeHTTPS:
		m.Answer = []dns.RR{&dns.HTTPS{SVCB: dns.SVCB{Hdr: h, Priority: 1, Target: "."}}}
	case dns.TypeTXT:
		m.Answer = []dns.RR{&dns.TXT{Hdr: h, Txt: []string{"a"}}}
	default:
		if dns.TypeToString[h.Rrtype] != "" {
			break // NODATA
		}
		m.Answer = []dns.RR{&dns.RFC3597{Hdr: h, Rdata: "c0ffee"}}
	}
	return m, nil
}

func TestHints(t *testing.T) {
	const sig = "HTTPS 13 2 60 20300101000000 20200101000000 1 example. AAAA"
	up := serve(t, testSOA+`
		svc.example. 60 HTTPS 1 . mandatory=ipv4hint,alpn alpn=h2,h3 port=8443 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1 ech=AAAA
		svc.example. 60 RRSIG `+sig+`
		only.example. 60 SVCB 1 t.example. mandatory=ipv6hint ipv6hint=2001:db8::1
		plain.example. 60 HTTPS 1 . alpn=h2
		plain.example. 60 RRSIG `+sig+`
		form.example. 60 HTTPS 0 svc.example.`)
	signed := func(name string) func(m *dns.Msg) bool {
		return func(m *dns.Msg) bool {
			m.Answer = up.records[name]
			return true
		}
	}
	up.on("svc.example. HTTPS", signed("svc.example."))
	up.on("plain.example. HTTPS", signed("plain.example."))
	s := server(t, up, Config{Clients: clients("4")})
	for name, want := range map[string]string{
		"svc.example. HTTPS":   `svc.example. 60 HTTPS 1 . mandatory="alpn" alpn="h2,h3" port="8443" ech="AAAA"`,
		"only.example. SVCB":   "only.example. 60 SVCB 1 t.example.",
		"plain.example. HTTPS": `plain.example. 60 HTTPS 1 . alpn="h2"; plain.example. 60 RRSIG ` + sig,
		"form.example. HTTPS":  "form.example. 60 HTTPS 0 svc.example.",
		"none.example. HTTPS":  "NXDOMAIN; example. 60 SOA",
	} {
		asked, qtype, _ := strings.Cut(name, " ")
		if got := brief(s, exchange(t, s, query(asked, qtype))); got != want {
			t.Errorf("%s\n got %s\nwant %s", name, got, want)
		}
	}
}

// TestNoServiceRecords has an operator who wants none.
func TestNoServiceRecords(t *testing.T) {
	up := serve(t, testSOA+`
		svc.example. 60 HTTPS 1 . alpn=h2
		alias.example. 60 CNAME svc.example.
		x.corp.example. 60 HTTPS 1 . alpn=h2
		mail.example. 60 MX 0 svc.example.`)
	p, err := NewPolicy(PolicyConfig{NoHTTPS: true, Bypass: []string{"*.corp.example"}})
	if err != nil {
		t.Fatal(err)
	}
	s := server(t, up, Config{Policy: func() *Policy { return p }})
	for name, want := range map[string]string{
		"svc.example. HTTPS":    "svc.example. 10 SOA",
		"alias.example. HTTPS":  "alias.example. 10 SOA",
		"svc.example. SVCB":     "example. 60 SOA",
		"none.example. HTTPS":   "NXDOMAIN; example. 60 SOA",
		"x.corp.example. HTTPS": `x.corp.example. 60 HTTPS 1 . alpn="h2"`,
		"mail.example. MX":      "mail.example. 60 MX 0 svc.example.",
	} {
		asked, qtype, _ := strings.Cut(name, " ")
		if got := brief(s, exchange(t, s, query(asked, qtype))); got != want {
			t.Errorf("%s\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestOtherTypes(t *testing.T) {
	records := testSOA + `
		x.example. 60 MX 10 six.example.
		x.example. 60 SRV 1 2 3 six.example.
		x.example. 60 NS six.example.
		x.example. 60 CAA 0 issue "ca.example"
		x.example. 60 TXT "a b" "\255\000"
		x.example. 60 TLSA 3 1 1 c0ffee
		x.example. 60 DS 1 13 2 c0ffee
		x.example. 60 TYPE666 \# 3 c0ffee`
	up := serve(t, records)
	s := server(t, up, Config{Clients: clients("4")})
	for _, rr := range up.records["x.example."] {
		qtype := rr.Header().Rrtype
		up.on("x.example. "+dns.Type(qtype).String(), func(m *dns.Msg) bool {
			up.fill(m, "x.example.", qtype)
			for _, text := range []string{"six.example. 60 A 192.0.2.1", "six.example. 60 AAAA 2001:db8::6", "six.example. 60 TXT kept"} {
				extra, _ := dns.NewRR(text)
				m.Extra = append(m.Extra, extra)
			}
			return true
		})
		q := new(dns.Msg).SetQuestion("x.example.", qtype)
		m := exchange(t, s, q)
		if len(m.Answer) != 1 || m.Answer[0].String() != rr.String() {
			t.Errorf("got  %v\nwant %v", m.Answer, rr)
		}
		if len(m.Extra) != 1 || m.Extra[0].Header().Rrtype != dns.TypeTXT {
			t.Errorf("additional: %v", m.Extra)
		}
	}
}

func TestWhatUpstreamIsNotAsked(t *testing.T) {
	up := serve(t, testZone)
	s := server(t, up, Config{})
	if _, err := s.conf.Table.Issue("a.example", 60e9); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, qtype string
		class       uint16
		want        string
	}{
		{"a.example.", "ANY", dns.ClassINET, `a.example. 3600 HINFO "RFC8482" ""`},
		{"a.example.", "AXFR", dns.ClassINET, "REFUSED; EDE 18"},
		{"a.example.", "IXFR", dns.ClassINET, "REFUSED; EDE 18"},
		{"a.example.", "MAILA", dns.ClassINET, "NOTIMP"},
		{"a.example.", "MAILB", dns.ClassINET, "NOTIMP"},
		{"a.example.", "OPT", dns.ClassINET, "FORMERR"},
		{"a.example.", "TSIG", dns.ClassINET, "FORMERR"},
		{"version.bind.", "TXT", dns.ClassCHAOS, "REFUSED; EDE 21"},
		{"six.example.", "A", dns.ClassANY, "REFUSED; EDE 21"},
		{"six.example.", "A", dns.ClassHESIOD, "REFUSED; EDE 21"},
		{"six.example.", "A", dns.ClassNONE, "REFUSED; EDE 21"},
		{"1.1.18.198.in-addr.arpa.", "PTR", dns.ClassINET, "NXDOMAIN; 18.198.in-addr.arpa. 300 SOA"},
		{"1.1.19.198.In-Addr.arpa.", "PTR", dns.ClassINET, "NXDOMAIN; 19.198.In-Addr.arpa. 300 SOA"},
		{"b._dns-sd.1.1.19.198.in-addr.arpa.", "PTR", dns.ClassINET, "NXDOMAIN; 19.198.in-addr.arpa. 300 SOA"},
		{"x.19.198.in-addr.arpa.", "PTR", dns.ClassINET, "NXDOMAIN; 19.198.in-addr.arpa. 300 SOA"},
		{"18.198.in-addr.arpa.", "SOA", dns.ClassINET, "18.198.in-addr.arpa. 300 SOA"},
		{reverseName(t, "2001:2::10"), "PTR", dns.ClassINET, "NXDOMAIN; 0.0.0.0.2.0.0.0.1.0.0.2.ip6.arpa. 300 SOA"},
	} {
		q := query(c.name, c.qtype)
		q.Question[0].Qclass = c.class
		q.SetEdns0(1232, false)
		if got := brief(s, exchange(t, s, q)); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.name, c.qtype, got, c.want)
		}
	}
	if asked := up.queries(); len(asked) > 0 {
		t.Errorf("upstream was asked %v", asked)
	}
	for _, name := range []string{"198.in-addr.arpa.", "1.1.20.198.in-addr.arpa.", reverseName(t, "2001:2:1::"), "in-addr.arpa.", "x.in-addr.arpa."} {
		exchange(t, s, query(name, "PTR"))
		if !slices.Contains(up.queries(), fmt.Sprintf("%s PTR", name)) {
			t.Errorf("upstream was not asked %s", name)
		}
	}
}

func reverseName(t *testing.T, ip string) string {
	t.Helper()
	name, err := dns.ReverseAddr(ip)
	if err != nil {
		t.Fatal(err)
	}
	return name
}
