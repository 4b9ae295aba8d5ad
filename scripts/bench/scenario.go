package main

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// scenario is one load on one kind of network.
type scenario struct {
	name  string
	kind  *kind
	links links
	load  string // what the client does, see load
	n     int    // over how many connections
	times int    // how many times as long as others, to outlast slow starts
}

// scenarios is all that can be measured.
func scenarios() []scenario {
	var all []scenario
	bulk := throughput()
	for _, mode := range []string{"on", "nogro", "off"} {
		for _, n := range []int{1, 8} {
			for _, way := range []string{"up", "down"} {
				all = append(all, scenario{fmt.Sprintf("%s/%d-%s", mode, n, way), bulk, links{offload: offloads()[mode]}, way, n, 1})
			}
		}
	}
	memory := memory()
	all = append(all,
		scenario{"connections", shortConnections(), links{}, "connect", workers, 1},
		scenario{"request", requests(), links{}, "request", 1, 1},
		scenario{"idle/0", memory, links{}, "idle", 0, 1},
		scenario{"idle/1000", memory, links{}, "idle", 1000, 1},
		scenario{"idle/10000", memory, links{}, "idle", 10000, 1},
	)
	lossy := badLinks()
	lose, far := cable{loss: 1}, cable{loss: 1, delay: 25 * time.Millisecond}
	long := cable{delay: 25 * time.Millisecond}
	for _, way := range []string{"up", "down"} {
		off := offloads()["off"]
		all = append(all,
			scenario{"loss/lan-" + way, lossy, links{off, lose, cable{}}, way, 1, 1},
			scenario{"loss/wan-" + way, lossy, links{off, cable{}, lose}, way, 1, 1},
			scenario{"long/lan-" + way, lossy, links{off, long, cable{}}, way, 1, 2},
			scenario{"long/wan-" + way, lossy, links{off, cable{}, long}, way, 1, 2},
			scenario{"far/lan-" + way, lossy, links{off, far, cable{}}, way, 1, 4},
			scenario{"far/wan-" + way, lossy, links{off, cable{}, far}, way, 1, 4},
		)
	}
	return all
}

// reading is what one run has shown.
type reading struct {
	done
	n             int // connections of the load
	before, after view
}

// program and machine are the CPU time that the run took, in seconds.
func (r reading) program() float64 { return r.after.program.cpu() - r.before.program.cpu() }
func (r reading) machine() float64 { return r.after.machine.cpu() - r.before.machine.cpu() }

// others is how many processors programs outside the bench kept busy, in user
// mode: a run with much of it is a disturbed one.
func (r reading) others() float64 {
	user := func(v view) float64 { return v.machine.user - v.bench.user }
	return max(0, (user(r.after)-user(r.before))/r.after.at.Sub(r.before.at).Seconds())
}

// rss is the program's resident memory in bytes, or not a number without one.
func (v view) rss() float64 {
	if v.program.rss == 0 {
		return math.NaN()
	}
	return v.program.rss
}

// kind is a table of the report.
type kind struct {
	title    string
	measures []measure
}

// measure is a column of a table, or two.
type measure struct {
	name   string
	of     func(reading) float64 // not a number: there is none
	beside beside
}

// beside is what the report puts beside a figure.
type beside string

const (
	nothing     beside = ""
	timesSplice beside = "x splice" // how many times the splice relay's it is
	overKernel  beside = "- kernel" // what it adds to the kernel's
)

const gib = 1 << 30

func throughput() *kind {
	return &kind{"Throughput", []measure{
		{"Gbit/s", func(r reading) float64 { return r.Bytes * 8 / 1e9 / r.Seconds }, timesSplice},
		{"CPU-s/GiB", func(r reading) float64 { return r.program() / (r.Bytes / gib) }, timesSplice},
		{"machine CPU-s/GiB", func(r reading) float64 { return r.machine() / (r.Bytes / gib) }, timesSplice},
	}}
}

func badLinks() *kind {
	return &kind{"Throughput over bad links", []measure{
		{"Mbit/s", func(r reading) float64 { return r.Bytes * 8 / 1e6 / r.Seconds }, timesSplice},
	}}
}

func shortConnections() *kind {
	return &kind{"Short connections, " + strconv.Itoa(workers) + " at once", []measure{
		{"a second", func(r reading) float64 { return float64(r.Exchanges) / r.Seconds }, timesSplice},
		{"p50 ms", func(r reading) float64 { return r.P50 * 1e3 }, nothing},
		{"p99 ms", func(r reading) float64 { return r.P99 * 1e3 }, nothing},
		{"CPU-s per 100,000", func(r reading) float64 { return r.program() / float64(r.Exchanges) * 1e5 }, timesSplice},
		{"errors", func(r reading) float64 { return float64(r.Errors) }, nothing},
	}}
}

func requests() *kind {
	return &kind{"Requests over one connection, one after another", []measure{
		{"a second", func(r reading) float64 { return float64(r.Exchanges) / r.Seconds }, timesSplice},
		{"p50 us", func(r reading) float64 { return r.P50 * 1e6 }, overKernel},
		{"p99 us", func(r reading) float64 { return r.P99 * 1e6 }, overKernel},
	}}
}

func memory() *kind {
	return &kind{"Memory with idle connections", []measure{
		{"RSS MiB", func(r reading) float64 { return r.after.rss() / (1 << 20) }, timesSplice},
		{"KiB a connection", func(r reading) float64 { return (r.after.rss() - r.before.rss()) / 1024 / float64(r.n) }, timesSplice},
	}}
}
