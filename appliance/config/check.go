package config

import (
	"net/netip"
	"slices"

	"sixgate/socks/nat64"
)

// check complains about values that are right by themselves and wrong
// together. A value that was wrong by itself is zero or the default here, and
// a second complaint about it is not heard.
func (c *Config) check(root *table) {
	c.checkPool(root.table("pool"))
	c.checkDNS(root.table("dns"))
	c.checkSOCKS(root.table("socks"))
	c.checkOutlets(root.tables("outlet"))
	c.checkRules(root.tables("rule"))
	c.checkStatus(root.table("status"))
	c.checkAdvertise(root.table("advertise"))
	if p := c.Direct.NAT64.Prefix; p.IsValid() && p.Overlaps(c.Pool.IPv6) {
		root.table("direct").complain("nat64", "%s overlaps the pool %s (name the prefix of the network's NAT64)", p, c.Pool.IPv6)
	}
	if i := slices.Index(c.LAN.Interfaces, c.TUN.Name); i >= 0 {
		root.table("lan").complainElement("interfaces", i, "%q is the TUN device (set another tun.name)", c.TUN.Name)
	}
}

func (c *Config) checkAdvertise(advertise *table) {
	for i, name := range c.Advertise.Interfaces {
		if name != "" && !slices.Contains(c.LAN.Interfaces, name) {
			advertise.complainElement("interfaces", i, "%q is none of lan.interfaces (name it there, too)", name)
		}
	}
	for name, wanted := range map[string]bool{"router": c.Advertise.Router, "prefixes": c.Advertise.Prefixes} {
		if wanted && len(c.Advertise.Interfaces) == 0 {
			advertise.complain(name, "nobody is told (set advertise.interfaces, or delete it)")
		}
	}
	if c.LAN.Families == FamiliesIPv4 && len(c.Advertise.Interfaces) > 0 {
		advertise.complain("interfaces", "lan.families says that the clients have no IPv6 (change one of both)")
	}
}

func (c *Config) checkPool(pool *table) {
	v4, v6 := c.Pool.IPv4, c.Pool.IPv6
	switch {
	case !v4.Addr().Is4():
		pool.complain("ipv4", "%s is no IPv4 prefix", v4)
	case v4.Bits() > 24:
		pool.complain("ipv4", "%s is too small (/24 or shorter)", v4)
	}
	switch {
	case !v6.Addr().Is6():
		pool.complain("ipv6", "%s is no IPv6 prefix", v6)
	case v6.Bits() > 112:
		pool.complain("ipv6", "%s is too small (/112 or shorter)", v6)
	}
	for _, taken := range notForPools() {
		if v4.Overlaps(taken) {
			pool.complain("ipv4", "%s overlaps %s, which hosts treat specially (the default is 198.18.0.0/15)", v4, taken)
		}
		if v6.Overlaps(taken) {
			pool.complain("ipv6", "%s overlaps %s, which hosts treat specially (the default is 2001:2::/48)", v6, taken)
		}
	}
	// A page loaded over one family must be able to load the rest of itself
	// over the other: browsers keep public pages from local addresses
	// (sing-box#4473).
	if pool.sound("ipv4") && pool.sound("ipv6") && isLocal(v4) != isLocal(v6) {
		name := "ipv6"
		if _, given := pool.take(name); !given {
			name = "ipv4"
		}
		pool.complain(name, "of %s and %s one is public and one local to browsers (take both of one kind)", v4, v6)
	}
}

// notForPools are the prefixes that no host sends to a gateway, or that mean
// an address of the other family.
func notForPools() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("224.0.0.0/4"),
		netip.MustParsePrefix("240.0.0.0/4"), // refused by Windows (v2ray-core#779)
		netip.MustParsePrefix("::/96"),
		netip.MustParsePrefix("::ffff:0:0/96"),
		nat64.WellKnown(),
		nat64.Local(),
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("ff00::/8"),
	}
}

// isLocal reports whether browsers with Local Network Access count p among
// the local networks (WICG/local-network-access#56).
func isLocal(p netip.Prefix) bool {
	return p.Addr().IsPrivate() ||
		p.Overlaps(netip.MustParsePrefix("100.64.0.0/10")) ||
		p.Overlaps(netip.MustParsePrefix("2001:db8::/32"))
}

func (c *Config) checkDNS(dns *table) {
	for i, listen := range c.DNS.Listen {
		if !listen.Addr().IsValid() && listen.Port() != 0 && len(c.LAN.Interfaces) == 0 {
			dns.complainElement("listen", i, `":%d" is on the lan interfaces and there are none (set lan.interfaces, or give an address)`, listen.Port())
		}
	}
	for i, up := range c.DNS.Upstreams {
		if up.Addr.IsValid() && slices.Contains(c.DNS.Listen, up.Addr) {
			dns.complainElement("upstreams", i, "%s is this gateway itself (name another resolver)", up.Addr)
		}
	}
}

