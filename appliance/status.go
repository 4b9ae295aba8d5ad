package appliance

import (
	"reflect"
	"strings"
	"time"

	"sixgate/dnsfake"
	"sixgate/socks/gateway"
	"sixgate/socks/outlet"
)

// Status is how a running gateway is.
type Status struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Uplink  string    `json:"uplink"` // families with a default route
	LAN     string    `json:"lan"`    // interfaces served, with their clients' families
	Names   Names     `json:"names"`

	Handover string `json:"handover"` // whether the kernel takes over TCP connections, and why not

	Flows struct {
		Live    int64             `json:"live"`
		Joined  map[string]uint64 `json:"joined"`  // ever, by type A to D
		Refused map[string]uint64 `json:"refused"` // ever, by reason
		Up      uint64            `json:"up"`      // payload bytes, client to far
		Down    uint64            `json:"down"`    // payload bytes, far to client
	} `json:"flows"`

	Resolvers []Resolver `json:"resolvers"` // in the order of preference

	Hops []Hop `json:"hops"` // the SOCKS servers of outlets, in the configuration's order

	DNS map[string]uint64 `json:"dns"` // answers, by kind
	TUN map[string]uint64 `json:"tun"` // events of the device and its stack
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
	m, flows := a.machine.Load(), a.parts.gateway.Counters()
	s := Status{
		Version: a.Version,
		Started: a.started,
		Uplink:  familyNames(m.uplink),
		LAN:     m.String(),
		Names:   Names{Mapped: a.parts.table.Len(), Room: a.parts.table.Cap()},
		Hops:    a.hops(),
		DNS:     fields(a.parts.dns.Counters()),

		Handover: a.parts.handover.String(),
	}
	for _, h := range a.parts.resolver.Health() {
		r := Resolver{Server: h.Server.String(), Down: h.Down, RTT: h.RTT.Seconds(), Asked: h.Asked, Failed: h.Failed}
		if h.Err != nil {
			r.Error = h.Err.Error()
		}
		s.Resolvers = append(s.Resolvers, r)
	}
	if packets := a.packets.Load(); packets != nil {
		s.TUN = fields(packets.Counters())
	}
	s.Flows.Live, s.Flows.Up, s.Flows.Down = flows.Live, flows.Up, flows.Down
	s.Flows.Joined = map[string]uint64{}
	for _, t := range gateway.Types {
		s.Flows.Joined[t.String()] = flows.Joined[t]
	}
	s.Flows.Refused = map[string]uint64{}
	for reply, n := range flows.Refused {
		s.Flows.Refused[reply.String()] = n
	}
	return s
}

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
