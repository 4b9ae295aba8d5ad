package appliance

import (
	"cmp"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"

	"sixgate/appliance/config"
	"sixgate/appliance/sight"
	"sixgate/dnsfake"
	"sixgate/socks/gateway"
	"sixgate/socks/outlet"
)

// Status is how a running gateway is.
type Status struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Uplink  string    `json:"uplink"` // families with a default route
	NAT64   string    `json:"nat64"`  // by which IPv4 is reached, and how that is known; "": not needed, or none
	LAN     string    `json:"lan"`    // interfaces served, with their clients' families
	Config  string    `json:"config"` // the file in force; "": the built-in defaults
	Loaded  time.Time `json:"loaded"` // when that came into force
	Names   Names     `json:"names"`

	Handover string `json:"handover"` // whether the kernel takes over TCP connections, and why not

	Flows struct {
		Live    uint64            `json:"live"`
		Joined  map[string]uint64 `json:"joined"`  // ever, by type A to D
		Refused map[string]uint64 `json:"refused"` // ever, by reason
		Up      uint64            `json:"up"`      // payload bytes, client to far
		Down    uint64            `json:"down"`    // payload bytes, far to client
		Kinds   []FlowKind        `json:"kinds"`
	} `json:"flows"`

	Dials    []DialCount        `json:"dials"`
	Connects sight.Distribution `json:"connects"` // of dials, until connected
	Answers  sight.Distribution `json:"answers"`  // of DNS, of those that were not at hand

	Resolvers []Resolver `json:"resolvers"` // in the order of preference

	Advertised []Advertised `json:"advertised"` // by router advertisements

	Hops []Hop `json:"hops"` // the SOCKS servers of outlets, in the configuration's order

	DNS map[string]uint64 `json:"dns"` // answers, by kind
	TUN map[string]uint64 `json:"tun"` // events of the device and its stack

	Drops map[string]uint64 `json:"drops"` // what limits have refused, or nobody can answer, by reason
	Files Files             `json:"files"`
	Held  Held              `json:"held"`
}

// FlowKind counts flows of one kind.
type FlowKind struct {
	Network string `json:"network"`
	Type    string `json:"type"`
	Outlet  string `json:"outlet"`
	Live    uint64 `json:"live"`
	Joined  uint64 `json:"joined"` // ever
}

// DialCount says how often dials by an outlet ended how.
type DialCount struct {
	Outlet string `json:"outlet"`
	Result string `json:"result"` // "connected", or why not
	Count  uint64 `json:"count"`
}

// Files are the open files of the process, which sockets are, too.
type Files struct {
	Open  uint64 `json:"open"`
	Limit uint64 `json:"limit"`
}

// Held is what flows give back when they end, within a minute.
type Held struct {
	Goroutines int `json:"goroutines"` // those of the gateway itself among them
	Endpoints  int `json:"endpoints"`  // TCP connections of the TUN's stack, with those in TIME_WAIT
}

// Names says how full the mapping table is.
type Names struct {
	Mapped int `json:"mapped"`
	Room   int `json:"room"`
}

// Resolver is how an upstream resolver does.
type Resolver struct {
	Server string  `json:"server"`
	Down   bool    `json:"down"`
	RTT    float64 `json:"rtt"` // seconds, smoothed; 0: has not answered yet
	Asked  uint64  `json:"asked"`
	Failed uint64  `json:"failed"`
	Forged uint64  `json:"forged"`          // replies in its name to what it was not asked
	Error  string  `json:"error,omitempty"` // of the last failure, until it answers again
}

// Hop is how the SOCKS server of an outlet does.
type Hop struct {
	Outlet string `json:"outlet"`
	Server string `json:"server"`
	Down   bool   `json:"down"`  // it failed when it was last asked
	NoUDP  bool   `json:"noUDP"` // it has lately refused UDP
	Asked  uint64 `json:"asked"`
	Failed uint64 `json:"failed"`
	Error  string `json:"error,omitempty"` // of the last failure, until it serves again
}

// State tells in words how h does.
func (h Hop) State() string {
	switch {
	case h.Down:
		return "down: " + h.Error
	case h.Asked == 0:
		return "not asked yet"
	case h.NoUDP:
		return "up, without UDP"
	}
	return "up"
}

// hops returns the SOCKS servers that chains may go through.
func (a *Appliance) hops() []Hop {
	var hops []Hop
	p := a.parts.policy.Load()
	for _, o := range p.config.Outlets {
		via, ok := p.flows.Outlets[o.Name].(*outlet.Via)
		if !ok {
			continue
		}
		h := via.Health()
		hop := Hop{Outlet: o.Name, Server: h.Server.String(), Down: h.Err != nil, NoUDP: h.NoUDP, Asked: h.Asked, Failed: h.Failed}
		if h.Err != nil {
			hop.Error = h.Err.Error()
		}
		hops = append(hops, hop)
	}
	return hops
}

