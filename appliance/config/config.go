package config

import (
	"log/slog"
	"math"
	"net/netip"
	"time"

	"sixgate/socks"
)

// Config is a whole configuration. Load, Parse and Default return it complete
// and valid; nobody else has to check or parse what it holds.
type Config struct {
	File string // where it was read from; empty for the built-in defaults
	LAN  LAN
	TUN  TUN

	Advertise Advertise

	Pool    Pool
	DNS     DNS
	Direct  Direct
	SOCKS   SOCKS
	Outlets []Outlet // names are unique, and none is BuiltInDirect or BuiltInReject
	Rules   []Rule   // the first that matches wins; none: BuiltInDirect
	Limits  Limits
	Status  Status
	Control Control
	Log     Log
}

// The outlets that every gateway has, and that rules may name.
const (
	BuiltInDirect = "direct"
	BuiltInReject = "reject"
)

// LAN is the side of the clients.
type LAN struct {
	Interfaces []string // where DNS, SOCKS and capture serve; empty: loopback only
	Families   Families
}

// Advertise is what IPv6 hosts of the LAN are told by router advertisements
// (RFC 4861), besides of the gateway itself.
type Advertise struct {
	Interfaces []string // of LAN.Interfaces; empty: they are told nothing
	Router     bool     // that this machine is their default router
	Prefixes   bool     // that they make addresses from those of this machine
}

// Families are the address families that the clients have.
type Families string

// What [lan] families may say.
const (
	FamiliesAuto Families = "auto" // found out from the lan interfaces
	FamiliesIPv4 Families = "ipv4"
	FamiliesIPv6 Families = "ipv6"
	FamiliesDual Families = "dual"
)

// TUN is the device that catches the traffic to fake addresses.
type TUN struct {
	Name string
	MTU  int // octets of IP packet, at least the 1280 of RFC 8200, section 5

	Handover Handover
}

// Handover says whether the kernel carries the TCP connections of the LAN,
// once the gateway has dialled and accepted them.
type Handover string

// What [tun] handover may say.
const (
	HandoverOff  Handover = "off"
	HandoverAuto Handover = "auto" // where the host can
	HandoverOn   Handover = "on"   // or the gateway does not start
)

// Pool holds the fake addresses. Both prefixes are masked.
type Pool struct {
	IPv4  netip.Prefix // IPv4, /24 or shorter
	IPv6  netip.Prefix // IPv6, /112 or shorter
	State string       // file that keeps what they stand for; empty: in memory
}

// DNS is the name half of the gateway.
type DNS struct {
	// Listen is where queries are taken over UDP and TCP; empty: nowhere. An
	// invalid Addr stands for the addresses of the lan interfaces, and then
	// there is at least one such interface.
	Listen    []netip.AddrPort
	Upstreams []Upstream // empty: those of the host's resolv.conf
	Fake      FakePolicy
	Bypass    []string // patterns as in Rule.Names, and prefixes, that get the real answer
	HTTPS     HTTPSPolicy
	Hosts     []string // files of the form of hosts(5), with names of the LAN
	Leases    []string // files of leases that dnsmasq writes
	Capture   bool     // answer queries to any resolver
	RefuseDoT bool     // refuse DNS over TLS and QUIC to others
}

// Upstream is a resolver to ask.
type Upstream struct {
	Network string // "udp", with TCP for what is truncated, "tcp", "tls" or "https"
	Addr    netip.AddrPort
	Name    string // that the certificate of "tls" or "https" must be for; empty: Addr's address
	Path    string // of an "https" URI, with its query; else empty
}

// FakePolicy says which names get a fake address.
type FakePolicy string

// HTTPSPolicy says what becomes of HTTPS and SVCB records (RFC 9460).
type HTTPSPolicy string

// What [dns] https may say.
const (
	HTTPSForward HTTPSPolicy = "forward" // without their addresses
	HTTPSNoData  HTTPSPolicy = "nodata"
)

// What [dns] fake may say.
const (
	FakeAuto   FakePolicy = "auto"   // FakeNeeded where the uplink has the client's family, else FakeAlways
	FakeNeeded FakePolicy = "needed" // names without an address of the client's family, or with a rule
	FakeAlways FakePolicy = "always"
)

