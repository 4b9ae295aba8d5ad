package dnsfake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// kept is a table with its journal, and what that logged.
type kept struct {
	*Table
	journal *Journal
	log     bytes.Buffer
}

// keep opens the journal at path for a new table of 239 names.
func keep(t testing.TB, path string, now func() time.Time) *kept {
	t.Helper()
	k := &kept{Table: table(t, "198.18.0.0/24", "2001:2::/48", now)}
	var err error
	k.journal, err = OpenJournal(path, k.Table, slog.New(slog.NewTextHandler(&k.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue gives addresses to n names.
func (k *kept) issue(t testing.TB, n int, ttl time.Duration) map[string]Pair {
	t.Helper()
	pairs := make(map[string]Pair)
	for i := range n {
		name := fmt.Sprintf("n%d.example", i)
		pair, err := k.Issue(name, ttl)
		if err != nil {
			t.Fatal(err)
		}
		pairs[name] = pair
	}
	return pairs
}

// kill ends a journal as the end of the process would.
func (k *kept) kill() { k.journal.file.Close() }

// stop ends it in good order.
func (k *kept) stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.journal.Run(ctx); err != nil {
		t.Error(err)
	}
}

// check wants names to have the addresses that they had.
func (k *kept) check(t testing.TB, want map[string]Pair) {
	t.Helper()
	if k.Len() != len(want) {
		t.Errorf("%d names, want %d", k.Len(), len(want))
	}
	for name, pair := range want {
		if got, ok := k.NameOf(pair.IPv6); got != name || !ok {
			t.Errorf("%v stands for %q, want %s", pair, got, name)
		}
		if got, err := k.Issue(name, 0); got != pair || err != nil {
			t.Errorf("%s has %v, %v, want %v", name, got, err, pair)
		}
	}
}

func TestNamesOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "names")
	first := keep(t, path, nil)
	want := first.issue(t, 100, time.Minute)
	if !first.journal.save() {
		t.Fatal(first.log.String())
	}
	first.kill()
	second := keep(t, path, nil)
	second.check(t, want)
	want["more.example"], _ = second.Issue("more.example", time.Minute)
	second.stop(t)
	third := keep(t, path, nil)
	third.check(t, want)
	third.stop(t)
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info, err)
	}
	if log := first.log.String() + second.log.String() + third.log.String(); log != "" {
		t.Errorf("logged: %s", log)
	}
}

// TestRunSaves wants a change in the file without any end.
func TestRunSaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	k := keep(t, path, nil)
	start(t, k.journal.Run)
	want := k.issue(t, 10, time.Minute)
	for deadline := time.Now().Add(10 * time.Second); ; {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if records, rest := parseRecords(data[headerOctets:]); len(records) == len(want) && len(rest) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("names are not saved")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestTornJournal(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "names")
	k := keep(t, path, nil)
	want := k.issue(t, 3, time.Minute)
	k.stop(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	records, _ := parseRecords(whole[headerOctets:])
	last := len(records[len(records)-1].append(nil))
	delete(want, records[len(records)-1].name)
	for cut := 1; cut <= last; cut++ {
		for what, tail := range map[string][]byte{"cut": nil, "zeros": make([]byte, 3*maxRecord)} {
			torn := append(bytes.Clone(whole[:len(whole)-cut]), tail...)
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			k := keep(t, path, nil)
			if got := strings.Count(k.log.String(), "level=WARN"); got != 1 && (cut < last || tail != nil) {
				t.Errorf("%s %d: logged %q", what, cut, k.log.String())
			}
			k.check(t, want)
			k.stop(t)
			again := keep(t, path, nil)
			again.check(t, want)
			again.stop(t)
			if again.log.Len() > 0 {
				t.Errorf("%s %d: not repaired: %s", what, cut, again.log.String())
			}
		}
	}
}

func TestDamagedJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	for what, c := range map[string]struct {
		damage func([]byte) []byte
		names  int
	}{
		"header": {func(b []byte) []byte { b[20] ^= 1; return b }, 0},
		"magic":  {func([]byte) []byte { return []byte("something else") }, 0},
		"record": {func(b []byte) []byte {
			_, rest := parseRecords(b[headerOctets : headerOctets+100]) // some whole ones
			b[headerOctets+100-len(rest)+7] ^= 1
			return append(b, bytes.Repeat([]byte{1}, maxRecord)...)
		}, 4},
	} {
		t.Run(what, func(t *testing.T) {
			os.Remove(path)
			k := keep(t, path, nil)
			k.issue(t, 100, time.Minute)
			k.stop(t)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := c.damage(data)
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			k = keep(t, path, nil)
			if k.Len() != c.names {
				t.Errorf("%d names, want %d", k.Len(), c.names)
			}
			if log := k.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, path+".bad") {
				t.Errorf("logged %q", log)
			}
			if aside, err := os.ReadFile(path + ".bad"); err != nil || !bytes.Equal(aside, damaged) {
				t.Errorf("set aside: %d octets, %v", len(aside), err)
			}
			want := k.issue(t, 50, time.Minute)
			k.stop(t)
			k = keep(t, path, nil)
			k.check(t, want)
			k.stop(t)
		})
	}
}

