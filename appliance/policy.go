package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
	"sixgate/dnsfake/upstream"
	"sixgate/socks"
	"sixgate/socks/gateway"
	"sixgate/socks/outlet"
	"sixgate/socks/relay"
	"sixgate/socks/route"
)

const (
	// halfClosed ends a connection of which one direction has ended and the
	// other carries nothing. Without it half-open peers pile up.
	halfClosed = 5 * time.Minute

	// resolvConf names the resolvers to ask where the configuration does not.
	resolvConf = "/etc/resolv.conf"
)

// policy is what the live keys of a configuration decide. It does not change:
// a reload puts another in its place, as a whole.
type policy struct {
	config  *config.Config
	since   time.Time
	servers func() ([]upstream.Server, error)
	guard   *outlet.Guard
	flows   *gateway.Policy
	names   *dnsfake.Policy
	beyond  map[string]*upstream.Resolver // of what else than addresses names have, by the outlet they are behind
	access  *socks.Access
	viewers *socks.Users // of the status page; nil: anyone
}

// newPolicy makes what c decides of parts that stay, of which direct is what a
// way out is built of.
func newPolicy(c *config.Config, direct outlet.DirectConfig, current func() *machine, logger *slog.Logger) (*policy, error) {
	p := &policy{config: c, since: time.Now(), servers: servers(c)}
	// No exception reaches the pools: what is dialled there would come back.
	deny := append([]netip.Prefix{c.Pool.IPv4, c.Pool.IPv6}, c.Direct.Deny...)
	p.guard = outlet.NewGuard(func() []netip.Prefix { return current().denied }, deny, c.Direct.Allow).Behind(direct.NAT64)
	direct.Prefer, direct.Listening = outlet.Prefer(c.Direct.Prefer), c.SOCKS.Relays
	p.flows = &gateway.Policy{
		Rules:          buildRules(c),
		Outlets:        buildOutlets(c, direct, p.guard),
		DialTimeout:    c.Limits.DialTimeout,
		Stream:         relay.Limits{Idle: c.Limits.TCPIdle, HalfClosed: halfClosed},
		UDPIdle:        c.Limits.UDPIdle,
		Flows:          flows(c, current()),
		FlowsPerClient: c.Limits.FlowsPerClient,
	}
	if err := p.flows.Check(); err != nil {
		return nil, err
	}
	var err error
	if p.names, err = dnsfake.NewPolicy(dnsfake.PolicyConfig{
		Bypass: c.DNS.Bypass, Known: known(c), NewNames: c.Limits.NewNames, NoHTTPS: c.DNS.HTTPS == config.HTTPSNoData,
	}); err != nil {
		return nil, err
	}
	users, err := buildUsers(c.SOCKS.Users, logger)
	if err != nil {
		return nil, err
	}
	if c.Status.User != "" {
		p.viewers, err = buildUsers([]config.User{{Name: c.Status.User, Password: c.Status.Password}}, logger)
		if err != nil {
			return nil, err
		}
	}
	p.access = &socks.Access{Clients: c.SOCKS.Clients, Users: users}
	p.beyond, err = buildBeyond(c, p.flows.Outlets) // last, as these have to be closed
	return p, err
}

// way returns where client's connections to name go, as far as DNS has to know.
func (p *policy) way(client netip.Addr, name string) dnsfake.Way {
	if _, ok := p.chain(client, name); ok {
		return dnsfake.ToChain
	}
	some, named := false, false // whether one lets anything through, and one by name does not
	for r := range p.flows.Rules.OfName(client, name) {
		if _, reject := p.flows.Outlets[r.Outlet].(outlet.Reject); !reject {
			some = true
		} else if len(r.Names) > 0 {
			named = true
			if r.Whole() && !some {
				return dnsfake.ToNobody
			}
		}
	}
	if named {
		return dnsfake.ToGateway
	}
	return dnsfake.ToHost
}

// chain returns the first outlet with a SOCKS server that connections of client to
// name may go by. Rules by network do not count: which one the name is in is what
// the chain is to find out.
func (p *policy) chain(client netip.Addr, name string) (outletName string, ok bool) {
	for r := range p.flows.Rules.OfName(client, name) {
		if _, ok := p.flows.Outlets[r.Outlet].(*outlet.Via); ok && len(r.Networks) == 0 {
			return r.Outlet, true
		}
	}
	return "", false
}

// resolver returns who is asked for what name has behind its chain, if anybody.
func (p *policy) resolver(client netip.Addr, name string) dnsfake.Exchanger {
	if by, ok := p.chain(client, name); ok && p.beyond[by] != nil {
		return p.beyond[by]
	}
	return nil
}

// close ends what has been started since.
func (p *policy) close() error { return closeAll(p.beyond) }

func closeAll(resolvers map[string]*upstream.Resolver) error {
	var err error
	for _, r := range resolvers {
		err = errors.Join(err, r.Close())
	}
	return err
}

const (
	// flowMemory is what there has to be for a flow: one at rest holds about a
	// third of it, a busy one its buffers.
	flowMemory = 64 << 10
	// minFlows is ample for the clients of the smallest box.
	minFlows = 1024

	// queryMemory is what there has to be for a query that waits for upstream:
	// ten times what it takes.
	queryMemory = 256 << 10
	// minQueries lets some clients open a page at once.
	minQueries = 128
	// maxQueries is what a resolver bears that answers late.
	maxQueries = 2048
)

// queriesIn returns how many queries may wait for upstream in a process of so
// many bytes of memory.
func queriesIn(memory uint64) int {
	return int(min(max(memory/queryMemory, minQueries), maxQueries))
}

