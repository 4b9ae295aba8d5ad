package dnsfake

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	clock := newClock()
	var b bucket
	take := func(n int) (got int) {
		for range n {
			if b.take(clock.now(), 10, 20) {
				got++
			}
		}
		return got
	}
	for i, c := range []struct {
		after     time.Duration
		ask, want int
	}{
		{0, 30, 20}, {0, 1, 0}, {100 * time.Millisecond, 5, 1}, {time.Second, 30, 10}, {time.Hour, 30, 20},
	} {
		clock.add(c.after)
		if got := take(c.ask); got != c.want {
			t.Errorf("%d: got %d of %d, want %d", i, got, c.ask, c.want)
		}
	}
}

func TestQuotasForget(t *testing.T) {
	q, now := newQuotas(), time.Unix(1e9, 0)
	first := netip.MustParseAddr("2001:db8::")
	for addr, i := first, 0; i < 2*maxClients; addr, i = addr.Next(), i+1 {
		if !q.query(addr, now) || !q.name(addr, now, 1) {
			t.Fatalf("%v may not ask", addr)
		}
	}
	if len(q.known) != maxClients || q.recent.Len() != maxClients {
		t.Errorf("%d and %d clients are known", len(q.known), q.recent.Len())
	}
}

// TestFloodOfNames has one client ask for names without end, as a zone with a
// wildcard has them.
func TestFloodOfNames(t *testing.T) {
	clock := newClock()
	up := serve(t, testZone)
	s := server(t, up, Config{
		Table: table(t, "198.18.0.0/15", "2001:2::/48", clock.now), NewNames: 2,
		Delegated: func(_ netip.Addr, name string) bool { return strings.HasPrefix(name, "n") },
	})
	ask := func(client, name string) string {
		wire, err := query(name, "A").Pack()
		if err != nil {
			t.Fatal(err)
		}
		return rcode(t, s.Reply(t.Context(), wire, netip.AddrPortFrom(netip.MustParseAddr(client), 1), false))
	}
	got := make(map[string]int)
	for i := range 100 {
		got[ask("192.0.2.1", fmt.Sprintf("n%d.example.", i))]++
	}
	if got["NOERROR"] != 2*namesBurst || got["SERVFAIL"] != 100-2*namesBurst || s.Counters().TooManyNames != 100-2*namesBurst {
		t.Errorf("the first client got %v, %+v", got, s.Counters())
	}
	for _, c := range [][3]string{
		{"192.0.2.1", "n0.example.", "NOERROR"}, // it has that
		{"192.0.2.1", "n99.example.", "SERVFAIL"},
		{"192.0.2.2", "n99.example.", "NOERROR"},
		{"192.0.2.1", "n99.example.", "NOERROR"}, // another brought it
	} {
		if got := ask(c[0], c[1]); got != c[2] {
			t.Errorf("%v: got %s", c, got)
		}
	}
	for _, c := range [][2]string{{"192.0.2.1", "SERVFAIL"}, {"192.0.2.2", "NXDOMAIN"}} {
		client, want := c[0], c[1]
		before := len(up.queries())
		got := ask(client, "absent.example.")
		if asked := len(up.queries()) > before; got != want || asked != (want == "NXDOMAIN") {
			t.Errorf("%s got %s for a name to look up, and upstream was asked: %v", client, got, asked)
		}
	}
	clock.add(time.Second)
	if got := ask("192.0.2.1", "n98.example."); got != "NOERROR" {
		t.Errorf("a second later: %s", got)
	}
}

// TestFloodOfQueries has one client ask for the same without end.
func TestFloodOfQueries(t *testing.T) {
	clock := newClock()
	s := server(t, serve(t, testZone), Config{Table: table(t, "198.18.0.0/15", "2001:2::/48", clock.now)})
	wire, err := query("six.example.", "A").Pack()
	if err != nil {
		t.Fatal(err)
	}
	for client, want := range map[string]int{"192.0.2.1": clientQueries, "192.0.2.2": clientQueries, "127.0.0.1": clientQueries + 100} {
		got := 0
		for range clientQueries + 100 {
			if s.Reply(t.Context(), wire, netip.AddrPortFrom(netip.MustParseAddr(client), 1), false) != nil {
				got++
			}
		}
		if got != want {
			t.Errorf("%s got %d replies, want %d", client, got, want)
		}
	}
	if got := s.Counters(); got.Limited != 200 || got.Dropped != 200 {
		t.Errorf("%+v", got)
	}
}

// TestFloodLeavesOthersAlone has one client fill all that it may of the
// datagrams that wait for upstream.
func TestFloodLeavesOthersAlone(t *testing.T) {
	q := newQuotas()
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	var leave []func()
	for range clientDatagrams {
		done, ok := q.wait(one)
		if !ok {
			t.Fatal("a client has too few")
		}
		leave = append(leave, done)
	}
	if _, ok := q.wait(one); ok {
		t.Error("one client's many are not bounded")
	}
	if _, ok := q.wait(two); !ok {
		t.Error("one client's many hinder another")
	}
	leave[0]()
	if _, ok := q.wait(one); !ok {
		t.Error("a datagram that was answered still counts")
	}
}
