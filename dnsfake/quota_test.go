package dnsfake

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestBucket(t *testing.T) {
	clock := newClock()
	var b bucket
	take := func(n int) (got int) {
		for range n {
			if b.has(clock.now(), 10, 20) {
				b.used++
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
	first := netip.MustParseAddr("192.0.2.0")
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
		Table: table(t, "198.18.0.0/15", "2001:2::/48", clock.now), Policy: policy(t, nil, nil, 2),
		Way: func(_ netip.Addr, name string) Way {
			if strings.HasPrefix(name, "n") {
				return ToChain
			}
			return ToHost
		},
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

// TestShares has one client hold all that it may.
func TestShares(t *testing.T) {
	s := newShare(100, 10)
	take := func(client string, n int) (got int) {
		for range n {
			if s.take(netip.MustParseAddr(client)) {
				got++
			}
		}
		return got
	}
	for _, c := range []struct {
		client    string
		ask, want int
	}{
		{"192.0.2.1", 20, 10},
		{"192.0.2.2", 5, 5},        // another
		{"2001:db8::1", 20, 10},    // and one that goes on
		{"2001:db8::2", 20, 10},    // to take one address
		{"2001:db8::3:4", 20, 10},  // after the other
		{"2001:db8::ffff", 20, 10}, // of its network
		{"2001:db8::1:1", 20, 0},
		{"2001:db8:0:1::1", 20, 10},
		{"192.0.2.3", 20, 10},
		{"192.0.2.4", 20, 10},
		{"192.0.2.5", 20, 10},
		{"192.0.2.6", 20, 5}, // all there is
	} {
		if got := take(c.client, c.ask); got != c.want {
			t.Errorf("%s holds %d of %d, want %d", c.client, got, c.ask, c.want)
		}
	}
	s.give(netip.MustParseAddr("2001:db8::2"))
	if take("192.0.2.1", 1) != 0 || take("2001:db8::1:1", 1) != 1 {
		t.Error("what was given back is not there for others, or is for who has enough")
	}
	for client, n := range map[string]int{
		"192.0.2.1": 10, "192.0.2.2": 5, "2001:db8::1": 10, "2001:db8::2": 9, "2001:db8::3:4": 10, "2001:db8::ffff": 10,
		"2001:db8::1:1": 1, "2001:db8:0:1::1": 10, "192.0.2.3": 10, "192.0.2.4": 10, "192.0.2.5": 10, "192.0.2.6": 5,
	} {
		for range n {
			s.give(netip.MustParseAddr(client))
		}
	}
	if s.sum != 0 || len(s.held) != 0 {
		t.Errorf("when all is given back there are %d, %v", s.sum, s.held)
	}
}

// TestAddressesOfOneNetwork has a client take a new address for each name.
func TestAddressesOfOneNetwork(t *testing.T) {
	q, now := newQuotas(), time.Unix(1e9, 0)
	got := 0
	for addr, i := netip.MustParseAddr("2001:db8::"), 0; i < 1000; addr, i = addr.Next(), i+1 {
		if q.name(addr, now, 2) {
			got++
		}
	}
	if want := 2 * namesBurst * networkShare; got != want {
		t.Errorf("%d names, want %d", got, want)
	}
	one := netip.MustParseAddr("2001:db8::ffff")
	if q.name(one, now, 2) || !q.name(netip.MustParseAddr("2001:db8:0:1::"), now, 2) {
		t.Error("one network's many are not bounded, or hinder another")
	}
	if q.refund(one); !q.name(one, now, 2) || q.name(one, now, 2) {
		t.Error("what was given back is not there, or more than that")
	}
}

// silent is an upstream that tells who asks and answers nobody.
type silent struct{ asked chan struct{} }

func (s silent) Exchange(ctx context.Context, _ *dns.Msg) (*dns.Msg, error) {
	select {
	case s.asked <- struct{}{}:
		<-ctx.Done()
	case <-ctx.Done(): // of a test that counts no more
	}
	return nil, ctx.Err()
}

// TestNamesInFlight asks for as many names at once as a client may have new, none
// of which is looked up by the time that it asks for one more.
func TestNamesInFlight(t *testing.T) {
	up := silent{make(chan struct{})}
	s, err := New(Config{
		Table: table(t, "198.18.0.0/15", "2001:2::/48", nil), Resolver: up, Policy: policy(t, nil, nil, 1),
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context, name string) []byte {
		wire, err := query(name, "A").Pack()
		if err != nil {
			t.Error(err)
		}
		return s.Reply(ctx, wire, testClient, false)
	}
	begin := func(ctx context.Context, waiting *sync.WaitGroup, name string) {
		waiting.Go(func() { ask(ctx, name) })
		for range 2 { // families
			select {
			case <-up.asked:
			case <-time.After(10 * time.Second):
				t.Fatalf("%s is not looked up", name)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waiting sync.WaitGroup
	for i := range namesBurst {
		begin(ctx, &waiting, fmt.Sprintf("n%d.example.", i))
	}
	short, end := context.WithTimeout(ctx, 10*time.Second)
	defer end()
	if got := rcode(t, ask(short, "one.more.example.")); got != "SERVFAIL" || s.Counters().TooManyNames != 1 {
		t.Errorf("one more gets %s: %+v", got, s.Counters())
	}
	cancel()
	waiting.Wait()
	ctx, cancel = context.WithCancel(t.Context())
	begin(ctx, &waiting, "another.example.") // those that failed took nothing
	cancel()
	waiting.Wait()
}

// TestWaitingOfFew has the queries of several clients wait where only few may.
func TestWaitingOfFew(t *testing.T) {
	const few = 8
	up := silent{make(chan struct{})}
	s, err := New(Config{Table: table(t, "198.18.0.0/15", "2001:2::/48", nil), Resolver: up, MaxWaiting: few})
	if err != nil {
		t.Fatal(err)
	}
	reply := func(ctx context.Context, client, i int) []byte {
		wire, err := query(fmt.Sprintf("n%d-%d.example.", client, i), "TXT").Pack()
		if err != nil {
			t.Error(err)
		}
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 77, byte(client)}), 1000)
		return s.Reply(ctx, wire, from, false)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	dropped := func() uint64 { return s.Counters().Dropped }
	for client := range 4 {
		for i := range few / 4 {
			waiting.Go(func() { reply(ctx, client, i) })
			<-up.asked
		}
		if reply(ctx, client, few); dropped() != uint64(client+1) {
			t.Fatalf("client %d has more than its share: %d dropped", client, dropped())
		}
	}
	if reply(ctx, 4, 0); dropped() != 5 {
		t.Errorf("more than %d queries wait: %d dropped", few, dropped())
	}
}

// TestWaitingIsShared has as many of a client's queries as may wait for
// upstream, over TCP.
func TestWaitingIsShared(t *testing.T) {
	up := silent{make(chan struct{})}
	s, err := New(Config{Table: table(t, "198.18.0.0/15", "2001:2::/48", nil), Resolver: up})
	if err != nil {
		t.Fatal(err)
	}
	packed := func(name, qtype string) []byte {
		wire, err := query(name, qtype).Pack()
		if err != nil {
			t.Fatal(err)
		}
		return wire
	}
	var stream []byte
	for i := range clientWaiting + 2 {
		wire := packed(fmt.Sprintf("n%d.example.", i), "TXT")
		stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(wire))), wire...)
	}
	if _, err := dial(t, s).Write(stream); err != nil {
		t.Fatal(err)
	}
	for range clientWaiting + 1 { // and the one that the connection itself waits for
		<-up.asked
	}
	loopback := netip.MustParseAddrPort("127.0.0.1:53")
	if reply := s.Reply(t.Context(), packed("one.more.example.", "TXT"), loopback, false); reply != nil || s.Counters().Dropped != 1 {
		t.Errorf("one more is not dropped: %x", reply)
	}
	if got := rcode(t, s.Reply(t.Context(), packed("localhost.", "A"), testClient, false)); got != "NOERROR" {
		t.Errorf("another client gets %s", got)
	}
}
