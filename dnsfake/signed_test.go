package dnsfake

import (
	"context"
	"crypto"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const signedZone = `
	example. 300 SOA ns.example. admin.example. 1 7200 3600 86400 60
	dual.example. 60 A 192.0.2.1
	dual.example. 60 AAAA 2001:db8::1
	four.example. 60 A 192.0.2.4
	six.example. 60 AAAA 2001:db8::6
	mail.example. 60 MX 10 dual.example.
	text.example. 60 TXT "a text"
	many.example. 60 AAAA 2001:db8::7
	many.example. 60 AAAA 2001:db8::8`

// sign adds DNSSEC to the answers of up: the zone's key, which is returned, and
// a signature to each set of records.
func sign(t *testing.T, up *script) *dns.DNSKEY {
	t.Helper()
	key := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: "example.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300},
		Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	up.records["example."] = append(up.records["example."], key)
	for name, records := range up.records {
		sets := make(map[uint16][]dns.RR)
		for _, rr := range records {
			sets[rr.Header().Rrtype] = append(sets[rr.Header().Rrtype], rr)
		}
		for qtype, set := range sets {
			sig := &dns.RRSIG{
				KeyTag: key.KeyTag(), SignerName: "example.", Algorithm: key.Algorithm,
				Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(time.Hour).Unix()),
			}
			if err := sig.Sign(private.(crypto.Signer), set); err != nil {
				t.Fatal(err)
			}
			up.on(name+" "+dns.Type(qtype).String(), func(m *dns.Msg) bool {
				m.Answer = append(append(m.Answer, set...), sig)
				return true
			})
		}
	}
	return key
}

// TestSignedData has another's validator ask for signed names. What is in the
// zone holds, for all who check for themselves, and for who gets it as it is
// without asking so. What is made here passes for no data of the zone.
func TestSignedData(t *testing.T) {
	delv, err := exec.LookPath("delv")
	if err != nil {
		t.Skip("delv is not installed")
	}
	up := serve(t, signedZone)
	key := sign(t, up)
	anchor := filepath.Join(t.TempDir(), "anchor")
	text := fmt.Sprintf("trust-anchors { example. static-key %d %d %d \"%s\"; };\n", key.Flags, key.Protocol, key.Algorithm, key.PublicKey)
	if err := os.WriteFile(anchor, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, families := range []string{"4", "6", "46"} {
		s := server(t, up, Config{Clients: clients(families)})
		pc, ln := listen(t)
		start(t, func(ctx context.Context) error { return s.ServePacket(ctx, pc) })
		start(t, func(ctx context.Context) error { return s.ServeListener(ctx, ln) })
		port := strconv.Itoa(int(addrPort(pc.LocalAddr()).Port()))
		valid := func(asked, flag string) (bool, string) {
			name, qtype, _ := strings.Cut(asked, " ")
			got, err := exec.CommandContext(t.Context(), delv, "@127.0.0.1", "-p", port, "-a", anchor, "+root=example", flag, name, qtype).CombinedOutput()
			if err != nil {
				t.Error(err)
			}
			return strings.Contains(string(got), "fully validated"), string(got)
		}
		for _, tt := range []struct{ asked, real, data string }{ // real: the families of clients that get it as it is
			{"dual.example A", "4 46", "192.0.2.1"},
			{"dual.example AAAA", "6 46", "2001:db8::1"},
			{"four.example A", "4 46", "192.0.2.4"},
			{"six.example AAAA", "6 46", "2001:db8::6"},
			{"mail.example MX", "4 6 46", "10 dual.example."},
			{"text.example TXT", "4 6 46", `"a text"`},
		} {
			if ok, got := valid(tt.asked, "+cdflag"); !ok || !strings.Contains(got, tt.data) {
				t.Errorf("clients of %s: %s:\n%s", families, tt.asked, got)
			}
			want := slices.Contains(strings.Fields(tt.real), families)
			if ok, got := valid(tt.asked, "+nocdflag"); ok != want || want && !strings.Contains(got, tt.data) {
				t.Errorf("clients of %s: %s, without CD: valid %v, want %v:\n%s", families, tt.asked, ok, want, got)
			}
		}
		for _, asked := range []string{"six.example A", "four.example AAAA"} { // fake, or made here that there are none
			if ok, got := valid(asked, "+nocdflag"); ok {
				t.Errorf("clients of %s: %s passes for the zone's:\n%s", families, asked, got)
			}
		}
	}
}
