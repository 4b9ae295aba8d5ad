package appliance

import (
	"os"
	"strings"
	"testing"
	"time"

	"sixgate/appliance/sight"
)

func TestMetrics(t *testing.T) {
	at := time.Unix(1700000000, 0)
	s := Status{Version: "1.0", Started: at, Loaded: at.Add(time.Minute), Names: Names{Mapped: 3, Room: 100}}
	s.Hops = []Hop{{Outlet: "far", Down: true}, {Outlet: "near"}}
	s.Resolvers = []Resolver{{Server: "udp://192.0.2.53:53", Forged: 6}}
	s.Flows.Kinds = []FlowKind{{"tcp", "B", "direct", 2, 7}, {"udp", "A", "far", 0, 1}}
	s.Flows.Refused = map[string]uint64{"connection refused": 4}
	s.Flows.Up, s.Flows.Down = 10, 20
	s.Dials = []DialCount{{"direct", "connected", 8}, {"direct", "connection refused", 4}}
	s.Connects = sight.Distribution{Buckets: []sight.Bucket{{AtMost: 0.001, Count: 1}, {AtMost: 10, Count: 2}}, Count: 3, Sum: 60.5}
	s.DNS = map[string]uint64{"fake": 5}
	s.Drops = map[string]uint64{"flows_over_limit": 1}
	s.Advertised = []Advertised{{Interface: "lan6", Sent: 3, Solicited: 4, Contradicted: 1}}
	s.Files, s.Held = Files{12, 1024}, Held{Goroutines: 40, Endpoints: 5}
	var b strings.Builder
	if err := writeMetrics(&b, s); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(b.String(), "# HELP sixgate_start") // the build differs
	want, err := os.ReadFile("testdata/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLabel(t *testing.T) {
	const evil = "a\"} 1\nsixgate_fake{b=\"\\\t\u202e"
	if got, want := label("outlet", evil), `outlet="a\"} 1\nsixgate_fake{b=\"\\`+"\t\u202e\""; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFields(t *testing.T) {
	got := fields(struct {
		Fake, NXDomain, TCPOverLimit, UDPFlows, DroppedNotIP uint64
		Other                                                string
	}{1, 2, 3, 4, 5, ""})
	for name, want := range map[string]uint64{"fake": 1, "nx_domain": 2, "tcp_over_limit": 3, "udp_flows": 4, "dropped_not_ip": 5} {
		if got[name] != want {
			t.Errorf("%s is %d, want %d, of %v", name, got[name], want, got)
		}
	}
	if len(got) != 5 {
		t.Errorf("got %v", got)
	}
}
