package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixgate/appliance"
)

func TestPrintClients(t *testing.T) {
	now := time.Unix(1e9, 0)
	var b strings.Builder
	err := printClients(&b, []appliance.Client{{
		Addr: netip.MustParseAddr("192.168.77.20"), Seen: now.Add(-3 * time.Second),
		Joined: map[string]uint64{"A": 2, "B": 1}, Live: 1, Failed: 4, Up: 10, Down: 20,
		Names:    []string{"b.example", "a.example"},
		Failures: []appliance.Failure{{What: "tcp cloud.example:443", Why: "connection\x1b[8m\nrefused", Times: 4, Last: now.Add(-time.Minute)}},
	}}, now)
	const want = `192.168.77.20  seen 3s ago; 1 live; ever: 2 A, 1 B; 4 failed
               10 up, 20 down
               reached b.example, a.example
               failed tcp cloud.example:443, 4 times, last 1m0s ago: connection�[8m�refused
`
	if got := b.String(); err != nil || got != want {
		t.Errorf("got\n%s%v, want\n%s", got, err, want)
	}
}
