package appliance

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
	"sixgate/socks"
)

// TestExplain has the situations that a support person meets, with what they are
// told in testdata/explain.
func TestExplain(t *testing.T) {
	w := newWorld(t)
	deaf := listenUDP(t, netip.MustParseAddrPort("127.0.0.1:0"))
	deaf.Close() // refuses
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	var told strings.Builder
	for _, c := range []struct {
		situation, target string
		change            func(*config.Config)
		before            func(*box)
	}{
		{"all is well", "v6only.test", nil, nil},
		{"a name that does not exist", "nowhere.test", nil, nil},
		{"a name without addresses", "empty.test", nil, nil},
		{"resolvers that do not answer", "v4only.test", func(c *config.Config) {
			c.DNS.Upstreams = []config.Upstream{{Network: "udp", Addr: addrPort(deaf.LocalAddr())}}
		}, nil},
		{"an address from long ago", "198.18.77.77", nil, nil},
		{"an address of this machine", "127.0.0.1", nil, nil},
		{"a real address", "127.0.0.2", nil, nil},
		{"a rule that rejects", "v4only.test", func(c *config.Config) {
			c.Rules = []config.Rule{{Names: []string{"other.test"}, Outlet: "direct"}, {Names: []string{"*.test"}, Outlet: "reject"}}
		}, nil},
		{"a chain whose server is gone", "v4only.test", func(c *config.Config) {
			c.Outlets = []config.Outlet{{Name: "far", Type: config.OutletSOCKS5, Server: socks.AddrFromAddrPort(addrPort(gone.Addr()))}}
			c.Rules = []config.Rule{{Names: []string{"*.test"}, Outlet: "far"}}
		}, func(b *box) {
			if _, err := b.dialTUN(t.Context(), "tcp", false, "v4only.test", 80); err == nil {
				t.Error("a dead server serves")
			}
		}},
		{"a name that is bypassed", "v4only.test", func(c *config.Config) { c.DNS.Bypass = []string{"*.test"} }, nil},
		{"a name that leads to this machine", "v4only.test", func(c *config.Config) { c.Direct.Allow = nil }, nil},
		{"a server that refuses", "v4only.test", nil, func(b *box) {
			if _, err := b.dialTUN(t.Context(), "tcp", false, "v4only.test", addrPort(gone.Addr()).Port()); err == nil {
				t.Error("a closed port is open")
			}
		}},
		{"a special name", "printer.local", nil, nil},
	} {
		b := newBox(t, w, c.change)
		if c.before != nil {
			c.before(b)
		}
		a := &Appliance{parts: b.parts}
		b.parts.machine.Store(&machine{ipv6: true, uplink: dnsfake.Families{IPv4: true}, own: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
		client := netip.MustParseAddr("192.0.2.2")
		if c.before != nil {
			client = firstToFail(t, a)
		}
		before := b.parts.dns.Counters()
		e, err := a.Explain(t.Context(), c.target, client)
		if err != nil {
			t.Fatalf("%s: %v", c.situation, err)
		}
		if after := b.parts.dns.Counters(); after != before {
			t.Errorf("%s: counted as a client's: %+v, before %+v", c.situation, after, before)
		}
		fmt.Fprintf(&told, "# %s: %s\n", c.situation, c.target)
		for i, step := range e.Steps {
			fmt.Fprintf(&told, "%d. %s\n", i+1, step)
		}
	}
	// What is another each time.
	got := told.String()
	for _, r := range [][2]string{
		{`198\.(18|19)\.\d+\.\d+`, "198.18.X.X"}, {`2001:2::[0-9a-f:]+`, "2001:2::X"},
		{`127\.0\.0\.1:\d+`, "127.0.0.1:P"}, {`test:\d+`, "test:P"}, {`\d\S* ago`, "T ago"}, {`\S+: read udp \S+: `, ""},
		{`The client [0-9a-f.:]+`, "The client X"},
		{`(last asked): .*`, "$1: WHY"},
	} {
		got = regexp.MustCompile(r[0]).ReplaceAllString(got, r[1])
	}
	want, err := os.ReadFile("testdata/explain")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestExplainNothing asks for what is no name.
func TestExplainNothing(t *testing.T) {
	a := &Appliance{parts: newBox(t, newWorld(t), nil).parts}
	for target, want := range map[string]string{
		"*.example.com":  "such as www.example.com",
		"bücher.example": "other scripts as xn--",
		"":               "name",
		"a b":            "name",
	} {
		if _, err := a.Explain(t.Context(), target, far4); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something about %q", target, err, want)
		}
	}
}

// TestDrillQuotes wants what docs/operations.md has the operator look for to be
// what explain says.
func TestDrillQuotes(t *testing.T) {
	guide, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	says, err := os.ReadFile("testdata/explain")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(guide), "| it says | so |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")
	if len(rows) < 10 {
		t.Errorf("the guide has %d rows", len(rows))
	}
	for _, row := range rows {
		quote, _, _ := strings.Cut(strings.Split(row, "|")[1], "…")
		if quote = strings.TrimSpace(quote); !strings.Contains(string(says), quote) {
			t.Errorf("explain never says %q", quote)
		}
	}
}

// firstToFail waits for a client for whom something has failed.
func firstToFail(t *testing.T, a *Appliance) netip.Addr {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, c := range a.Clients() {
			if len(c.Failures) > 0 {
				return c.Addr
			}
		}
	}
	t.Fatal("nothing has failed")
	return netip.Addr{}
}
