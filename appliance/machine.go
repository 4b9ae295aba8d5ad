package appliance

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"sixgate/appliance/config"
	"sixgate/appliance/host"
	"sixgate/dnsfake"
)

// machine is what the gateway must know of the machine it runs on, as one
// survey found it. It does not change.
type machine struct {
	ipv6    bool // it can have IPv6 addresses at all
	uplink  dnsfake.Families
	uplinks []int // interfaces with an IPv6 default route, by index
	lan     []lan
	own     []netip.Addr // its addresses

	// denied is what no client may reach through the gateway, besides what is
	// denied on every machine: the gateway itself, and the served networks,
	// which need no gateway and trust it.
	denied []netip.Prefix

	literals   []netip.Prefix // behind which IPv6 clients write IPv4 addresses for the gateway
	translated bool           // what IPv4 clients send to IPv4 addresses comes to the gateway

	reserved host.Ports // of its servers

	memory uint64 // bytes
	files  uint64 // that the process may have open; 0: nobody knows
}

// lan is one of the interfaces that are served.
type lan struct {
	name      string
	addresses []netip.Prefix // the machine's own there, with the network's length
	families  dnsfake.Families
}

// survey looks at the machine, and changes nothing.
func survey(c *config.Config) (*machine, error) {
	m := &machine{files: fileLimit()}
	var err error
	if m.own, err = host.LocalAddresses(); err != nil {
		return nil, err
	}
	for _, ip := range m.own {
		m.denied = append(m.denied, netip.PrefixFrom(ip, ip.BitLen()))
	}
	if m.reserved, err = host.ReservedPorts(); err != nil {
		return nil, err
	}
	if m.memory, err = memoryIn(os.DirFS("/")); err != nil {
		return nil, err
	}
	if m.ipv6, err = host.IPv6(); err != nil {
		return nil, err
	}
	ipv4, ipv6, err := host.Uplink(append([]string{c.TUN.Name}, c.LAN.Interfaces...)...)
	if err != nil {
		return nil, err
	}
	m.uplink, m.uplinks = dnsfake.Families{IPv4: len(ipv4) > 0, IPv6: len(ipv6) > 0}, ipv6
	for _, name := range c.LAN.Interfaces {
		addresses, err := host.Addresses(name)
		if err != nil {
			return nil, err
		}
		l := lan{name: name, addresses: addresses, families: families(c.LAN.Families, addresses)}
		if l.families == (dnsfake.Families{}) {
			return nil, fmt.Errorf("surveying lan interface %s: it has no address; give it one, or set [lan] families", name)
		}
		m.lan = append(m.lan, l)
		for _, p := range addresses {
			m.denied = append(m.denied, p.Masked())
		}
	}
	m.translate(c)
	m.denied = append(m.denied, m.literals...) // what is dialled there would come back
	return m, nil
}

// families returns what the clients of an interface with these addresses have.
func families(configured config.Families, addresses []netip.Prefix) dnsfake.Families {
	switch configured {
	case config.FamiliesIPv4:
		return dnsfake.Families{IPv4: true}
	case config.FamiliesIPv6:
		return dnsfake.Families{IPv6: true}
	case config.FamiliesDual:
		return dnsfake.Families{IPv4: true, IPv6: true}
	}
	var f dnsfake.Families
	for _, p := range addresses {
		switch ip := p.Addr(); {
		case ip.Is4():
			f.IPv4 = true
		case !ip.IsLinkLocalUnicast():
			f.IPv6 = true
		}
	}
	return f
}

// clientFamilies returns the families of the network that client is in. Those
// behind a further router have what any served network has; the machine itself
// has what it can have.
func (m *machine) clientFamilies(client netip.Addr) dnsfake.Families {
	var any dnsfake.Families
	for _, l := range m.lan {
		for _, p := range l.addresses {
			if p.Contains(client) && !client.IsLinkLocalUnicast() {
				return l.families
			}
		}
		if client.Zone() == l.name {
			return l.families
		}
		any.IPv4 = any.IPv4 || l.families.IPv4
		any.IPv6 = any.IPv6 || l.families.IPv6
	}
	if client.IsLoopback() || any == (dnsfake.Families{}) {
		return dnsfake.Families{IPv4: true, IPv6: m.ipv6}
	}
	return any
}

// state returns what the gateway wants of the machine's network.
func (m *machine) state(c *config.Config) host.State {
	s := host.State{
		Link:      c.TUN.Name,
		MTU:       c.TUN.MTU,
		Addresses: firsts(append(m.pools(c), m.literals...)),
		Pools:     m.pools(c),
		Literals:  m.literals,
		LAN:       c.LAN.Interfaces,
		Private:   m.listenLAN(c),
		Mark:      c.Direct.Mark,
		Default4:  m.translated,
	}
	for _, l := range m.lan {
		s.Forward4 = s.Forward4 || l.families.IPv4
		s.Forward6 = s.Forward6 || l.families.IPv6
	}
	s.Masquerade = s.Forward4
	s.RefuseDoT = c.DNS.RefuseDoT
	if c.Advertise.Router {
		s.Sole = c.Advertise.Interfaces
	}
	if c.DNS.Capture {
		for _, l := range c.DNS.Listen {
			if !l.Addr().IsValid() {
				s.CaptureDNS = l.Port()
			}
		}
	}
	return s
}

// pools returns the pools of the families that the machine can have.
func (m *machine) pools(c *config.Config) []netip.Prefix {
	if !m.ipv6 {
		return []netip.Prefix{c.Pool.IPv4}
	}
	return []netip.Prefix{c.Pool.IPv4, c.Pool.IPv6}
}

// gatewayAddresses returns the gateway's own address in each pool.
func (m *machine) gatewayAddresses(c *config.Config) []netip.Prefix { return firsts(m.pools(c)) }

// firsts returns the first address after the network's of each prefix, with the
// prefix's length.
func firsts(prefixes []netip.Prefix) []netip.Prefix {
	var own []netip.Prefix
	for _, p := range prefixes {
		own = append(own, netip.PrefixFrom(p.Addr().Next(), p.Bits()))
	}
	return own
}

// router returns the address that speaks for routers that have none of IPv4.
// It is none of the machine's, which takes no packets that come from itself.
func router(c *config.Config) netip.Addr { return c.Pool.IPv4.Addr().Next().Next() }

func familyNames(f dnsfake.Families) string {
	switch {
	case f.IPv4 && f.IPv6:
		return "IPv4 and IPv6"
	case f.IPv4:
		return "IPv4"
	case f.IPv6:
		return "IPv6"
	}
	return "no family"
}

// String names the served networks. m may be nil.
func (m *machine) String() string {
	if m == nil || len(m.lan) == 0 {
		return "loopback only"
	}
	var names []string
	for _, l := range m.lan {
		names = append(names, l.name+" with "+familyNames(l.families)+" clients")
	}
	return strings.Join(names, ", ")
}
