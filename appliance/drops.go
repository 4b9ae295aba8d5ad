package appliance

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"sixgate/socks/gateway"
)

// dropsPeriod is how often it is told what was dropped.
const dropsPeriod = time.Minute

// drops returns what limits have refused, or nobody can answer, by reason, out
// of the counters of the gateway, the TUN, and the DNS and the SOCKS server.
func drops(flows gateway.Counters, tun, dns, socks map[string]uint64) map[string]uint64 {
	found := map[string]uint64{"flows_over_limit": flows.OverLimit, "socks_too_large": flows.TooLarge}
	for key, n := range socks {
		found["socks_"+key] = n
	}
	for key, n := range tun {
		if strings.HasPrefix(key, "dropped_") || strings.HasSuffix(key, "_over_limit") ||
			strings.HasSuffix(key, "_suppressed") || strings.HasSuffix(key, "_evicted") {
			found["tun_"+key] = n
		}
	}
	for _, key := range dnsReasons() {
		found["dns_"+key] = dns[key]
	}
	found["dns_dropped"] = dns["dropped"] - dns["limited"] // which are among them
	return found
}

// dnsReasons are the counters of the DNS server that tell why an answer of
// another kind was given, or none.
func dnsReasons() []string { return []string{"limited", "pool_full", "too_many_names", "loop"} }

// grown returns as attributes of a log line what has grown, and by how much.
func grown(before, now map[string]uint64) (attrs []any) {
	for _, reason := range slices.Sorted(maps.Keys(now)) {
		if n := now[reason] - before[reason]; n > 0 {
			attrs = append(attrs, reason, n)
		}
	}
	return attrs
}

// tellDrops logs at each tick what was dropped since the last, until ctx ends.
func (a *Appliance) tellDrops(ctx context.Context, ticks <-chan time.Time) {
	before := map[string]uint64{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		now := a.Status().Drops
		if attrs := grown(before, now); len(attrs) > 0 {
			a.Logger.Warn("dropped in the last minute", attrs...)
		}
		before = now
	}
}