// Filtering says from whom a client's UDP port gets datagrams (RFC 4787, section
// 5).
type Filtering string

// What [direct] filtering may say.
const (
	FilterNobody  Filtering = "endpoint-independent" // from anyone, once it has sent any
	FilterAddress Filtering = "address-dependent"    // from the hosts that it has sent any
)

// Direct is how the gateway itself reaches the world.
type Direct struct {
	Prefer    Prefer
	Filtering Filtering
	Mark      uint32         // SO_MARK of every socket the gateway opens; 0: none
	Interface string         // device that outgoing sockets are bound to; empty: none
	Deny      []netip.Prefix // never dialled, besides the built-in list
	Allow     []netip.Prefix // exceptions to the built-in list
	NAT64     NAT64
}

// NAT64 is a translator on the way to the world, by which IPv4 addresses are
// dialled while the uplink has IPv6 only.
type NAT64 struct {
	Prefix netip.Prefix // of RFC 6052, section 2.2; invalid: none is known
	Find   bool         // ask the network for the prefix (RFC 8781, RFC 7050)
}

// Prefer is the family that is dialled first, or alone.
type Prefer string

// What [direct] prefer may say.
const (
	PreferIPv6 Prefer = "ipv6"
	PreferIPv4 Prefer = "ipv4"
	OnlyIPv6   Prefer = "ipv6-only"
	OnlyIPv4   Prefer = "ipv4-only"
)

// SOCKS is the SOCKS server.
type SOCKS struct {
	Listen  []netip.AddrPort // TCP; empty: nowhere
	Relays  socks.Listening  // UDP, and TCP of BIND
	Clients []netip.Prefix   // sources that may use it, of either family; empty: any
	Users   []User           // who may use it, by password; empty: anybody
}

// User is who may use the SOCKS server.
type User struct {
	Name     string // at most 255 octets, unique
	Password socks.Password
}

// Outlet is a way out that rules name.
type Outlet struct {
	Name     string
	Type     OutletType
	Server   socks.Addr // the SOCKS server of an OutletSOCKS5; else the zero Addr
	Username string     // for Server; empty: none
	Password string     // for Server
	Over     string     // outlet that an OutletSOCKS5 dials Server through; empty: direct
	Pipeline bool       // say all to Server at once
	Isolate  bool       // let Server tell clients apart; then there is no Username
	Prefer   Prefer     // of an OutletDirect; "": that of Direct
}

// OutletType is the kind of an Outlet.
type OutletType string

// What [[outlet]] type may say.
const (
	OutletSOCKS5 OutletType = "socks5"
	OutletDirect OutletType = "direct"
	OutletReject OutletType = "reject"
)

// Rule sends flows to an outlet. A flow matches if it matches in every field
// that is not empty, and in a list if it matches one of its elements.
type Rule struct {
	Names    []string       // FQDN in lower case without trailing dot; "*.suffix" is every name below suffix
	Networks []netip.Prefix // of the destination, either family
	Clients  []netip.Prefix // of the source, either family
	Users    []string       // of the SOCKS server
	Ports    []uint16       // of the destination
	Proto    string         // "tcp", "udp", "icmp", or empty for all
	Outlet   string         // name of one of Config.Outlets, BuiltInDirect or BuiltInReject
}

// Limits bound what clients can make the gateway hold.
type Limits struct {
	Flows          int // at a time; 0: from memory
	FlowsPerClient int // at a time, of one source address or user; 0: two thirds of Flows
	NewNames       int // new fake addresses for one client a second; 0: any number
	DialTimeout    time.Duration
	TCPIdle        time.Duration
	UDPIdle        time.Duration
}

// Status is what may be read of the gateway at an address.
type Status struct {
	Listen   netip.AddrPort // TCP; invalid: nowhere
	User     string         // whom it is shown to; empty: anyone, and Listen is on loopback
	Password socks.Password
}

// Control is where root asks the gateway.
type Control struct {
	Socket string // path; empty: nowhere
}

// Log is what the gateway writes to stderr.
type Log struct {
	Level slog.Level
	JSON  bool // else text
}

