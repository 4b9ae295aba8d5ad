package appliance

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"

	"sixgate/appliance/advert"
	"sixgate/appliance/config"
	"sixgate/appliance/sight"
	"sixgate/dnsfake"
	"sixgate/dnsfake/upstream"
	"sixgate/socks"
	"sixgate/socks/gateway"
	"sixgate/socks/outlet"
)

// parts are the rooms of the gateway, built for one configuration on one
// machine, and joined to each other but not yet to the world.
type parts struct {
	table    *dnsfake.Table
	resolver *upstream.Resolver
	hosts    *dnsfake.Hosts
	names    *dnsfake.Resolver // of what is dialled
	dns      *dnsfake.Server
	gateway  *gateway.Gateway
	socks    *socks.Server
	inlet    *socksInlet
	tun      *tunInlet
	handover *handover
	senders  *senders
	sight    *sight.Sight
	policy   atomic.Pointer[policy]  // in force; never nil once built
	machine  atomic.Pointer[machine] // as last seen; never nil
	logger   *slog.Logger

	translator *translator
	direct     outlet.DirectConfig // of all policies
}

// build makes the parts for the machine m, and touches nothing of it.
func build(c *config.Config, m *machine, logger *slog.Logger) (*parts, error) {
	p := &parts{logger: logger, sight: sight.New(nil)}
	p.machine.Store(m)
	current := p.machine.Load
	var err error
	if p.table, err = dnsfake.NewTable(dnsfake.TableConfig{IPv4: c.Pool.IPv4, IPv6: c.Pool.IPv6}); err != nil {
		return nil, err
	}
	control := outlet.MarkControl(c.Direct.Mark, c.Direct.Interface)
	p.resolver, err = upstream.New(upstream.Config{
		Servers: func() ([]upstream.Server, error) { return p.policy.Load().servers() },
		Control: control, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	p.hosts = dnsfake.NewHosts(c.DNS.Hosts, c.DNS.Leases, logger)
	p.names = &dnsfake.Resolver{
		Upstream: p.resolver, Hosts: p.hosts, Policy: func() *dnsfake.Policy { return p.policy.Load().names },
	}
	p.translator = &translator{
		fixed: c.Direct.NAT64.Prefix, find: c.Direct.NAT64.Find,
		resolver: p.resolver, current: current, logger: logger, changed: make(chan struct{}, 1),
		own: func() []netip.Prefix { m := current(); return append(m.pools(c), m.literals...) },
	}
	p.direct = outlet.DirectConfig{
		Resolver: p.names, NAT64: p.translator.prefix, Control: control,
		Ports: outlet.NewPorts(outlet.PortsConfig{
			Control:  control,
			Reserved: func(port uint16) bool { return current().reserved.Contains(port) },
			Meet:     func(client, from netip.AddrPort) bool { return p.tun.meet(client, from) },
		}),
	}
	first, err := newPolicy(c, p.direct, current, logger)
	if err != nil {
		return nil, err
	}
	p.policy.Store(first)
	p.gateway = gateway.New(gateway.Config{
		Names:    p.table,
		Policy:   func() *gateway.Policy { return p.policy.Load().flows },
		Resolver: p.names,
		Logger:   logger,
		Dialled:  p.sight.Dialled,
		Ended:    p.sight.Ended,
	})
	p.dns, err = dnsfake.New(dnsfake.Config{
		Table:    p.table,
		Resolver: p.resolver,
		Clients:  func(client netip.Addr) dnsfake.Families { return current().clientFamilies(client) },
		Always:   func() dnsfake.Families { return always(p.policy.Load().config.DNS.Fake, current().uplink) },
		Policy:   p.names.Policy,
		Hosts:    p.hosts,
		Way:      func(client netip.Addr, name string) dnsfake.Way { return p.policy.Load().way(client, name) },
		Beyond:   func(client netip.Addr, name string) dnsfake.Exchanger { return p.policy.Load().resolver(client, name) },
		Asks:     p.resolver.Asks,
		Vet:      func(ip netip.Addr) error { return p.policy.Load().guard.Vet(ip) },
		NAT64:    func() []netip.Addr { return current().discovery() },
		Logger:   logger,
		// A resolver that is slow must not fill a small machine.
		MaxWaiting: queriesIn(m.memory),
		Answered:   p.sight.Answered,
	})
	if err != nil {
		return nil, err
	}
	literal := func(client, ip netip.Addr) (netip.Addr, bool) { return current().literal(c, client, ip) }
	p.inlet = &socksInlet{table: p.table, gateway: p.gateway, literal: literal, logger: logger}
	p.socks = &socks.Server{
		Handler:   p.inlet,
		Access:    func() *socks.Access { return p.policy.Load().access },
		Listening: c.SOCKS.Relays,
		Logger:    logger,
	}
	p.handover = newHandover(logger)
	p.senders = &senders{logger: logger, open: map[advert.Interface]sending{}}
	p.tun = &tunInlet{
		table: p.table, dns: p.dns, gateway: p.gateway, literal: literal, capture: c.DNS.Capture,
		handover: p.handover, current: current,
		policy: p.policy.Load, nat64: p.translator.prefix, strangers: newStrangerLimit(p.table),
	}
	return p, nil
}

// adopt puts the policy of c in force. It is called by one at a time. Flows
// that have begun go on by the policy before, and names keep their addresses.
func (p *parts) adopt(c *config.Config) error {
	next, err := newPolicy(c, p.direct, p.machine.Load, p.logger)
	if err != nil {
		return err
	}
	before := p.policy.Load().config
	if !slices.Equal(before.DNS.Hosts, c.DNS.Hosts) || !slices.Equal(before.DNS.Leases, c.DNS.Leases) {
		p.hosts.Follow(c.DNS.Hosts, c.DNS.Leases)
	}
	if slices.Equal(before.DNS.Upstreams, c.DNS.Upstreams) {
		next.servers = p.policy.Load().servers
	} else {
		defer p.resolver.Forget() // others may know other names
	}
	return p.policy.Swap(next).close()
}

// close ends what asks resolvers.
func (p *parts) close() error { return errors.Join(p.resolver.Close(), p.policy.Load().close()) }