func (c *Config) checkSOCKS(socks *table) {
	for i, listen := range c.SOCKS.Listen {
		switch {
		case listen == netip.AddrPort{}:
		case !listen.Addr().IsValid():
			socks.complainElement("listen", i, `":%d" has no address (write it like 192.0.2.1:%[1]d)`, listen.Port())
		case slices.Contains(c.DNS.Listen, listen):
			socks.complainElement("listen", i, "%s is taken by dns.listen (take another port)", listen)
		case !listen.Addr().IsLoopback() && len(c.SOCKS.Clients) == 0 && len(c.SOCKS.Users) == 0:
			socks.complainElement("listen", i, "%s is open to everyone (say in socks.clients or socks.user who may use it)", listen)
		}
	}
	for i, ip := range c.SOCKS.Relays.External {
		same := func(other netip.Addr) bool { return other.IsValid() && other.Is4() == ip.Is4() }
		if ip.IsValid() && slices.IndexFunc(c.SOCKS.Relays.External, same) < i {
			socks.complainElement("external", i, "%s is a second address of its family (give one of each)", ip)
		}
	}
	for i, t := range socks.tables("user") {
		name := c.SOCKS.Users[i].Name
		if slices.IndexFunc(c.SOCKS.Users, func(u User) bool { return u.Name == name }) < i && name != "" {
			t.complain("name", "there is a user %q already (take another name)", name)
		}
	}
}

func (c *Config) checkStatus(status *table) {
	_, password := status.take("password")
	switch {
	case c.Status.User == "" && password:
		status.complain("user", "missing (the password is of nobody)")
	case c.Status.User != "" && !password:
		status.complain("password", "missing (a bcrypt hash, as htpasswd -nB makes it, or plain text)")
	case c.Status.User == "" && c.Status.Listen.IsValid() && !c.Status.Listen.Addr().IsLoopback():
		status.complain("listen", "%s can be read by everyone (set user and password, or take a loopback address)", c.Status.Listen)
	}
}

func (c *Config) checkOutlets(tables []*table) {
	names, over := c.outletNames(), c.chains()
	for i, o := range c.Outlets {
		t := tables[i]
		if first := slices.Index(names, o.Name); o.Name != "" && first < i+2 {
			t.complain("name", "there is an outlet %q already (take another name)", o.Name)
		}
		switch {
		case o.Type == OutletSOCKS5 && !o.Server.IsValid():
			t.complain("server", "missing (host:port of the SOCKS server)")
		case o.Type != OutletSOCKS5 && o.Type != "" && o.Server.IsValid():
			t.complain("server", "a %s outlet has no server (delete it, or set type to socks5)", o.Type)
		}
		switch {
		case o.Type != OutletSOCKS5 && o.Type != "" && o.Username != "":
			t.complain("username", "a %s outlet has no server (delete it, or set type to socks5)", o.Type)
		case o.Username == "" && o.Password != "":
			t.complain("username", "missing (the password is of nobody)")
		}
		if o.Pipeline && o.Type != OutletSOCKS5 && o.Type != "" {
			t.complain("pipeline", "a %s outlet has no server (delete it, or set type to socks5)", o.Type)
		}
		switch {
		case o.Isolate && o.Type != OutletSOCKS5 && o.Type != "":
			t.complain("isolate", "a %s outlet has no server (delete it, or set type to socks5)", o.Type)
		case o.Isolate && o.Username != "":
			t.complain("isolate", "each client is a user of its own there (delete it, or username)")
		}
		if o.Prefer != "" && o.Type != OutletDirect && o.Type != "" {
			t.complain("prefer", "a %s outlet chooses no addresses (delete it, or set type to direct)", o.Type)
		}
		if o.Over == "" && o.Server.IP.IsValid() && slices.Contains(c.SOCKS.Listen, o.Server.AddrPort()) {
			t.complain("server", "%s is this gateway itself (name another server)", o.Server)
		}
		switch {
		case o.Over == "":
		case o.Type != OutletSOCKS5 && o.Type != "":
			t.complain("over", "a %s outlet goes over no other (delete it, or set type to socks5)", o.Type)
		case !slices.Contains(names, o.Over):
			t.complain("over", "unknown outlet %q %s", o.Over, didYouMean(o.Over, names))
		case firstOfCycle(over, i):
			t.complain("over", "%q is dialled through itself (let one outlet of the chain go without over)", o.Name)
		}
	}
}

// outletNames returns what rules may name: the two that are built in, then
// those of c.Outlets in order.
func (c *Config) outletNames() []string {
	names := []string{BuiltInDirect, BuiltInReject}
	for _, o := range c.Outlets {
		names = append(names, o.Name)
	}
	return names
}

// chains returns for each of c.Outlets the index of the one that it goes over,
// or a negative number.
func (c *Config) chains() []int {
	over := make([]int, len(c.Outlets))
	for i, o := range c.Outlets {
		over[i] = slices.IndexFunc(c.Outlets, func(hop Outlet) bool {
			return o.Over != "" && hop.Name == o.Over
		})
	}
	return over
}

// firstOfCycle reports whether the chain of outlet i leads back to it, and
// through no outlet before it.
func firstOfCycle(over []int, i int) bool {
	at := over[i]
	for range over {
		if at <= i {
			return at == i
		}
		at = over[at]
	}
	return false
}

func (c *Config) checkRules(tables []*table) {
	names := c.outletNames()
	for i, r := range c.Rules {
		if !slices.Contains(names, r.Outlet) {
			tables[i].complain("outlet", "unknown outlet %q %s", r.Outlet, didYouMean(r.Outlet, names))
		}
	}
}