// Default returns the configuration of a gateway without configuration file.
func Default() *Config {
	return &Config{
		LAN: LAN{Families: FamiliesAuto},
		TUN: TUN{Name: "sixgate0", MTU: 1500, Handover: HandoverOff},
		// The benchmarking prefixes of RFC 2544 and RFC 5180.
		Pool: Pool{
			IPv4:  netip.MustParsePrefix("198.18.0.0/15"),
			IPv6:  netip.MustParsePrefix("2001:2::/48"),
			State: "/var/lib/sixgate/names",
		},
		DNS: DNS{
			Listen:  []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5364")},
			Fake:    FakeAuto,
			HTTPS:   HTTPSForward,
			Capture: true,
		},
		Direct: Direct{Prefer: PreferIPv6, Filtering: FilterNobody, Mark: 0x5136},
		SOCKS: SOCKS{Listen: []netip.AddrPort{
			netip.MustParseAddrPort("127.0.0.1:1080"),
			netip.MustParseAddrPort("[::1]:1080"),
		}},
		Limits: Limits{
			NewNames:    50,
			DialTimeout: 10 * time.Second,
			TCPIdle:     2*time.Hour + 4*time.Minute, // RFC 5382, section 5
			UDPIdle:     5 * time.Minute,             // RFC 4787, section 4.3
		},
		Status:  Status{Listen: netip.MustParseAddrPort("127.0.0.1:8064")},
		Control: Control{Socket: "/run/sixgate/control.sock"},
		Log:     Log{Level: slog.LevelInfo},
	}
}

// read sets what the document has keys for. Every key that works is here, those
// that take a restart in a table atStart; those that are only known are in
// notYet.
func (c *Config) read(root *table) {
	lan := root.table("lan").atStart()
	list(lan, "interfaces", &c.LAN.Interfaces, interfaceName)
	key(lan, "families", &c.LAN.Families, oneOf(FamiliesAuto, FamiliesIPv4, FamiliesIPv6, FamiliesDual))

	advertise := root.table("advertise").atStart()
	list(advertise, "interfaces", &c.Advertise.Interfaces, interfaceName)
	key(advertise, "router", &c.Advertise.Router, as[bool])
	key(advertise, "prefixes", &c.Advertise.Prefixes, as[bool])

	tun := root.table("tun").atStart()
	key(tun, "name", &c.TUN.Name, interfaceName)
	key(tun, "mtu", &c.TUN.MTU, between[int](1280, math.MaxUint16))
	key(tun, "handover", &c.TUN.Handover, oneOf(HandoverOff, HandoverAuto, HandoverOn))

	pool := root.table("pool").atStart()
	key(pool, "ipv4", &c.Pool.IPv4, prefix)
	key(pool, "ipv6", &c.Pool.IPv6, prefix)
	key(pool, "state", &c.Pool.State, orEmpty(absolutePath))

	dns := root.table("dns")
	list(dns.atStart(), "listen", &c.DNS.Listen, listenAddr)
	list(dns, "upstreams", &c.DNS.Upstreams, upstream)
	key(dns, "fake", &c.DNS.Fake, oneOf(FakeNeeded, FakeAlways, FakeAuto))
	list(dns, "bypass", &c.DNS.Bypass, patternOrPrefix)
	key(dns, "https", &c.DNS.HTTPS, oneOf(HTTPSForward, HTTPSNoData))
	list(dns, "hosts", &c.DNS.Hosts, absolutePath)
	list(dns, "leases", &c.DNS.Leases, absolutePath)
	key(dns.atStart(), "capture", &c.DNS.Capture, as[bool])
	key(dns.atStart(), "refuse-dot", &c.DNS.RefuseDoT, as[bool])

	direct := root.table("direct")
	key(direct, "prefer", &c.Direct.Prefer, oneOf(PreferIPv6, PreferIPv4, OnlyIPv6, OnlyIPv4))
	key(direct, "filtering", &c.Direct.Filtering, oneOf(FilterNobody, FilterAddress))
	key(direct.atStart(), "mark", &c.Direct.Mark, between[uint32](0, math.MaxUint32))
	key(direct.atStart(), "interface", &c.Direct.Interface, orEmpty(interfaceName))
	list(direct, "deny", &c.Direct.Deny, prefix)
	list(direct, "allow", &c.Direct.Allow, prefix)
	key(direct.atStart(), "nat64", &c.Direct.NAT64, orEmpty(translator))

	proxy := root.table("socks")
	list(proxy.atStart(), "listen", &c.SOCKS.Listen, listenAddr)
	list(proxy.atStart(), "external", &c.SOCKS.Relays.External, external)
	key(proxy.atStart(), "ports", &c.SOCKS.Relays.Ports, orEmpty(ports))
	list(proxy, "clients", &c.SOCKS.Clients, prefix)
	for _, t := range proxy.tables("user") {
		c.SOCKS.Users = append(c.SOCKS.Users, readUser(t))
	}

	for _, t := range root.tables("outlet") {
		c.Outlets = append(c.Outlets, readOutlet(t))
	}
	for _, t := range root.tables("rule") {
		c.Rules = append(c.Rules, readRule(t))
	}

	limits := root.table("limits")
	key(limits, "flows", &c.Limits.Flows, between[int](0, math.MaxInt32))
	key(limits, "flows-per-client", &c.Limits.FlowsPerClient, between[int](0, math.MaxInt32))
	key(limits, "new-names-per-second", &c.Limits.NewNames, between[int](0, math.MaxInt32))
	key(limits, "dial-timeout", &c.Limits.DialTimeout, duration)
	key(limits, "tcp-idle", &c.Limits.TCPIdle, duration)
	key(limits, "udp-idle", &c.Limits.UDPIdle, duration)

	status := root.table("status")
	key(status.atStart(), "listen", &c.Status.Listen, orEmpty(addrPort))
	key(status, "user", &c.Status.User, orEmpty(userName))
	key(status, "password", &c.Status.Password, socks.ParsePassword)
	key(root.table("control").atStart(), "socket", &c.Control.Socket, orEmpty(absolutePath))

	log := root.table("log")
	key(log, "level", &c.Log.Level, logLevel)
	key(log.atStart(), "format", &c.Log.JSON, logFormat)
}