func TestJournalOfOtherPools(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	k := keep(t, path, nil)
	k.issue(t, 10, time.Minute)
	k.stop(t)
	other := table(t, "198.18.1.0/24", "2001:2::/48", nil)
	journal, err := OpenJournal(path, other, nil)
	if err != nil {
		t.Fatal(err)
	}
	journal.file.Close()
	if other.Len() != 0 || other.hashKey() != k.hashKey() {
		t.Errorf("%d names, secret kept: %v", other.Len(), other.hashKey() == k.hashKey())
	}
}

func TestUnusableJournals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(dir, "taken")
	k := keep(t, taken, nil)
	defer k.kill()
	for path, want := range map[string]error{
		dir:                 syscall.EISDIR,
		file + "/sub/names": syscall.ENOTDIR,
		pipe:                syscall.EINVAL,
		taken:               syscall.EAGAIN,
	} {
		if _, err := OpenJournal(path, table(t, "198.18.0.0/24", "2001:2::/48", nil), nil); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	k.journal.rewrite()
	if _, err := openLocked(taken); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("written anew: %v", err)
	}
}

// TestLeasesOutliveTheProcess fills a table, and finds it full after a restart
// until the leases end by the wall clock.
func TestLeasesOutliveTheProcess(t *testing.T) {
	for what, c := range map[string]struct {
		off  time.Duration // from the stop to the start, by the wall clock
		then time.Duration // until an address is free
	}{
		"at once":                  {0, 10*time.Minute + (renewal+defaultHold/time.Second)*time.Second},
		"during the leases":        {9 * time.Minute, time.Minute + (renewal+defaultHold/time.Second)*time.Second},
		"after them":               {time.Hour, 0},
		"clock an hour back":       {-55 * time.Minute, maxLease * time.Second},
		"clock that forgot itself": {-50 * 365 * 24 * time.Hour, maxLease * time.Second},
	} {
		t.Run(what, func(t *testing.T) {
			clock := &clock{time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)}
			path := filepath.Join(t.TempDir(), "names")
			k := keep(t, path, clock.now)
			k.issue(t, k.Cap(), 10*time.Minute)
			k.stop(t)
			clock.add(c.off)
			k = keep(t, path, clock.now)
			defer k.kill()
			if c.then > 0 {
				clock.add(c.then - 10*time.Second)
				if _, err := k.Issue("new.example", 0); !errors.Is(err, ErrPoolFull) {
					t.Errorf("before the leases end: %v", err)
				}
			}
			clock.add(20 * time.Second)
			if _, err := k.Issue("new.example", 0); err != nil {
				t.Errorf("after: %v", err)
			}
		})
	}
}

// TestIdleOrderOutlivesTheProcess wants the name that was idle for the longest
// time to go first.
func TestIdleOrderOutlivesTheProcess(t *testing.T) {
	clock := newClock()
	path := filepath.Join(t.TempDir(), "names")
	k := keep(t, path, clock.now)
	var order []Pair
	for i := range k.Cap() {
		pair, err := k.Issue(fmt.Sprint("n", i), 0)
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, pair)
		clock.add(2 * time.Second)
	}
	k.stop(t)
	clock.add(time.Hour)
	k = keep(t, path, clock.now)
	defer k.kill()
	for i, want := range order {
		if got, err := k.Issue(fmt.Sprint("m", i), 0); got != want || err != nil {
			t.Fatalf("new name %d got %v, %v, want %v", i, got, err, want)
		}
	}
}

func TestDiskThatTakesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	k := keep(t, path, nil)
	good := k.journal.file
	want := k.issue(t, 10, time.Minute)
	var err error
	if k.journal.file, err = os.Open(path); err != nil { // for reading
		t.Fatal(err)
	}
	for range 2 {
		if k.journal.save() {
			t.Fatal("saved in a file that is read-only")
		}
	}
	k.journal.file.Close()
	if log := k.log.String(); strings.Count(log, "level=WARN") != 1 || strings.Count(log, "\n") != 1 {
		t.Errorf("logged %q", log)
	}
	k.check(t, want)
	k.journal.file = good
	k.stop(t)
	if !strings.Contains(k.log.String(), "saved again") {
		t.Errorf("logged %q", k.log.String())
	}
	k = keep(t, path, nil)
	k.check(t, want)
	k.stop(t)
}

