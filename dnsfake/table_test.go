package dnsfake

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// clock is a clock that stands still until it is moved.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func (c *clock) add(d time.Duration) { c.t = c.t.Add(d) }

func newClock() *clock { return &clock{time.Unix(1e9, 0)} }

func table(t testing.TB, pool4, pool6 string, now func() time.Time) *Table {
	t.Helper()
	table, err := NewTable(TableConfig{IPv4: netip.MustParsePrefix(pool4), IPv6: netip.MustParsePrefix(pool6), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestNewTable(t *testing.T) {
	for _, c := range []struct {
		pool4, pool6 string
		want         int // 0: an error
	}{
		{"198.18.0.0/15", "2001:2::/48", 131072 - 17},
		{"198.18.0.0/15", "2001:2::/120", 256 - 17},
		{"198.18.0.0/24", "2001:2::/48", 256 - 17},
		{"10.0.0.0/8", "2001:2::/48", maxNames},
		{"198.18.0.0/27", "2001:2::/48", 15},
		{"198.18.0.0/28", "2001:2::/48", 0},
		{"2001:2::/48", "2001:2::/48", 0},
		{"198.18.0.0/15", "198.18.0.0/15", 0},
		{"198.18.0.0/15", "", 0},
	} {
		var pool6 netip.Prefix
		if c.pool6 != "" {
			pool6 = netip.MustParsePrefix(c.pool6)
		}
		table, err := NewTable(TableConfig{IPv4: netip.MustParsePrefix(c.pool4), IPv6: pool6})
		switch {
		case c.want == 0 && err == nil:
			t.Errorf("%s %s: no error", c.pool4, c.pool6)
		case c.want != 0 && (err != nil || table.Cap() != c.want):
			t.Errorf("%s %s: %v, %v, want room for %d", c.pool4, c.pool6, table, err, c.want)
		}
	}
}

func TestTableGivesOneIndexInBothFamilies(t *testing.T) {
	table := table(t, "198.18.0.0/24", "2001:2::/48", nil)
	for i := range table.Cap() {
		name := fmt.Sprintf("n%d.example", i)
		pair, err := table.Issue(name, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		index := pair.IPv4.As4()[3]
		if index < firstIndex || index == 255 || pair.IPv6.As16() != [16]byte{0x20, 1, 0, 2, 15: index} {
			t.Errorf("%s got %v", name, pair)
		}
		if again, err := table.Issue("N"+name[1:]+".", time.Minute); again != pair || err != nil {
			t.Errorf("%s got %v, then %v, %v", name, pair, again, err)
		}
		for _, ip := range []netip.Addr{pair.IPv4, pair.IPv6, netip.AddrFrom16(pair.IPv4.As16())} {
			if got, ok := table.NameOf(ip); got != name || !ok {
				t.Errorf("%v stands for %q, want %s", ip, got, name)
			}
		}
	}
	if table.Len() != table.Cap() {
		t.Errorf("%d names in a table that gave %d", table.Len(), table.Cap())
	}
	if _, err := table.Issue("more.example", time.Minute); !errors.Is(err, ErrPoolFull) {
		t.Errorf("full table: %v", err)
	}
}

func TestHoldOfStrangers(t *testing.T) {
	table := table(t, "198.18.0.0/24", "2001:2::/48", nil)
	if _, err := table.Issue("a.example", time.Minute); err != nil {
		t.Fatal(err)
	}
	for ip, want := range map[string]error{
		"198.18.0.0":    ErrUnknown,
		"198.18.0.15":   ErrUnknown,
		"198.18.0.255":  ErrUnknown,
		"2001:2::":      ErrUnknown,
		"2001:2::1:10":  ErrUnknown,
		"2001:2:0:1::":  ErrUnknown,
		"2001:2::ffff":  ErrUnknown,
		"198.18.1.16":   ErrOutside,
		"2001:2:1::10":  ErrOutside,
		"192.0.2.1":     ErrOutside,
		"::198.18.0.16": ErrOutside,
	} {
		if _, _, err := table.Hold(netip.MustParseAddr(ip)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", ip, err, want)
		}
	}
	if !errors.Is(ErrUnknown, syscall.ECONNREFUSED) {
		t.Error("an unknown fake address is not refused")
	}
}

// TestReuse has a pool for 15 names.
func TestReuse(t *testing.T) {
	clock := newClock()
	table := table(t, "198.18.0.0/27", "2001:2::/48", clock.now)
	pairs := make(map[string]Pair)
	issue := func(name string, ttl time.Duration) error {
		pair, err := table.Issue(name, ttl)
		if err == nil {
			pairs[name] = pair
		}
		return err
	}
	for i := range table.Cap() {
		if err := issue(fmt.Sprint("n", i), time.Minute); err != nil {
			t.Fatal(err)
		}
		clock.add(time.Second)
	}
	_, release, err := table.Hold(pairs["n0"].IPv4)
	if err != nil {
		t.Fatal(err)
	}
	if err := issue("n1", 10*time.Minute); err != nil { // lives longer now
		t.Fatal(err)
	}
	if err := issue("early", time.Minute); !errors.Is(err, ErrPoolFull) {
		t.Fatalf("before any promise ended: %v", err)
	}
	clock.add(2 * time.Minute)
	for _, c := range [][2]string{{"x", "n2"}, {"y", "n3"}} { // n0 is held, n1 leased
		if err := issue(c[0], time.Minute); err != nil || pairs[c[0]] != pairs[c[1]] {
			t.Errorf("%s got %v, %v, want that of %s, idle for the longest time", c[0], pairs[c[0]], err, c[1])
		}
	}
	release()
	release() // counts once
	for i := range 11 {
		if err := issue(fmt.Sprint("z", i), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := issue("full", time.Hour); !errors.Is(err, ErrPoolFull) {
		t.Errorf("n0 released just now, n1 leased, rest new: %v", err)
	}
	clock.add(linger + 2*time.Second)
	for _, old := range []string{"x", "y", "n0"} {
		if err := issue("then-"+old, time.Hour); err != nil || pairs["then-"+old] != pairs[old] {
			t.Errorf("got %v, %v, want that of %s", pairs["then-"+old], err, old)
		}
	}
}

// TestPromisesAreKept drives a table at random, against a plain record of what
// was promised for each address.
func TestPromisesAreKept(t *testing.T) {
	for seed := range uint64(10) {
		promises(t, rand.New(rand.NewPCG(seed, 0)), 3000)
	}
}

func promises(t *testing.T, random *rand.Rand, steps int) {
	clock := newClock()
	table := table(t, "198.18.0.0/26", "2001:2::/48", clock.now)
	type promise struct {
		name  string
		until time.Time
		holds []func()
	}
	made := make(map[Pair]*promise)
	free := func(p *promise) bool { return len(p.holds) == 0 && p.until.Before(clock.now()) }
	for range steps {
		clock.add(time.Duration(random.IntN(3000)) * time.Millisecond)
		name := fmt.Sprint("n", random.IntN(120))
		ttl := time.Duration(random.IntN(60)) * time.Second
		pair, err := table.Issue(name, ttl)
		if err != nil {
			for _, p := range made {
				if len(p.holds) == 0 && p.until.Add(3*time.Second).Before(clock.now()) {
					t.Fatalf("full, but %s is idle", p.name)
				}
			}
		} else {
			p, ok := made[pair]
			if ok && p.name != name {
				if !free(p) {
					t.Fatalf("%v given from %s to %s before %v", pair, p.name, name, p.until)
				}
				for _, other := range made {
					if len(other.holds) == 0 && other.until.Add(3*time.Second).Before(p.until) {
						t.Fatalf("%s lost its address before %s, which was idle longer", p.name, other.name)
					}
				}
			}
			if !ok || p.name != name {
				p = &promise{name: name}
				made[pair] = p
			}
			if until := clock.now().Add(ttl + defaultHold); until.After(p.until) {
				p.until = until
			}
		}
		for pair, p := range made {
			if got, ok := table.NameOf(pair.IPv6); got != p.name || !ok {
				t.Fatalf("%v stands for %q, want %s", pair, got, p.name)
			}
			switch random.IntN(20) {
			case 0:
				_, release, err := table.Hold(pair.IPv4)
				if err != nil {
					t.Fatal(err)
				}
				p.holds = append(p.holds, release)
			case 1, 2:
				if n := len(p.holds); n > 0 {
					p.holds[n-1]()
					p.holds = p.holds[:n-1]
					if until := clock.now().Add(linger); until.After(p.until) {
						p.until = until
					}
				}
			}
		}
	}
	if table.Len() > table.Cap() {
		t.Errorf("%d names in a table for %d", table.Len(), table.Cap())
	}
}

func TestTableIsSafeForConcurrentUse(t *testing.T) {
	table := table(t, "198.18.0.0/24", "2001:2::/48", nil)
	var users sync.WaitGroup
	for i := range 8 {
		users.Go(func() {
			for j := range 1000 {
				pair, err := table.Issue(fmt.Sprint("n", (i+j)%200), time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				name, release, err := table.Hold(pair.IPv4)
				if got, _ := table.NameOf(pair.IPv6); err != nil || got != name {
					t.Errorf("%v stands for %q and %q, %v", pair, name, got, err)
					return
				}
				release()
			}
		})
	}
	users.Wait()
}

func TestLookupsDoNotAllocate(t *testing.T) {
	table := table(t, "198.18.0.0/24", "2001:2::/48", nil)
	pair, err := table.Issue("a.example", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		table.NameOf(pair.IPv6)
		table.Issue("a.example", time.Minute)
	}); n > 0 {
		t.Errorf("%v allocations for a look-up each way", n)
	}
}

func BenchmarkIssueNew(b *testing.B) {
	clock := newClock()
	table := table(b, "198.18.0.0/15", "2001:2::/48", clock.now)
	for i := range b.N {
		clock.add(time.Millisecond)
		if _, err := table.Issue(fmt.Sprint("n", i), time.Second); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRoomIsTakenAsNeeded has strangers look for names all over the pool.
func TestRoomIsTakenAsNeeded(t *testing.T) {
	table := table(t, "198.18.0.0/15", "2001:2::/48", nil)
	taken := func() (n int) {
		for _, chunk := range table.slots {
			if chunk != nil {
				n++
			}
		}
		return n
	}
	for ip := netip.MustParseAddr("198.18.0.0"); table.Contains(ip); ip = ip.Next() {
		if _, ok := table.NameOf(ip); ok {
			t.Fatalf("%s stands for a name", ip)
		}
	}
	if n := taken(); n != 0 || len(slices.Collect(table.Mappings())) != 0 {
		t.Errorf("room for %d slots without names", n*chunkSlots)
	}
	for i := range table.Cap() {
		if i == 10 && taken() > 10 {
			t.Errorf("room for %d slots, for 10 names", taken()*chunkSlots)
		}
		if _, err := table.Issue(fmt.Sprintf("n%d", i), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(slices.Collect(table.Mappings())); n != table.Cap() || table.Len() != n {
		t.Errorf("%d of %d slots taken by %d names", n, table.Cap(), table.Len())
	}
	if _, err := table.Issue("one.more", time.Hour); !errors.Is(err, ErrPoolFull) {
		t.Errorf("one name more: %v", err)
	}
}