// complete sets the defaults that depend on other keys.
func (c *Config) complete(root *table) {
	if _, given := root.table("dns").take("listen"); !given && len(c.LAN.Interfaces) > 0 {
		c.DNS.Listen = []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, 53)}
	}
}

func readUser(t *table) (u User) {
	key(t, "name", &u.Name, userName)
	key(t, "password", &u.Password, socks.ParsePassword)
	t.require("name", "of 1 to 255 octets")
	t.require("password", "a bcrypt hash, as htpasswd -nB makes it, or plain text")
	return u
}

func readOutlet(t *table) (o Outlet) {
	key(t, "name", &o.Name, outletName)
	key(t, "type", &o.Type, oneOf(OutletSOCKS5, OutletDirect, OutletReject))
	key(t, "server", &o.Server, orEmpty(server))
	key(t, "username", &o.Username, orEmpty(userName))
	key(t, "password", &o.Password, orEmpty(plainPassword))
	key(t, "over", &o.Over, as[string])
	key(t, "pipeline", &o.Pipeline, as[bool])
	key(t, "isolate", &o.Isolate, as[bool])
	key(t, "prefer", &o.Prefer, orEmpty(oneOf(PreferIPv6, PreferIPv4, OnlyIPv6, OnlyIPv4)))
	t.require("name", "rules name an outlet by it")
	t.require("type", "socks5, direct or reject")
	return o
}

func readRule(t *table) (r Rule) {
	list(t, "names", &r.Names, pattern)
	list(t, "networks", &r.Networks, prefix)
	list(t, "clients", &r.Clients, prefix)
	list(t, "users", &r.Users, userName)
	list(t, "ports", &r.Ports, between[uint16](1, math.MaxUint16))
	key(t, "proto", &r.Proto, oneOf("tcp", "bind", "udp", "icmp"))
	key(t, "outlet", &r.Outlet, as[string])
	t.require("outlet", "the name of an outlet, direct or reject")
	return r
}
