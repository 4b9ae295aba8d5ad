package appliance

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"sixgate/appliance/sight"
	"sixgate/socks/gateway"
)

// Flow is a flow that lives.
type Flow struct {
	Inlet   string         `json:"inlet"`   // "tun" or "socks"
	Network string         `json:"network"` // "tcp" or "udp"
	Client  netip.AddrPort `json:"client"`
	User    string         `json:"user,omitempty"`
	Asked   string         `json:"asked"` // what the client asked for: a fake address, a name or a literal
	Real    string         `json:"real"`  // what that stands for
	Outlet  string         `json:"outlet,omitempty"`
	Far     netip.AddrPort `json:"far"`            // where the gateway has connected to; "" where nowhere yet, or to many
	Type    string         `json:"type,omitempty"` // A to D; none before it is joined
	Up      int64          `json:"up"`             // payload bytes, client to far
	Down    int64          `json:"down"`           // payload bytes, far to client
	Age     float64        `json:"age"`            // seconds
}

// Client is what a client has met so far.
type Client = sight.Client

// Failure is what a client could not have.
type Failure = sight.Failure

// Clients returns the clients that were seen last, the last one first.
func (a *Appliance) Clients() []Client { return a.parts.sight.Clients(a.parts.gateway.Flows()) }

// Flows returns the flows that live, the oldest first.
func (a *Appliance) Flows() []Flow {
	live := a.parts.gateway.Flows()
	slices.SortFunc(live, earlier)
	now, flows := time.Now(), []Flow{}
	for _, f := range live {
		flows = append(flows, newFlow(f, now))
	}
	return flows
}

// earlier compares flows by when they began.
func earlier(a, b gateway.Flow) int {
	return cmp.Or(a.Started.Compare(b.Started), a.Client.Compare(b.Client))
}

func newFlow(f gateway.Flow, now time.Time) Flow {
	flow := Flow{
		Inlet: f.Inlet, Network: f.Network, Client: f.Client, User: f.User, Asked: f.Text(f.Dest),
		Outlet: f.Outlet, Far: f.Far, Up: f.Up, Down: f.Down, Age: now.Sub(f.Started).Seconds(),
	}
	if f.Real.IsValid() {
		flow.Real = f.Text(f.Real)
	}
	if f.Type != 0 {
		flow.Type = f.Type.String()
	}
	return flow
}