// TestJournalStaysSmall renews promises for hours.
func TestJournalStaysSmall(t *testing.T) {
	clock := newClock()
	path := filepath.Join(t.TempDir(), "names")
	k := keep(t, path, clock.now)
	k.journal.compact = 64 << 10
	var want map[string]Pair
	for range 600 {
		clock.add(10 * time.Second)
		want = k.issue(t, 200, time.Minute)
		if !k.journal.save() || k.journal.size > compactFrom {
			t.Fatalf("%d octets, %s", k.journal.size, k.log.String())
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != k.journal.size || info.Size() > 200*40*10 {
		t.Errorf("%v octets for 200 names, %v, of which it knows %d", info.Size(), err, k.journal.size)
	}
	k.stop(t)
	k = keep(t, path, clock.now)
	k.check(t, want)
	k.stop(t)
}

// TestNamesTendToTheirAddress gives names addresses in another order.
func TestNamesTendToTheirAddress(t *testing.T) {
	one := table(t, "198.18.0.0/20", "2001:2::/48", nil)
	two := table(t, "198.18.0.0/20", "2001:2::/48", nil)
	two.secret = one.secret
	names, same := one.Cap()/2, 0
	for i := range names {
		if _, err := one.Issue(fmt.Sprint("n", i), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	for i := range names {
		name := fmt.Sprint("n", names-1-i)
		was, _ := one.Issue(name, time.Minute)
		if got, err := two.Issue(name, time.Minute); err != nil {
			t.Fatal(err)
		} else if got == was {
			same++
		}
	}
	if same < names/2 {
		t.Errorf("%d names of %d have the same address in both tables", same, names)
	}
	if crowd := table(t, "198.18.0.0/20", "2001:2::/48", nil); crowd.secret == one.secret {
		t.Error("tables share a secret")
	}
}

func FuzzJournal(f *testing.F) {
	pool4, pool6 := netip.MustParsePrefix("198.18.0.0/26"), netip.MustParsePrefix("2001:2::/48")
	header := journalHeader{pool4: pool4, pool6: pool6}.append(nil)
	f.Add(header)
	for _, records := range [][]record{
		{{16, 0, "a.example"}},
		{{16, 1e9, "a.example"}, {17, 1 << 31, "b.example"}, {16, 2e9, "b.example"}, {20, 1, ""}, {2, 1, "c"}, {1 << 31, 0, "d"}},
	} {
		b := bytes.Clone(header)
		for _, r := range records {
			b = r.append(b)
		}
		f.Add(b)
		f.Add(append(b, 1, 2, 3))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		header, ok := parseJournalHeader(data)
		if !ok {
			return
		}
		records, rest := parseRecords(data[headerOctets:])
		if again := header.append(nil); !bytes.Equal(again, data[:headerOctets]) {
			t.Errorf("read %x, wrote %x", data[:headerOctets], again)
		}
		whole := data[headerOctets : len(data)-len(rest)]
		for _, r := range records {
			again := r.append(nil)
			if !bytes.HasPrefix(whole, again) {
				t.Fatalf("read %+v from other octets", r)
			}
			whole = whole[len(again):]
		}
		clock := newClock()
		table := table(t, pool4.String(), pool6.String(), clock.now)
		table.restore(&header.secret, records)
		seen := 0
		for i := range table.size {
			name := table.slots.name(i)
			if name == "" {
				continue
			}
			seen++
			if at, ok := table.names.find(table.slots, name); !ok || at != i {
				t.Errorf("%q is at %d and %d, %v", name, i, at, ok)
			}
		}
		if seen != table.Len() {
			t.Errorf("%d names and %d slots", table.Len(), seen)
		}
		clock.add(2 * maxLease * time.Second)
		for i := range table.Cap() { // no slot is lost
			if _, err := table.Issue(fmt.Sprint("new", i), time.Minute); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkOpenJournal(b *testing.B) {
	path := filepath.Join(b.TempDir(), "names")
	open := func() *Table {
		table := table(b, "198.18.0.0/14", "2001:2::/48", nil)
		journal, err := OpenJournal(path, table, nil)
		if err != nil {
			b.Fatal(err)
		}
		if table.Len() == 0 {
			for i := range 131072 {
				if _, err := table.Issue(fmt.Sprintf("name-number-%d.of.example.com", i), time.Minute); err != nil {
					b.Fatal(err)
				}
			}
			journal.save()
		}
		journal.file.Close()
		return table
	}
	open()
	for b.Loop() {
		if table := open(); table.Len() != 131072 {
			b.Fatal(table.Len())
		}
	}
}
