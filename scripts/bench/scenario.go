package main

import (
	"fmt"
	"strconv"
	"time"
)

// scenario is one load on one kind of network.
type scenario struct {
	name  string
	table *table // of the report, to which it adds rows
	links links
	load  string // what the client does, see load
	n     int    // over how many connections; how many MiB, where each byte is checked
	six   bool   // by IPv6
	times int    // how many times as long as others, to outlast slow starts; 0 is once
}

// scenarios is all that can be measured.
func scenarios() []scenario {
	var all []scenario
	bulk, memory, bad := throughput(), memory(), badLinks()
	for _, mode := range []string{"on", "nogro", "off"} {
		for _, n := range []int{1, 8} {
			for _, way := range []string{"up", "down"} {
				name := fmt.Sprintf("%s/%d-%s", mode, n, way)
				all = append(all, scenario{name: name, table: bulk, links: links{offload: offloads()[mode]}, load: way, n: n})
			}
		}
	}
	all = append(all,
		scenario{name: "connections", table: connections(), load: "connect", n: workers},
		scenario{name: "request", table: requests(), load: "request", n: 1},
		scenario{name: "idle/0", table: memory, load: "idle"},
		scenario{name: "idle/1000", table: memory, load: "idle", n: 1000},
		scenario{name: "idle/10000", table: memory, load: "idle", n: 10000},
	)
	all = append(all, datagrams()...)
	all = append(all, scenario{name: "churn", table: leftovers(), load: "churn", n: workers, times: 5})
	for _, trouble := range []struct {
		name  string
		cable cable
		times int
	}{
		{"loss", cable{loss: 1}, 1},
		{"long", cable{delay: 25 * time.Millisecond}, 2},
		{"far", cable{loss: 1, delay: 25 * time.Millisecond}, 4},
	} {
		for _, way := range []string{"up", "down"} {
			each := offloads()["off"] // a packet, so that none is lost in bundles
			lan, wan := links{offload: each, lan: trouble.cable}, links{offload: each, wan: trouble.cable}
			all = append(all,
				scenario{name: trouble.name + "/lan-" + way, table: bad, links: lan, load: way, n: 1, times: trouble.times},
				scenario{name: trouble.name + "/wan-" + way, table: bad, links: wan, load: way, n: 1, times: trouble.times},
			)
		}
	}
	return all
}

// reading is what one run has shown.
type reading struct {
	done
	n             int // connections of the load
	before, after view
}

// program is the CPU time of the program, in seconds.
func (r reading) program() float64 { return r.after.program.cpu() - r.before.program.cpu() }

// machine is the CPU time of the whole machine, in seconds, but for what
// programs outside the bench took in user mode.
func (r reading) machine() float64 {
	return r.after.machine.cpu() - r.before.machine.cpu() - r.outside()
}

func (r reading) outside() float64 {
	user := func(v view) float64 { return v.machine.user - v.bench.user }
	return max(0, user(r.after)-user(r.before))
}

// others is how many processors programs outside the bench kept busy in user
// mode: a run with much of it is a disturbed one.
func (r reading) others() float64 {
	return r.outside() / r.after.at.Sub(r.before.at).Seconds()
}

// table is a table of the report.
type table struct {
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

func throughput() *table {
	return &table{"Throughput", []measure{
		{"Gbit/s", func(r reading) float64 { return r.Bytes * 8 / 1e9 / r.Seconds }, timesSplice},
		{"CPU-s/GiB", func(r reading) float64 { return r.program() / (r.Bytes / gib) }, timesSplice},
		{"machine CPU-s/GiB", func(r reading) float64 { return r.machine() / (r.Bytes / gib) }, timesSplice},
	}}
}

func badLinks() *table {
	return &table{"Throughput over bad links", []measure{
		{"Mbit/s", func(r reading) float64 { return r.Bytes * 8 / 1e6 / r.Seconds }, timesSplice},
	}}
}

func connections() *table {
	return &table{"Short connections, " + strconv.Itoa(workers) + " at once", []measure{
		{"a second", func(r reading) float64 { return float64(r.Exchanges) / r.Seconds }, timesSplice},
		{"p50 ms", func(r reading) float64 { return r.P50 * 1e3 }, nothing},
		{"p99 ms", func(r reading) float64 { return r.P99 * 1e3 }, nothing},
		{"CPU-s per 100,000", func(r reading) float64 { return r.program() / float64(r.Exchanges) * 1e5 }, timesSplice},
		{"errors", func(r reading) float64 { return float64(r.Errors) }, nothing},
	}}
}

func requests() *table {
	return &table{"Requests over one connection, one after another", []measure{
		{"a second", func(r reading) float64 { return float64(r.Exchanges) / r.Seconds }, timesSplice},
		{"p50 us", func(r reading) float64 { return r.P50 * 1e6 }, overKernel},
		{"p99 us", func(r reading) float64 { return r.P99 * 1e6 }, overKernel},
	}}
}

func memory() *table {
	return &table{"Memory with idle connections", []measure{
		{"RSS MiB", func(r reading) float64 { return r.after.rss() / (1 << 20) }, timesSplice},
		{"KiB a connection", func(r reading) float64 { return (r.after.rss() - r.before.rss()) / 1024 / float64(r.n) }, timesSplice},
	}}
}
