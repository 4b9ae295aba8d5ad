package appliance

import (
	"strings"
	"testing"
	"time"
)

func TestMetrics(t *testing.T) {
	s := Status{Version: "1.0", Started: time.Unix(1700000000, 0), Names: Names{Mapped: 3, Room: 100}}
	s.Hops = []Hop{{Outlet: "far", Down: true}, {Outlet: "near"}}
	s.Flows.Live = 2
	s.Flows.Joined = map[string]uint64{"B": 7, "A": 1}
	s.Flows.Refused = map[string]uint64{"connection refused": 4}
	s.Flows.Up, s.Flows.Down = 10, 20
	var b strings.Builder
	if err := writeMetrics(&b, s); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(b.String(), "# HELP sixgate_start") // the build differs
	const want = `_time_seconds when the gateway started, Unix time
# TYPE sixgate_start_time_seconds gauge
sixgate_start_time_seconds 1700000000
# HELP sixgate_flows_live flows joined and not ended
# TYPE sixgate_flows_live gauge
sixgate_flows_live 2
# HELP sixgate_flows_total flows ever joined, by type (RFC 3089, section 2)
# TYPE sixgate_flows_total counter
sixgate_flows_total{type="A"} 1
sixgate_flows_total{type="B"} 7
# HELP sixgate_flows_refused_total flows never joined, by reason
# TYPE sixgate_flows_refused_total counter
sixgate_flows_refused_total{reason="connection refused"} 4
# HELP sixgate_bytes_total payload carried
# TYPE sixgate_bytes_total counter
sixgate_bytes_total{direction="down"} 20
sixgate_bytes_total{direction="up"} 10
# HELP sixgate_names_mapped names with a fake address
# TYPE sixgate_names_mapped gauge
sixgate_names_mapped 3
`
	if !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if hops := `sixgate_outlet_down{outlet="far"} 1
sixgate_outlet_down{outlet="near"} 0
`; !strings.Contains(got, hops) {
		t.Errorf("got\n%s\nwithout\n%s", got, hops)
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
