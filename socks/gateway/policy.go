package gateway

import (
	"fmt"
	"time"

	"sixgate/socks/outlet"
	"sixgate/socks/relay"
	"sixgate/socks/route"
)

// Policy is how flows go that begin while it is in force. It does not change;
// another takes its place, and the flows that have begun keep theirs.
type Policy struct {
	Rules       route.Rules
	Outlets     map[string]outlet.Outlet // by name; "" takes what no rule does
	DialTimeout time.Duration
	Stream      relay.Limits  // of TCP
	UDPIdle     time.Duration // of a UDP flow

	Flows          int // at a time; 0: no bound
	FlowsPerClient int // of one client's address, and of one user; 0: two thirds of Flows
}

// Check returns what is wrong with p.
func (p *Policy) Check() error {
	for _, r := range p.Rules {
		if _, ok := p.Outlets[r.Outlet]; !ok {
			return fmt.Errorf("checking the rules: one names the unknown outlet %q", r.Outlet)
		}
	}
	if p.Outlets[""] == nil {
		return fmt.Errorf("checking the rules: no default outlet")
	}
	return nil
}
