package main

import (
	"cmp"
	"math"
	"slices"
)

// percentile is the smallest of the values that p percent of them do not
// exceed (nearest rank). It sorts the values, of which there is at least one.
func percentile[T cmp.Ordered](values []T, p float64) T {
	slices.Sort(values)
	rank := int(math.Ceil(p / 100 * float64(len(values))))
	return values[max(rank, 1)-1]
}

// spread is what several runs have shown.
type spread struct{ Median, Min, Max float64 }

// spreadOf is that of the values which are numbers; ok is whether any is.
func spreadOf(values []float64) (s spread, ok bool) {
	values = slices.DeleteFunc(slices.Clone(values), func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) })
	if len(values) == 0 {
		return spread{}, false
	}
	slices.Sort(values)
	middle := len(values) / 2
	median := values[middle]
	if len(values)%2 == 0 {
		median = (values[middle-1] + values[middle]) / 2
	}
	return spread{median, values[0], values[len(values)-1]}, true
}
