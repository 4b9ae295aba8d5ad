package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/dns/dnsmessage"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
	"sixgate/socks"
	"sixgate/socks/gateway"
	"sixgate/socks/nat64"
	"sixgate/socks/route"
)

// Explanation is what the gateway would do with a name or an address, and why.
type Explanation struct {
	Steps []string `json:"steps"` // sentences for people, in the order in which things happen
}

func (e *Explanation) say(format string, args ...any) {
	e.Steps = append(e.Steps, fmt.Sprintf(format, args...))
}

// Explain follows a TCP connection of client to target, a name or an address,
// without making it. It asks the gateway's own DNS as client would, which may
// map a name that was not mapped before.
func (a *Appliance) Explain(ctx context.Context, target string, client netip.Addr) (*Explanation, error) {
	const port = 443 // rules may look at it; most of what people ask for is there
	if strings.HasPrefix(target, "*.") {
		return nil, fmt.Errorf("%q is a pattern, not one name: such as www%s", target, target[1:])
	}
	dest, err := socks.ParseHost(target, port)
	if err != nil && strings.ContainsFunc(target, func(r rune) bool { return r > unicode.MaxASCII }) {
		err = fmt.Errorf("%w (write other scripts as xn--)", err)
	}
	if err != nil {
		return nil, err
	}
	e := &Explanation{}
	defer func() { a.explainPast(e, dest, client) }()
	families := a.parts.machine.Load().clientFamilies(client)
	e.say("The client %s is in a network with %s.", client, familyNames(families))
	if dest.IP.IsValid() {
		dest, err = a.explainAddress(e, dest, client)
		if err != nil {
			return e, nil // said already
		}
	} else if !a.explainDNS(ctx, e, dest.Name, client) {
		return e, nil
	}
	a.explainWay(ctx, e, dest, client)
	return e, nil
}

// explainAddress returns what dest stands for. The error has been said.
func (a *Appliance) explainAddress(e *Explanation, dest socks.Addr, client netip.Addr) (socks.Addr, error) {
	if ip, ok := a.parts.machine.Load().literal(a.config(), client, dest.IP); ok {
		e.say("%s comes to the gateway, which takes it as %s.", dest.IP, ip)
		return socks.Addr{IP: ip, Port: dest.Port}, nil
	}
	if slices.Contains(a.parts.machine.Load().own, dest.IP) {
		e.say("%s is an address of this machine: clients reach it without the gateway; a SOCKS client's connection goes on as follows.", dest.IP)
		return dest, nil
	}
	if !a.parts.table.Contains(dest.IP) {
		e.say("%s is a real address: the kernel forwards it for LAN clients; a SOCKS client's connection goes on as follows.", dest.IP)
		return dest, nil
	}
	name, ok := a.parts.table.NameOf(dest.IP)
	if !ok {
		e.say("%s is in a pool and stands for nothing: a connection is refused at once. The client has an address from long ago; it should ask DNS again.", dest.IP)
		return dest, dnsfake.ErrUnknown
	}
	e.say("%s stands for %s.", dest.IP, name)
	return socks.ParseHost(name, dest.Port)
}

// explainDNS says how our DNS answers client, and reports whether there is more to
// say: it has an address, or is kept from one by a rule.
func (a *Appliance) explainDNS(ctx context.Context, e *Explanation, name string, client netip.Addr) bool {
	policy := a.parts.policy.Load()
	bypassed := policy.names.Bypasses(name)
	rejected := !bypassed && policy.way(client, name) == dnsfake.ToNobody
	if bypassed {
		e.say("The name is one of those that always get the real answer ([dns] bypass, or a test of being online).")
	}
	found := false
	for _, qtype := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		what := strings.TrimPrefix(qtype.String(), "Type")
		rcode, addrs, err := a.askDNS(ctx, name, qtype, client)
		switch {
		case err != nil:
			e.say("Our DNS cannot be asked for %s: %v.", what, err)
		case rcode == dnsmessage.RCodeNameError:
			if zone := policy.names.SpecialZone(name); rejected {
				e.say("Our DNS answers %s with NXDOMAIN: a rule rejects all connections to the name.", what)
			} else if zone != "" {
				e.say("Our DNS answers %s with NXDOMAIN: names in %q are this network's own, nobody else is asked, and this one is in no file of [dns] hosts and leases.", what, zone)
			} else {
				e.say("Our DNS answers %s with NXDOMAIN: the upstream resolvers say that there is no such name.", what)
			}
		case rcode == dnsmessage.RCodeServerFailure:
			e.say("Our DNS answers %s with SERVFAIL: no upstream resolver gave an answer that can be trusted.", what)
			a.explainResolvers(e)
		case rcode != dnsmessage.RCodeSuccess:
			e.say("Our DNS answers %s with %s.", what, strings.TrimPrefix(rcode.String(), "RCode"))
		case len(addrs) == 0:
			e.say("Our DNS answers %s with no data: the name has no such address, or the client could not use it.", what)
		}
		for _, ip := range addrs {
			found = true
			if a.parts.table.Contains(ip) {
				e.say("Our DNS answers %s with the fake %s, so that the connection comes to the gateway.", what, ip)
			} else {
				e.say("Our DNS answers %s with the real %s: the client connects without the gateway. A SOCKS client's connection goes on as follows.", what, ip)
			}
		}
	}
	if rejected {
		return true
	}
	if !found {
		a.explainDenied(ctx, e, name)
	}
	return found
}

