package dnsfake

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// step sets the clock, as an operator or NTP does, and leaves alone the one that
// only goes forward. c.t must have come from time.Now, which reads both.
func (c *clock) step(d time.Duration) {
	wall := (*uint64)(unsafe.Pointer(&c.t)) // seconds from bit 30 on
	*wall += uint64(d/time.Second) << 30
}

// TestClockStep sets the clock by a day. No promise ends earlier for it, and none
// later, nor after a restart.
func TestClockStep(t *testing.T) {
	for _, day := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(day.String(), func(t *testing.T) {
			clock := &clock{time.Now()}
			began := clock.t
			path := filepath.Join(t.TempDir(), "names")
			k := keep(t, path, clock.now)
			want := k.issue(t, k.Cap(), time.Minute)
			k.journal.save()
			clock.step(day)
			if clock.t.Sub(began) != 0 || clock.t.Unix()-began.Unix() != int64(day/time.Second) {
				t.Fatalf("%v is no step from %v", clock.t, began)
			}
			full := func(when string) {
				t.Helper()
				if _, err := k.Issue("new.example", time.Minute); !errors.Is(err, ErrPoolFull) {
					t.Errorf("%s: a new name has an address: %v", when, err)
				}
				k.check(t, want)
			}
			full("after the step")
			if !k.journal.save() {
				t.Error(k.log.String())
			}
			k.stop(t)
			k = keep(t, path, clock.now)
			defer func() { k.stop(t) }()
			full("after the restart")
			// What the journal has runs ahead of what was promised.
			clock.add(time.Minute + defaultHold + renewal*time.Second + time.Second)
			for i := range k.Cap() {
				if _, err := k.Issue(fmt.Sprint("later", i), time.Minute); err != nil {
					t.Fatalf("new name %d in its time: %v", i, err)
				}
			}
		})
	}
}

// TestWarningAfterClockStep wants the log to go on by the minute.
func TestWarningAfterClockStep(t *testing.T) {
	clock := &clock{time.Now()}
	var log strings.Builder
	s := server(t, serve(t, testZone), Config{Table: table(t, "198.18.0.0/24", "2001:2::/120", clock.now), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for _, c := range []struct {
		step, pass time.Duration
		want       int
	}{{0, 0, 1}, {0, time.Second, 1}, {-24 * time.Hour, 0, 1}, {0, time.Minute, 2}, {24 * time.Hour, 0, 2}, {0, time.Minute, 3}} {
		clock.step(c.step)
		clock.add(c.pass)
		s.warn("something", errors.New("why"))
		if n := strings.Count(log.String(), "\n"); n != c.want {
			t.Fatalf("%+v: %d lines", c, n)
		}
	}
}