// flowsIn returns how many flows a process of so many bytes of memory and open
// files, 0 for no bound, is trusted with.
func flowsIn(memory, files uint64) int {
	n := max(memory/flowMemory, minFlows)
	if files > 0 {
		n = min(n, (max(files, 2*spareFiles)-spareFiles)/filesPerFlow)
	}
	return int(n)
}

// flows returns how many flows there may be at a time.
func flows(c *config.Config, m *machine) int {
	return cmp.Or(c.Limits.Flows, flowsIn(m.memory, m.files))
}

// servers returns where to find the resolvers to ask.
func servers(c *config.Config) func() ([]upstream.Server, error) {
	if len(c.DNS.Upstreams) == 0 {
		return upstream.ResolvConf(resolvConf, nil)
	}
	var list []upstream.Server
	for _, u := range c.DNS.Upstreams {
		list = append(list, upstream.Server(u))
	}
	return upstream.Static(list...)
}

// beyondMemory bounds the cache of a resolver behind a chain, in octets: names are
// not looked up there, but now and then their mail servers and the like.
const beyondMemory = 1 << 20

// buildBeyond returns what asks the configured resolvers through each chain. Those
// of the host are of this network, and not for the far end to reach; and a chain
// that keeps users apart anywhere is no way for all of them together.
func buildBeyond(c *config.Config, outlets map[string]outlet.Outlet) (map[string]*upstream.Resolver, error) {
	beyond := map[string]*upstream.Resolver{}
	if len(c.DNS.Upstreams) == 0 {
		return beyond, nil
	}
	for _, o := range c.Outlets {
		via, chain := outlets[o.Name].(*outlet.Via)
		if !chain || via.Isolates() {
			continue
		}
		r, err := upstream.New(upstream.Config{
			Servers: servers(c),
			Connect: func(ctx context.Context, server netip.AddrPort) (net.Conn, error) {
				return via.Dial(ctx, "tcp", socks.AddrFromAddrPort(server))
			},
			Memory: beyondMemory,
		})
		if err != nil {
			return nil, errors.Join(err, closeAll(beyond))
		}
		beyond[o.Name] = r
	}
	return beyond, nil
}

// known returns the special-use zones that the upstream servers are asked for.
// Who names servers may mean ones that serve "test" (RFC 6761, section 6.2); the
// host's own are anybody's.
func known(c *config.Config) []string {
	if len(c.DNS.Upstreams) == 0 {
		return nil
	}
	return []string{"test"}
}

// always returns the families in which every name gets a fake address: by the
// policy auto those that the uplink lacks.
func always(policy config.FakePolicy, uplink dnsfake.Families) dnsfake.Families {
	switch policy {
	case config.FakeAlways:
		return dnsfake.Families{IPv4: true, IPv6: true}
	case config.FakeNeeded:
		return dnsfake.Families{}
	}
	return dnsfake.Families{IPv4: !uplink.IPv4, IPv6: !uplink.IPv6}
}

// buildOutlets returns all outlets by name, the default as "". What the
// operator wrote as a SOCKS server is dialled wherever it stands; what clients
// ask for is vetted.
func buildOutlets(c *config.Config, direct outlet.DirectConfig, guard *outlet.Guard) map[string]outlet.Outlet {
	unguarded := outlet.NewDirect(direct)
	direct.Vet = guard.Vet
	guarded := outlet.NewDirect(direct)
	outlets := map[string]outlet.Outlet{
		"":                   guarded,
		config.BuiltInDirect: guarded,
		config.BuiltInReject: outlet.Reject{},
	}
	byName := map[string]config.Outlet{}
	for _, o := range c.Outlets {
		byName[o.Name] = o
	}
	var hop func(name string) outlet.Outlet // recursion ends: config refuses cycles
	hop = func(name string) outlet.Outlet {
		o := byName[name]
		if o.Type != config.OutletSOCKS5 {
			return unguarded
		}
		if outlets[name] == nil { // one for all chains that go over it
			via := outlet.NewVia(hop(o.Over), socks.Client{
				Server: o.Server, Username: o.Username, Password: o.Password, Pipeline: o.Pipeline,
			}, guard.Vet)
			if o.Isolate {
				via = via.Isolated()
			}
			outlets[name] = via
		}
		return outlets[name]
	}
	for name, o := range byName {
		switch o.Type {
		case config.OutletSOCKS5:
			hop(name)
		case config.OutletDirect:
			outlets[name] = guarded
			if o.Prefer != "" && o.Prefer != c.Direct.Prefer {
				own := direct
				own.Prefer = outlet.Prefer(o.Prefer)
				outlets[name] = outlet.NewDirect(own)
			}
		case config.OutletReject:
			outlets[name] = outlet.Reject{}
		default:
			panic(fmt.Sprintf("outlet type %q", o.Type)) // config knows no other
		}
	}
	return outlets
}

// buildUsers returns nil where nobody needs a password.
func buildUsers(users []config.User, logger *slog.Logger) (*socks.Users, error) {
	if len(users) == 0 {
		return nil, nil
	}
	passwords := map[string]socks.Password{}
	for _, u := range users {
		passwords[u.Name] = u.Password
		if u.Password.IsPlain() {
			logger.Warn("a password is plain text; its bcrypt hash, as htpasswd -nB makes it, would do", "user", u.Name)
		}
	}
	return socks.NewUsers(passwords)
}

func buildRules(c *config.Config) route.Rules {
	var rules route.Rules
	for _, r := range c.Rules {
		rules = append(rules, route.Rule{
			Names: r.Names, Networks: r.Networks, Clients: r.Clients,
			Users: r.Users, Ports: r.Ports, Network: r.Proto, Outlet: r.Outlet,
		})
	}
	return rules
}
