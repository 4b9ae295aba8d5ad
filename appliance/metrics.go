package appliance

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
)

// writeMetrics writes s in the Prometheus text format. No label is a name or
// an address of a client. Snapshots need no client library, which would keep
// counters of its own.
func writeMetrics(w io.Writer, s Status) error {
	m := &metrics{w: w}
	m.family("build_info", "gauge", "what is running", map[string]uint64{
		fmt.Sprintf(`version=%q,go=%q`, s.Version, runtime.Version()): 1,
	})
	m.value("start_time_seconds", "gauge", "when the gateway started, Unix time", uint64(s.Started.Unix()))
	m.value("flows_live", "gauge", "flows joined and not ended", uint64(s.Flows.Live))
	m.family("flows_total", "counter", "flows ever joined, by type (RFC 3089, section 2)", labels("type", s.Flows.Joined))
	m.family("flows_refused_total", "counter", "flows never joined, by reason", labels("reason", s.Flows.Refused))
	m.family("bytes_total", "counter", "payload carried", labels("direction", map[string]uint64{"up": s.Flows.Up, "down": s.Flows.Down}))
	m.value("names_mapped", "gauge", "names with a fake address", uint64(s.Names.Mapped))
	m.value("names_room", "gauge", "names that can have a fake address", uint64(s.Names.Room))
	down := map[string]uint64{}
	for _, r := range s.Resolvers {
		label := fmt.Sprintf("server=%q", r.Server)
		if down[label] = 0; r.Down {
			down[label] = 1
		}
	}
	m.family("resolver_down", "gauge", "whether an upstream resolver is down", down)
	down = map[string]uint64{}
	for _, h := range s.Hops {
		label := fmt.Sprintf("outlet=%q", h.Outlet)
		if down[label] = 0; h.Down {
			down[label] = 1
		}
	}
	m.family("outlet_down", "gauge", "whether the SOCKS server of an outlet failed when last asked", down)
	m.family("dns_answers_total", "counter", "DNS answers, by kind", labels("kind", s.DNS))
	m.family("tun_total", "counter", "events of the TUN device and its stack", labels("event", s.TUN))
	return m.err
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

func (m *metrics) printf(format string, args ...any) {
	if m.err == nil {
		_, m.err = fmt.Fprintf(m.w, format, args...)
	}
}

// labels makes each key of values the value of a label.
func labels(name string, values map[string]uint64) map[string]uint64 {
	labelled := map[string]uint64{}
	for value, n := range values {
		labelled[fmt.Sprintf("%s=%q", name, value)] = n
	}
	return labelled
}
