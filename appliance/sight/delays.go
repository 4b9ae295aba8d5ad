package sight

import (
	"sync/atomic"
	"time"
)

// Delays counts how long something took, by bounds.
type Delays struct {
	bounds []time.Duration // ascending
	counts []atomic.Uint64 // of what took at most the bound, and last of what took longer
	sum    atomic.Int64    // nanoseconds
}

// newDelays returns Delays from 1 ms to 10 s: answers at hand, hosts nearby, far
// hosts, and those for which a second try was needed.
func newDelays() *Delays {
	const ms = time.Millisecond
	bounds := []time.Duration{1 * ms, 3 * ms, 10 * ms, 30 * ms, 100 * ms, 300 * ms, 1000 * ms, 3000 * ms, 10000 * ms}
	return &Delays{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

func (d *Delays) add(took time.Duration) {
	i := 0
	for i < len(d.bounds) && took > d.bounds[i] {
		i++
	}
	d.counts[i].Add(1)
	d.sum.Add(int64(took))
}

// Bucket says how often something took at most a time.
type Bucket struct {
	AtMost float64 `json:"at_most"` // seconds
	Count  uint64  `json:"count"`
}

// Distribution is how long something took so far.
type Distribution struct {
	Buckets []Bucket `json:"buckets"` // each counts those before it, too
	Count   uint64   `json:"count"`   // of all
	Sum     float64  `json:"sum"`     // seconds
}

// Snapshot returns the counts so far.
func (d *Delays) Snapshot() Distribution {
	s := Distribution{Sum: time.Duration(d.sum.Load()).Seconds()}
	for i, bound := range d.bounds {
		s.Count += d.counts[i].Load()
		s.Buckets = append(s.Buckets, Bucket{bound.Seconds(), s.Count})
	}
	s.Count += d.counts[len(d.bounds)].Load()
	return s
}

// Quantile returns the bound in seconds that the part q of all stayed within;
// false where there are none, or it took longer than the last bound.
func (d Distribution) Quantile(q float64) (float64, bool) {
	for _, b := range d.Buckets {
		if d.Count > 0 && float64(b.Count) >= q*float64(d.Count) {
			return b.AtMost, true
		}
	}
	return 0, false
}
