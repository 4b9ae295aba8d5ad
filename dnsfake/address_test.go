package dnsfake

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sixgate/dnsfake/upstream"
)

const testZone = testSOA + `
	four.example. 60 A 192.0.2.4
	six.example. 60 AAAA 2001:db8::6
	dual.example. 60 A 192.0.2.46
	dual.example. 120 AAAA 2001:db8::46
	mail.example. 60 MX 0 four.example.
	brief.example. 1 AAAA 2001:db8::1
	long.example. 86400 AAAA 2001:db8::2
	alias.example. 300 CNAME second.example.
	second.example. 20 CNAME third.example.
	third.example. 200 CNAME six.example.
	nowhere.example. 60 CNAME absent.example.
	here.example. 60 A 127.0.0.1
	half.example. 60 A 127.0.0.1
	half.example. 60 AAAA 2001:db8::7
	loop.example. 60 A 198.18.3.4
	www.corp.example. 60 A 192.0.2.99
	four.held.example. 60 A 192.0.2.4
`

func TestAddressQueries(t *testing.T) {
	up := serve(t, testZone)
	there := server(t, serve(t, "mail.far.example. 60 MX 10 there.example.\nmail.far.example. 60 A 192.0.2.98"), Config{}).conf.Resolver
	up.on("broken.example. AAAA", rcodeOf(dns.RcodeNameError)) // RFC 4074, section 4.2
	up.records["broken.example."] = up.records["four.example."]
	up.on("broken.example. A", func(m *dns.Msg) bool {
		rr, _ := dns.NewRR("broken.example. 60 A 192.0.2.4")
		m.Answer = []dns.RR{rr}
		return true
	})
	up.on("part.example. A", rcodeOf(dns.RcodeServerFailure))
	up.on("part.example. AAAA", func(m *dns.Msg) bool {
		rr, _ := dns.NewRR("part.example. 60 AAAA 2001:db8::8")
		m.Answer = []dns.RR{rr}
		return true
	})
	up.on("down.example. A", rcodeOf(dns.RcodeServerFailure))
	up.on("down.example. AAAA", rcodeOf(dns.RcodeRefused))
	for _, qtype := range []string{"A", "AAAA"} {
		up.on("bogus.example. "+qtype, func(m *dns.Msg) bool {
			m.Rcode = dns.RcodeServerFailure
			m.SetEdns0(1232, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus}}
			return true
		})
	}
	for _, qtype := range []string{"A", "AAAA", "MX"} {
		up.on("circle.example. "+qtype, func(m *dns.Msg) bool {
			rr, _ := dns.NewRR("circle.example. 60 CNAME circle.example.")
			m.Answer = []dns.RR{rr}
			return true
		})
	}
	for i, fails := range []string{"A", "AAAA"} {
		for _, qtype := range []string{"A", "AAAA"} {
			rcode := dns.RcodeSuccess
			if qtype == fails {
				rcode = dns.RcodeServerFailure
			}
			up.on(fmt.Sprintf("half%d.down.example. %s", 4+2*i, qtype), rcodeOf(rcode))
		}
	}
	up.on("bare.example. A", rcodeOf(0))
	up.on("bare.example. AAAA", rcodeOf(0))

	for _, c := range []struct {
		clients, always string
		query, want     string
	}{
		// IPv4 clients, faked as needed. "NODATA" has upstream's SOA, or our own
		// when the family that the client can use was known first.
		{"4", "", "four.example. A", "four.example. 60 A 192.0.2.4"},
		{"4", "", "dual.example. A", "dual.example. 60 A 192.0.2.46"},
		{"4", "", "six.example. A", "six.example. 60 A fake six.example"},
		{"4", "", "SiX.eXample. A", "SiX.eXample. 60 A fake six.example"},
		{"4", "", "absent.example. A", "NXDOMAIN; example. 60 SOA"},
		{"4", "", "mail.example. A", "example. 60 SOA"},
		{"4", "", "four.example. AAAA", "NODATA"},
		{"4", "", "six.example. AAAA", "NODATA"},
		{"4", "", "dual.example. AAAA", "NODATA"},
		{"4", "", "absent.example. AAAA", "NXDOMAIN; example. 60 SOA"},
		// IPv4 clients, always faked.
		{"4", "4", "four.example. A", "four.example. 60 A fake four.example"},
		{"4", "4", "six.example. A", "six.example. 60 A fake six.example"},
		{"4", "4", "absent.example. A", "NXDOMAIN; example. 60 SOA"},
		{"4", "4", "mail.example. A", "example. 60 SOA"},
		{"4", "46", "four.example. AAAA", "NODATA"},
		// IPv6 clients: the mirror.
		{"6", "", "four.example. AAAA", "four.example. 60 AAAA fake four.example"},
		{"6", "", "dual.example. AAAA", "dual.example. 120 AAAA 2001:db8::46"},
		{"6", "", "six.example. A", "NODATA"},
		{"6", "", "four.example. A", "NODATA"},
		{"6", "", "absent.example. A", "NXDOMAIN; example. 60 SOA"},
		{"6", "6", "six.example. AAAA", "six.example. 60 AAAA fake six.example"},
		// Clients with both.
		{"46", "", "four.example. A", "four.example. 60 A 192.0.2.4"},
		{"46", "", "four.example. AAAA", "four.example. 60 SOA|example. 60 SOA"},
		{"46", "46", "four.example. A", "four.example. 60 A fake four.example"},
		{"46", "46", "four.example. AAAA", "four.example. 60 AAAA fake four.example"},
		{"46", "4", "four.example. A", "four.example. 60 A fake four.example"},
		{"46", "4", "four.example. AAAA", "four.example. 60 AAAA fake four.example"},
		{"46", "4", "six.example. AAAA", "six.example. 60 AAAA 2001:db8::6"},
		// TTLs and aliases.
		{"4", "", "brief.example. A", "brief.example. 10 A fake brief.example"},
		{"4", "", "long.example. A", "long.example. 300 A fake long.example"},
		{"4", "", "alias.example. A", "alias.example. 20 A fake alias.example"},
		{"6", "", "alias.example. AAAA", "alias.example. 300 CNAME second.example.; second.example. 20 CNAME third.example.; third.example. 200 CNAME six.example.; six.example. 60 AAAA 2001:db8::6"},
		{"4", "", "alias.example. AAAA", "NODATA"},
		{"4", "", "nowhere.example. A", "NXDOMAIN; nowhere.example. 10 SOA"},
		// Servers that fail.
		{"4", "4", "broken.example. A", "broken.example. 60 A fake broken.example"},
		{"6", "", "broken.example. AAAA", "broken.example. 60 AAAA fake broken.example"},
		{"4", "", "broken.example. AAAA", "NODATA"},
		{"4", "", "part.example. A", "part.example. 60 A fake part.example"},
		{"4", "", "down.example. A", "SERVFAIL; EDE 22"},
		{"4", "", "down.example. AAAA", "SERVFAIL; EDE 22"},
		{"4", "", "half4.down.example. A", "SERVFAIL; EDE 22"}, // what failed may have an address
		{"4", "", "half6.down.example. A", "SERVFAIL; EDE 22"},
		{"4", "", "half4.down.example. AAAA", "NODATA"},
		{"46", "", "half4.down.example. A", "SERVFAIL; EDE 22"},
		{"46", "", "half6.down.example. A", "NODATA"}, // and learns of the failure with AAAA
		{"46", "4", "half6.down.example. A", "SERVFAIL; EDE 22"},
		{"4", "", "bogus.example. A", "SERVFAIL; EDE 6"},
		{"4", "", "bogus.example. A DO CD", "SERVFAIL; EDE 6"},
		{"4", "", "bare.example. A", "bare.example. 10 SOA"},
		{"4", "", "circle.example. A", "SERVFAIL; EDE 0"},
		{"6", "", "circle.example. AAAA", "SERVFAIL; EDE 0"},
		{"4", "", "circle.example. MX", "SERVFAIL; EDE 0"},
		{"4", "", "loop.example. A", "SERVFAIL; EDE 0"},
		{"4", "", "loop.example. AAAA", "SERVFAIL; EDE 0|example. 60 SOA"},
		// Addresses that may not be dialled.
		{"4", "4", "here.example. A", "here.example. 60 SOA; EDE 15"},
		{"6", "", "here.example. AAAA", "example. 60 SOA; EDE 15"},
		{"4", "", "here.example. A", "here.example. 60 A 127.0.0.1"},
		{"46", "", "here.example. AAAA", "example. 60 SOA"},
		{"4", "4", "half.example. A", "half.example. 60 A fake half.example"},
		// Exempt names, and who validates.
		{"4", "46", "www.corp.example. A", "www.corp.example. 60 A 192.0.2.99"},
		{"4", "46", "exact.example. A", "NXDOMAIN; example. 60 SOA"},
		{"4", "4", "four.example. A DO CD", "four.example. 60 A 192.0.2.4"},
		{"4", "4", "four.example. A DO", "four.example. 60 A fake four.example"},
		// Names that the last gateway of a chain resolves.
		{"4", "", "x.far.example. A", "x.far.example. 300 A fake x.far.example"},
		{"4", "", "x.far.example. HTTPS", "x.far.example. 10 SOA"},
		{"4", "", "x.far.example. AAAA", "x.far.example. 10 SOA"},
		{"46", "", `x\ y.far.example. A`, `x\ y.far.example. 10 SOA`},
		{"4", "", "x.far.example. MX", "REFUSED; EDE 21"},
		{"4", "", "x.far.example. A DO CD", "REFUSED; EDE 21"},
		{"4", "", "mail.far.example. MX", "mail.far.example. 60 MX 10 there.example."},
		{"4", "", "mail.far.example. A DO CD", "mail.far.example. 60 A 192.0.2.98"},
		// Names of which a rule rejects a part.
		{"4", "", "four.held.example. A", "four.held.example. 60 A fake four.held.example"},
		{"46", "", "four.held.example. AAAA", "four.held.example. 60 AAAA fake four.held.example"},
		{"4", "", "four.held.example. A DO CD", "four.held.example. 60 A 192.0.2.4"},
		{"4", "", "absent.held.example. A", "NXDOMAIN; example. 60 SOA"},
		// Names that a rule rejects.
		{"4", "", "x.ads.example. A", "NXDOMAIN; x.ads.example. 10 SOA; EDE 15"},
		{"4", "4", "x.ads.example. AAAA", "NXDOMAIN; x.ads.example. 10 SOA; EDE 15"},
		{"46", "", "x.ads.example. MX DO CD", "NXDOMAIN; x.ads.example. 10 SOA; EDE 15"},
		{"4", "", "mail.far.example. A", "mail.far.example. 300 A fake mail.far.example"},
	} {
		t.Run(fmt.Sprintf("%s/%s/%s", c.clients, c.always, c.query), func(t *testing.T) {
			s := server(t, up, Config{
				Clients: clients(c.clients),
				Always:  func() Families { return familiesOf(c.always) },
				Policy:  policy(t, []string{"*.Corp.example.", "exact.example"}, nil, 0),
				Way:     ways(".far.example", ".ads.example", ".held.example"),
				Beyond: func(_ netip.Addr, name string) Exchanger {
					if name == "mail.far.example" {
						return there
					}
					return nil
				},
				Vet: func(ip netip.Addr) error {
					if ip.IsLoopback() {
						return errors.New("loopback")
					}
					return nil
				},
			})
			fields := strings.Fields(strings.ReplaceAll(c.query, `\ `, `\032`))
			q := query(strings.ReplaceAll(fields[0], `\032`, `\ `), fields[1])
			q.CheckingDisabled = strings.Contains(c.query, "CD")
			q.SetEdns0(1232, strings.Contains(c.query, "DO"))
			m := exchange(t, s, q)
			got := brief(s, m)
			if c.want == "NODATA" && m.Rcode == 0 && len(m.Answer) == 0 && len(m.Ns) == 1 && upstream.SOA(m) != nil {
				return
			}
			if !slices.Contains(strings.Split(c.want, "|"), got) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	for _, asked := range up.queries() {
		if strings.Contains(asked, "far.example") || strings.Contains(asked, "ads.example") {
			t.Errorf("asked upstream: %s", asked)
		}
	}
}

// TestBypassedAddresses has names with addresses that clients connect to
// themselves, where all names are faked.
func TestBypassedAddresses(t *testing.T) {
	up := serve(t, testSOA+`
		in.example. 60 A 10.1.2.3
		in.example. 60 A 10.1.2.4
		in.example. 60 AAAA 2001:db8::1
		four.example. 60 A 10.1.2.3
		mixed.example. 60 A 10.1.2.3
		mixed.example. 60 A 192.0.2.1
		alias.example. 60 CNAME in.example.`)
	for _, c := range []struct{ clients, query, want string }{
		{"4", "in.example. A", "in.example. 60 A 10.1.2.3; in.example. 60 A 10.1.2.4"},
		{"4", "in.example. AAAA", "NODATA"},
		{"46", "in.example. A", "in.example. 60 A 10.1.2.3; in.example. 60 A 10.1.2.4"},
		{"46", "in.example. AAAA", "in.example. 60 AAAA fake in.example"},
		{"46", "four.example. AAAA", "example. 60 SOA"},
		{"6", "four.example. AAAA", "four.example. 60 AAAA fake four.example"},
		{"6", "four.example. A", "NODATA"},
		{"4", "mixed.example. A", "mixed.example. 60 A fake mixed.example"},
		{"4", "alias.example. A", "alias.example. 60 CNAME in.example.; in.example. 60 A 10.1.2.3; in.example. 60 A 10.1.2.4"},
		{"4", "10.9.9.9. A", "10.9.9.9. 300 A 10.9.9.9|10.9.9.9. 10 A 10.9.9.9"},
		{"6", "10.9.9.9. AAAA", "10.9.9.9. 300 AAAA fake 10.9.9.9"},
		{"4", "192.0.2.9. A", "192.0.2.9. 300 A fake 192.0.2.9"},
	} {
		t.Run(c.clients+"/"+c.query, func(t *testing.T) {
			s := server(t, up, Config{
				Clients: clients(c.clients),
				Always:  func() Families { return familiesOf("46") },
				Policy:  policy(t, []string{"10.0.0.0/8"}, nil, 0),
			})
			name, qtype, _ := strings.Cut(c.query, " ")
			m := exchange(t, s, query(name, qtype))
			got := brief(s, m)
			if c.want == "NODATA" && m.Rcode == 0 && len(m.Answer) == 0 && upstream.SOA(m) != nil {
				return
			}
			if !slices.Contains(strings.Split(c.want, "|"), got) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestFamilyOfTransport has clients ask over the family whose addresses they do
// not ask for.
func TestFamilyOfTransport(t *testing.T) {
	s := server(t, serve(t, testZone), Config{Always: func() Families { return familiesOf("46") }})
	for from, qtype := range map[string]string{"2001:db8::9": "A", "192.168.77.9": "AAAA"} {
		for range 2 { // the second time from what was just answered
			m := exchangeFrom(t, s, netip.MustParseAddr(from), query("four.example.", qtype))
			if got, want := brief(s, m), "four.example. 60 "+qtype+" fake four.example"; got != want {
				t.Errorf("%s to %s: %s, want %s", qtype, from, got, want)
			}
		}
	}
}

// TestDecideWaits has every verdict before both families are known hold
// whatever the other one turns out to be.
func TestDecideWaits(t *testing.T) {
	for bits := range 32 {
		w := want{bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0, bits&16 != 0}
		findings := []finding{failed, absent, empty, denied, present}
		if w.passes {
			findings = append(findings, passed)
		}
		w.otherReal = w.otherReal && w.other
		for _, known := range findings {
			for _, late := range findings {
				for _, c := range [][4]finding{{known, pending, known, late}, {pending, known, late, known}} {
					early, final := decide(w, c[0], c[1]), decide(w, c[2], c[3])
					if early != wait && early != final {
						t.Errorf("%+v: verdict %d at %v, then %d", w, early, c, final)
					}
					if final == wait {
						t.Errorf("%+v: nothing to wait for at %v", w, c)
					}
				}
			}
		}
		if got := decide(w, pending, pending); got != wait {
			t.Errorf("%+v: verdict %d from nothing", w, got)
		}
	}
}

// TestPositiveAnswersDoNotWait has the family that is not needed hang.
func TestPositiveAnswersDoNotWait(t *testing.T) {
	up := serve(t, testZone)
	up.on("four.example. AAAA", func(*dns.Msg) bool { return false })
	s := server(t, up, Config{Clients: clients("46"), Always: func() Families { return familiesOf("6") }})
	for _, qtype := range []string{"A", "AAAA"} {
		if got := brief(s, exchange(t, s, query("four.example.", qtype))); strings.Contains(got, "SERVFAIL") {
			t.Errorf("%s: %s", qtype, got)
		}
	}
}

// TestUpstreamThatRefuses has no server where upstream should be.
func TestUpstreamThatRefuses(t *testing.T) {
	pc, ln := listen(t)
	up := &script{addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	pc.Close()
	ln.Close()
	s := server(t, up, Config{})
	m := exchange(t, s, query("four.example.", "A").SetEdns0(1232, false))
	told := upstream.ExtendedError(m)
	if m.Rcode != dns.RcodeServerFailure || told == nil || told.InfoCode != dns.ExtendedErrorCodeNetworkError ||
		told.ExtraText != "connection refused" {
		t.Errorf("got %v", m)
	}
}

// TestNobodyToAsk has the host lose its resolv.conf.
func TestNobodyToAsk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	nobody, err := upstream.New(upstream.Config{Servers: upstream.ResolvConf(file, nil)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nobody.Close() })
	var log strings.Builder
	s := server(t, serve(t, testZone), Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	s.conf.Resolver = nobody
	for _, qtype := range []string{"A", "MX"} {
		m := exchange(t, s, query("four.example.", qtype).SetEdns0(1232, false))
		if told := upstream.ExtendedError(m); m.Rcode != dns.RcodeServerFailure || told == nil || told.ExtraText != "no name server" {
			t.Errorf("got %v", m)
		}
	}
	if text := log.String(); !strings.Contains(text, file) || strings.Count(text, "\n") != 1 {
		t.Errorf("logged %q", text)
	}
}

func TestManyClientsAreTwoQueries(t *testing.T) {
	up := serve(t, testZone)
	s := server(t, up, Config{Always: func() Families { return familiesOf("46") }})
	// No question is repeated, however slow the machine.
	patient, err := upstream.New(upstream.Config{
		Servers: upstream.Static(upstream.Server{Network: "udp", Addr: up.addr}),
		Timeout: time.Minute, Retry: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { patient.Close() })
	s.conf.Resolver = patient
	var askers sync.WaitGroup
	var mu sync.Mutex
	answers := make(map[string]int)
	for client, i := testClient.Addr(), 0; i < 100; client, i = client.Next(), i+1 {
		for _, qtype := range []string{"A", "AAAA"} {
			askers.Go(func() {
				m := exchangeFrom(t, s, client, query("four.example.", qtype))
				mu.Lock()
				defer mu.Unlock()
				answers[m.Answer[0].String()]++
			})
		}
	}
	askers.Wait()
	if len(answers) != 2 || s.conf.Table.Len() != 1 {
		t.Errorf("answers %v, %d names; want one address of each family", answers, s.conf.Table.Len())
	}
	// The first address answers all of them, while the other family may still be
	// asked for.
	for until := time.Now().Add(10 * time.Second); len(up.queries()) < 2 && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	if asked := up.queries(); len(asked) != 2 {
		t.Errorf("upstream was asked %v", asked)
	}
}

func TestFullPool(t *testing.T) {
	up := serve(t, testZone)
	table := table(t, "198.18.0.0/27", "2001:2::/48", nil)
	s := server(t, up, Config{Table: table, Clients: clients("4")})
	first := brief(s, exchange(t, s, query("six.example.", "A")))
	for i := 1; i < table.Cap(); i++ {
		if _, err := table.Issue(fmt.Sprint("n", i), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	q := query("brief.example.", "A")
	q.SetEdns0(1232, false)
	if got := brief(s, exchange(t, s, q)); got != "SERVFAIL; EDE 0" {
		t.Errorf("new name: %s", got)
	}
	if got := brief(s, exchange(t, s, query("six.example.", "A"))); got != first {
		t.Errorf("known name: %s, want %s", got, first)
	}
	if n := s.Counters(); n.PoolFull != 1 || n.Fake != 2 || n.ServFail != 1 {
		t.Errorf("counters: %+v", n)
	}
}
