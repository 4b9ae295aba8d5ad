package appliance

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"sixgate/appliance/sight"
)

// writeMetrics writes s in the Prometheus text format. No label is a name or
// an address of a client. Snapshots need no client library, which would keep
// counters of its own.
func writeMetrics(w io.Writer, s Status) error {
	m := &metrics{w: w}
	m.family("build_info", "gauge", "what is running", map[string]uint64{
		label("version", s.Version) + "," + label("go", runtime.Version()): 1,
	})
	m.value("start_time_seconds", "gauge", "when the gateway started, Unix time", uint64(s.Started.Unix()))
	m.value("config_time_seconds", "gauge", "when the configuration came into force, Unix time", uint64(s.Loaded.Unix()))
	m.flows(s)
	m.value("names_mapped", "gauge", "names with a fake address", uint64(s.Names.Mapped))
	m.value("names_room", "gauge", "names that can have a fake address", uint64(s.Names.Room))
	m.health(s)
	m.family("dns_answers_total", "counter", "DNS answers, by kind", labels("kind", s.DNS))
	m.histogram("dns_seconds", "until DNS answers that were not at hand", s.Answers)
	m.family("tun_total", "counter", "events of the TUN device and its stack", labels("event", s.TUN))
	m.family("drops_total", "counter", "what limits or rules of a protocol have refused, or nobody can answer, by reason", labels("reason", s.Drops))
	m.advertised(s.Advertised)
	m.value("open_files", "gauge", "files and sockets that are open", s.Files.Open)
	m.value("open_files_limit", "gauge", "files and sockets that may be open", s.Files.Limit)
	m.value("goroutines", "gauge", "goroutines, which grow with live flows", uint64(s.Held.Goroutines))
	m.value("tcp_endpoints", "gauge", "TCP connections of the TUN's stack, with those in TIME_WAIT", uint64(s.Held.Endpoints))
	return m.err
}

// flows writes how flows did.
func (m *metrics) flows(s Status) {
	live, total, dials := map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
	for _, k := range s.Flows.Kinds {
		kind := label("proto", k.Network) + "," + label("type", k.Type) + "," + label("outlet", k.Outlet)
		live[kind], total[kind] = k.Live, k.Joined
	}
	for _, d := range s.Dials {
		dials[label("outlet", d.Outlet)+","+label("result", d.Result)] = d.Count
	}
	m.family("flows_live", "gauge", "flows joined and not ended, by type (RFC 3089, section 2)", live)
	m.family("flows_total", "counter", "flows ever joined, by type (RFC 3089, section 2)", total)
	m.family("flows_refused_total", "counter", "flows never joined, by reason", labels("reason", s.Flows.Refused))
	m.family("dials_total", "counter", "dials, by result", dials)
	m.histogram("dial_seconds", "until connected", s.Connects)
	m.family("bytes_total", "counter", "payload carried", labels("direction", map[string]uint64{"up": s.Flows.Up, "down": s.Flows.Down}))
}

// health writes which servers are down, and whom somebody forges.
func (m *metrics) health(s Status) {
	resolvers, forged, outlets := map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
	note := func(down map[string]uint64, server string, is bool) {
		if down[server] = 0; is {
			down[server] = 1
		}
	}
	for _, r := range s.Resolvers {
		note(resolvers, label("server", r.Server), r.Down)
		forged[label("server", r.Server)] = r.Forged
	}
	for _, h := range s.Hops {
		note(outlets, label("outlet", h.Outlet), h.Down)
	}
	m.family("resolver_down", "gauge", "whether an upstream resolver is down", resolvers)
	m.family("resolver_forged_total", "counter", "replies in the name of an upstream resolver to what it was not asked", forged)
	m.family("outlet_down", "gauge", "whether the SOCKS server of an outlet failed when last asked", outlets)
}

// advertised writes what was said and heard by router advertisements.
func (m *metrics) advertised(all []Advertised) {
	events := map[string]uint64{}
	for _, a := range all {
		for event, n := range map[string]uint64{
			"sent": a.Sent, "solicited": a.Solicited, "malformed": a.Malformed, "contradicted": a.Contradicted,
		} {
			events[label("interface", a.Interface)+","+label("event", event)] = n
		}
	}
	m.family("advertisements_total", "counter", "router advertisements and what came in turn, by event", events)
}

// metrics writes one family after another, and remembers the first error.
type metrics struct {
	w   io.Writer
	err error
}

func (m *metrics) value(name, kind, help string, value uint64) {
	m.family(name, kind, help, map[string]uint64{"": value})
}

// family writes a metric; samples are by their labels.
func (m *metrics) family(name, kind, help string, samples map[string]uint64) {
	m.printf("# HELP sixgate_%s %s\n# TYPE sixgate_%s %s\n", name, help, name, kind)
	for _, labels := range slices.Sorted(maps.Keys(samples)) {
		if labels != "" {
			m.printf("sixgate_%s{%s} %d\n", name, labels, samples[labels])
		} else {
			m.printf("sixgate_%s %d\n", name, samples[labels])
		}
	}
}

// histogram writes a distribution.
func (m *metrics) histogram(name, help string, d sight.Distribution) {
	m.printf("# HELP sixgate_%s %s\n# TYPE sixgate_%s histogram\n", name, help, name)
	for _, b := range d.Buckets {
		m.printf("sixgate_%s_bucket{le=\"%v\"} %d\n", name, b.AtMost, b.Count)
	}
	m.printf("sixgate_%s_bucket{le=\"+Inf\"} %d\n", name, d.Count)
	m.printf("sixgate_%s_sum %v\nsixgate_%s_count %d\n", name, d.Sum, name, d.Count)
}

func (m *metrics) printf(format string, args ...any) {
	if m.err == nil {
		_, m.err = fmt.Fprintf(m.w, format, args...)
	}
}

// labels makes each key of values the value of a label.
func labels(name string, values map[string]uint64) map[string]uint64 {
	labelled := map[string]uint64{}
	for value, n := range values {
		labelled[label(name, value)] = n
	}
	return labelled
}

// label returns a label in the escapes that the text format knows.
func label(name, value string) string {
	return name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value) + `"`
}