// explainDenied says which addresses of a name are none that may be dialled.
func (a *Appliance) explainDenied(ctx context.Context, e *Explanation, name string) {
	policy := a.parts.policy.Load()
	if policy.names.SpecialZone(name) != "" {
		return
	}
	ips, err := a.parts.names.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return // the answers have told
	}
	for _, ip := range ips {
		if err := policy.guard.Vet(ip); err != nil {
			e.say("The upstream resolvers know %s, which the gateway does not dial: %v ([direct] allow makes exceptions).", ip, err)
		}
	}
}

// explainResolvers says which resolvers fail.
func (a *Appliance) explainResolvers(e *Explanation) {
	for _, h := range a.parts.resolver.Health() {
		if h.Err != nil {
			e.say("The resolver %s failed when it was last asked: %v.", h.Server, h.Err)
		}
	}
}

// explainPast says what client has lately failed to have of dest.
func (a *Appliance) explainPast(e *Explanation, dest socks.Addr, client netip.Addr) {
	for _, c := range a.parts.sight.Clients(nil) {
		if c.Addr != client {
			continue
		}
		for _, f := range c.Failures {
			_, of, _ := strings.Cut(f.What, " ")
			if of == dest.Host() || strings.HasPrefix(of, dest.Host()+" ") || strings.HasPrefix(of, dest.Host()+":") {
				e.say("It has failed for this client: %s.", f.Tell(time.Now()))
			}
		}
	}
}

// askDNS asks our own DNS as client.
func (a *Appliance) askDNS(ctx context.Context, name string, qtype dnsmessage.Type, client netip.Addr) (dnsmessage.RCode, []netip.Addr, error) {
	qname, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return 0, nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: qname, Type: qtype, Class: dnsmessage.ClassINET}},
	}
	query, err := m.Pack()
	if err != nil {
		return 0, nil, err
	}
	reply := a.parts.dns.Explain(ctx, query, client)
	if reply == nil {
		return 0, nil, errors.New("it does not serve this client")
	}
	if err := m.Unpack(reply); err != nil {
		return 0, nil, err
	}
	var addrs []netip.Addr
	for _, rr := range m.Answers {
		switch body := rr.Body.(type) {
		case *dnsmessage.AResource:
			addrs = append(addrs, netip.AddrFrom4(body.A))
		case *dnsmessage.AAAAResource:
			addrs = append(addrs, netip.AddrFrom16(body.AAAA))
		}
	}
	return m.RCode, addrs, nil
}

// explainWay says which way out a connection to dest takes, and where it ends.
func (a *Appliance) explainWay(ctx context.Context, e *Explanation, dest socks.Addr, client netip.Addr) {
	var addrs []netip.Addr
	var failed error
	look := func() []netip.Addr {
		if dest.IP.IsValid() {
			addrs = []netip.Addr{dest.IP}
		} else if addrs == nil && failed == nil {
			addrs, failed = a.parts.names.LookupNetIP(ctx, "ip", dest.Name)
		}
		return addrs
	}
	flow := route.Flow{Network: "tcp", Client: client, Dest: dest}
	name := a.pickRule(e, flow, func() []netip.Addr { return a.parts.policy.Load().flows.Unrejected(flow, look()) })
	if o, ok := a.outlet(name); ok && o.Type != config.OutletDirect {
		if o.Type == config.OutletReject {
			e.say("That outlet refuses every connection.")
		} else {
			e.say("That outlet is the SOCKS server %s, to which %s travels; what it resolves to is decided there.", o.Server, dest.Host())
			a.explainHop(e, name)
		}
		return
	}
	if look(); failed != nil {
		e.say("The gateway cannot resolve it: %v.", failed)
		return
	}
	for _, ip := range addrs {
		if err := a.parts.policy.Load().guard.Vet(ip); err != nil {
			e.say("%s is not dialled: %v.", ip, err)
			continue
		}
		if err := a.parts.policy.Load().flows.Permits(flow, ip, name); err != nil {
			e.say("%s is not dialled: %v.", ip, err)
			continue
		}
		translator, how := a.parts.translator.known()
		far := nat64.Through(translator, ip)
		if far != ip {
			e.say("The uplink has no IPv4: %s is dialled as %s, through the NAT64 of the network: %s.", ip, far, how)
		}
		e.say("%s may be dialled: a connection of type %s.", ip, gateway.TypeOf(client, far))
		if uplink := a.parts.machine.Load().uplink; far.Is4() && !uplink.IPv4 || far.Is6() && !uplink.IPv6 {
			e.say("But the uplink has no default route for the family of %s: unless another route leads there, it is unreachable.", ip)
		}
	}
}

// explainHop says how the SOCKS server of an outlet does.
func (a *Appliance) explainHop(e *Explanation, outlet string) {
	for _, h := range a.hops() {
		if h.Outlet == outlet {
			e.say("That server is %s.", h.State())
		}
	}
}

// pickRule says which rule decides on f, and returns its outlet.
func (a *Appliance) pickRule(e *Explanation, f route.Flow, look func() []netip.Addr) string {
	rules := a.parts.policy.Load().flows.Rules
	for i := range rules {
		if name := rules[i:i+1].Pick(f, look); name != "" {
			e.say("Rule %d of %d sends it (TCP to port %d) to the outlet %q.", i+1, len(rules), f.Dest.Port, name)
			return name
		}
	}
	e.say("None of %d rules matches (TCP to port %d): the gateway connects directly.", len(rules), f.Dest.Port)
	return ""
}

// outlet returns what the configuration says of an outlet. It is false for the
// default one.
func (a *Appliance) outlet(name string) (config.Outlet, bool) {
	if name == config.BuiltInReject {
		return config.Outlet{Name: name, Type: config.OutletReject}, true
	}
	for _, o := range a.config().Outlets {
		if o.Name == name {
			return o, true
		}
	}
	return config.Outlet{}, false
}