// Mapping is a row of the mapping table.
type Mapping = dnsfake.Mapping

// Status returns how the gateway is now.
func (a *Appliance) Status() Status {
	m, p := a.parts.machine.Load(), a.parts.policy.Load()
	s := Status{
		Version: a.Version,
		Started: a.started,
		Config:  p.config.File,
		Loaded:  p.since,
		Uplink:  familyNames(m.uplink),
		NAT64:   a.parts.translator.String(),
		LAN:     m.String(),
		Names:   Names{Mapped: a.parts.table.Len(), Room: a.parts.table.Cap()},
		Hops:    a.hops(),
		DNS:     fields(a.parts.dns.Counters()),

		Handover:   a.parts.handover.String(),
		Advertised: a.parts.senders.status(),
		Connects:   a.parts.sight.Connects.Snapshot(),
		Answers:    a.parts.sight.Answers.Snapshot(),
		Files:      openFiles(),
		Held:       Held{Goroutines: runtime.NumGoroutine()},
	}
	for _, h := range a.parts.resolver.Health() {
		r := Resolver{Server: h.Server.String(), Down: h.Down, RTT: h.RTT.Seconds(), Asked: h.Asked, Failed: h.Failed, Forged: h.Forged}
		if h.Err != nil {
			r.Error = h.Err.Error()
		}
		s.Resolvers = append(s.Resolvers, r)
	}
	if packets := a.packets.Load(); packets != nil {
		s.TUN = fields(packets.Counters())
		s.Held.Endpoints = packets.Endpoints()
	}
	flows := a.parts.gateway.Counters()
	s.countFlows(flows)
	s.countDials(a.parts.sight.Dials())
	server := fields(a.parts.socks.Counters())
	server["leaked"] = a.parts.inlet.leaks.Load()
	s.Drops = drops(flows, s.TUN, s.DNS, server)
	maps.DeleteFunc(s.DNS, func(key string, _ uint64) bool { return slices.Contains(dnsReasons(), key) })
	return s
}

func (s *Status) countFlows(c gateway.Counters) {
	s.Flows.Up, s.Flows.Down = c.Up, c.Down
	s.Flows.Joined, s.Flows.Refused = map[string]uint64{}, map[string]uint64{}
	for _, t := range gateway.Types {
		s.Flows.Joined[t.String()] = 0
	}
	for kind, n := range c.Joined {
		live := c.Live[kind]
		s.Flows.Live += live
		s.Flows.Joined[kind.Type.String()] += n
		s.Flows.Kinds = append(s.Flows.Kinds, FlowKind{kind.Network, kind.Type.String(), outletName(kind.Outlet), live, n})
	}
	slices.SortFunc(s.Flows.Kinds, func(a, b FlowKind) int {
		return cmp.Or(strings.Compare(a.Outlet, b.Outlet), strings.Compare(a.Network, b.Network), strings.Compare(a.Type, b.Type))
	})
	for reply, n := range c.Refused {
		s.Flows.Refused[reply.String()] = n
	}
}

func (s *Status) countDials(dials map[sight.Dial]uint64) {
	for d, n := range dials {
		s.Dials = append(s.Dials, DialCount{outletName(d.Outlet), d.Result, n})
	}
	slices.SortFunc(s.Dials, func(a, b DialCount) int {
		return cmp.Or(strings.Compare(a.Outlet, b.Outlet), strings.Compare(a.Result, b.Result))
	})
}

// outletName returns the name of an outlet as rules have it.
func outletName(name string) string { return cmp.Or(name, config.BuiltInDirect) }

// fields returns the counts of a Counters struct by their names in
// lower_case.
func fields(counters any) map[string]uint64 {
	values := map[string]uint64{}
	v := reflect.ValueOf(counters)
	for i := range v.NumField() {
		if field := v.Field(i); field.Kind() == reflect.Uint64 {
			values[snake(v.Type().Field(i).Name)] = field.Uint()
		}
	}
	return values
}

// snake turns TCPOverLimit into tcp_over_limit.
func snake(name string) string {
	var b strings.Builder
	for i, c := range name {
		upper := 'A' <= c && c <= 'Z'
		next := i+1 < len(name) && 'a' <= name[i+1] && name[i+1] <= 'z'
		previous := i > 0 && !('A' <= name[i-1] && name[i-1] <= 'Z')
		if upper && i > 0 && (next || previous) {
			b.WriteByte('_')
		}
		b.WriteRune(c)
	}
	return strings.ToLower(b.String())
}
