package appliance

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixgate/socks/gateway"
)

func TestDrops(t *testing.T) {
	got := drops(gateway.Counters{OverLimit: 7, TooLarge: 8},
		map[string]uint64{"received": 9, "dropped_not_ip": 1, "tcp_over_limit": 2, "icmp_suppressed": 3},
		map[string]uint64{"fake": 9, "dropped": 5, "limited": 4, "pool_full": 6}, map[string]uint64{"strangers": 9},
	)
	want := map[string]uint64{
		"flows_over_limit": 7, "tun_dropped_not_ip": 1, "tun_tcp_over_limit": 2, "tun_icmp_suppressed": 3,
		"socks_too_large": 8, "socks_strangers": 9, "dns_dropped": 1, "dns_limited": 4, "dns_pool_full": 6, "dns_too_many_names": 0, "dns_loop": 0,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestGrown(t *testing.T) {
	before := map[string]uint64{"a": 1, "b": 2}
	if got := fmt.Sprint(grown(before, map[string]uint64{"a": 1, "b": 5, "c": 1})); got != "[b 3 c 1]" {
		t.Errorf("got %s", got)
	}
}

// TestTellDrops wants one line a tick, and none where nothing was dropped.
func TestTellDrops(t *testing.T) {
	b := newBox(t, newWorld(t), nil)
	var log bytes.Buffer
	a := &Appliance{parts: b.parts, Options: Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
	ctx, cancel := context.WithCancel(t.Context())
	ticks, done := make(chan time.Time), make(chan struct{})
	go func() {
		defer close(done)
		a.tellDrops(ctx, ticks)
	}()
	ticks <- time.Time{}
	for range 3 {
		b.parts.dns.Reply(t.Context(), []byte("no query"), netip.AddrPortFrom(far4, 9), false)
	}
	for range 3 {
		ticks <- time.Time{}
	}
	cancel()
	<-done
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "dns_dropped=3") {
		t.Errorf("logged %q", got)
	}
}

// TestFlowsIn has machines that are short of memory, of files, and of neither.
func TestFlowsIn(t *testing.T) {
	for _, c := range []struct {
		memory, files uint64
		want          int
	}{
		{1 << 30, 0, 16384}, {1 << 30, 1 << 20, 16384}, {1 << 30, 4096, 1920}, {1 << 20, 1 << 20, minFlows},
		{1 << 20, 1024, 384}, {1 << 30, 100, 128},
	} {
		if got := flowsIn(c.memory, c.files); got != c.want {
			t.Errorf("%d bytes, %d files: %d flows, want %d", c.memory, c.files, got, c.want)
		}
	}
}
