package config

import "testing"

// badFiles are files with all that is to be said about them.
var badFiles = []struct{ name, text, want string }{
	{"syntax", "[lan]\ninterfaces = [\"lan0\"\nfamilies = 'auto'\n", `t.toml:3: expected ',' or ']' after array value`},
	{"value too large", "[tun]\nmtu = 99999999999999999999\n", `t.toml:2: decimal number is too large to fit in a 64-bit signed integer`},
	{"key given twice", "[tun]\nmtu = 1500\nmtu = 1400\n", `t.toml:3: key mtu is already defined`},
	{"table given twice", "[tun]\nmtu = 1500\n[tun]\nname = 'a'\n", `t.toml:3: table tun already exists`},

	{"unknown keys", `
mtu = 1500
[lna]
interfaces = ["a"]
[tun]
MTU = 1500
[limits]
dial_timeout = "1s"
tcp-idel = "1m"
colour = "red"
[[outlet]]
name = "a"
type = "reject"
sever = "b:1"
[dns]
"a key\u001b" = 1
`, `t.toml:2: mtu: unknown key (known: lan, advertise, tun, pool, dns, direct, socks, outlet, rule, limits, status, control, log)
t.toml:3: lna: unknown key (did you mean "lan"?)
t.toml:6: tun.MTU: unknown key (did you mean "mtu"?)
t.toml:8: limits.dial_timeout: unknown key (did you mean "dial-timeout"?)
t.toml:9: limits.tcp-idel: unknown key (did you mean "tcp-idle"?)
t.toml:10: limits.colour: unknown key (known: flows, flows-per-client, new-names-per-second, dial-timeout, tcp-idle, udp-idle)
t.toml:14: outlet.sever: unknown key (did you mean "server"?)
t.toml:16: dns."a key\x1b": unknown key (known: listen, upstreams, fake, bypass, https, hosts, leases, capture, refuse-dot)`},

	{"wrong types", `
log = "debug"
[tun]
name = 6
mtu = "1500"
[dns]
listen = "127.0.0.1:53"
upstreams = ["udp://192.0.2.1:53", 1]
bypass = [["a"], {b = 1}, 1979-05-27]
capture = "yes"
[direct]
mark = 1.5
[outlet]
name = "a"
[[limits]]
flows = 1
[[rule]]
ports = ["http"]
names = { a = "b" }
outlet = true
`, `t.toml:2: log: want a table, got a string
t.toml:4: tun.name: want a string, got an integer
t.toml:5: tun.mtu: want an integer, got a string
t.toml:7: dns.listen: want an array, got a string
t.toml:8: dns.upstreams: want a string, got an integer
t.toml:9: dns.bypass: want a string, got a date or time
t.toml:9: dns.bypass: want a string, got a table
t.toml:9: dns.bypass: want a string, got an array
t.toml:10: dns.capture: want a boolean, got a string
t.toml:12: direct.mark: want an integer, got a float
t.toml:13: outlet: want an array of tables, got a table (write [[outlet]])
t.toml:15: limits: want a table, got an array
t.toml:18: rule.ports: want an integer, got a string
t.toml:19: rule.names: want an array, got a table
t.toml:20: rule.outlet: want a string, got a boolean`},
	{"array of no tables", "rule = [\n{outlet = 'direct'},\n3,\n{outlet = 'no'}]\n", `t.toml:3: rule: want a table, got an integer
t.toml:4: rule.outlet: unknown outlet "no" (known: direct, reject)`},

	{"bad values", `
[lan]
interfaces = ["a-name-too-long-for-linux", "a/b", "", "lan0",
	"lan0"]
families = "both"
[tun]
mtu = 1279
[dns]
fake = ""
upstreams = [
	"192.0.2.1",
	"udp://192.0.2.1",
	"udp://resolver.example:53",
	"quic://192.0.2.1:853",
	"tcp://192.0.2.1:0",
	"udp://192.0.2.1:53",
	"tcp://192.0.2.1:53",
	"udp://192.0.2.1:53",
	"tls://dns.example:853",
	"tls://192.0.2.1:853#",
	"tls://192.0.2.1:853#192.0.2.2",
	"https://dns.example/dns-query",
	"https://dns.example/dns-query#dns.example",
	"https://192.0.2.1/dns-query#192.0.2.1",
	"https://192.0.2.1",
	"https://192.0.2.1:0/dns-query",
	"https://me@192.0.2.1/dns-query",
	"https://192.0.2.1/dns-query{?dns}",
]
bypass = ["*", "a.*.b", "192.0.2.1/24", "a b", "bücher.example"]
[direct]
mark = -1
prefer = "IPv6"
interface = "a b"
deny = ["192.0.2.1/24", "example.com", "fe80::1%lan0", "::ffff:192.0.2.1", "10.0.0.0/33"]
[limits]
dial-timeout = "10"
tcp-idle = "0s"
udp-idle = "8000h"
[log]
level = "INFO"
format = "xml"
`, `t.toml:3: lan.interfaces: "" is no interface name (1 to 15 octets without space, '/', ':' or '%')
t.toml:3: lan.interfaces: "a-name-too-long-for-linux" is no interface name (1 to 15 octets without space, '/', ':' or '%')
t.toml:3: lan.interfaces: "a/b" is no interface name (1 to 15 octets without space, '/', ':' or '%')
t.toml:4: lan.interfaces: "lan0" is given twice (delete one)
t.toml:5: lan.families: unknown value "both" (known: auto, ipv4, ipv6, dual)
t.toml:7: tun.mtu: want 1280 to 65535, got 1279
t.toml:9: dns.fake: unknown value "" (known: needed, always, auto)
t.toml:11: dns.upstreams: "192.0.2.1" has no scheme (write it like udp://192.0.2.1:53)
t.toml:12: dns.upstreams: "192.0.2.1" is no address with a port (write it like 192.0.2.1:53 or [2001:db8::1]:53)
t.toml:13: dns.upstreams: "resolver.example:53" is no address with a port (write it like 192.0.2.1:53 or [2001:db8::1]:53)
t.toml:14: dns.upstreams: "quic://192.0.2.1:853" has an unknown scheme (write udp://, tcp://, tls:// or https://)
t.toml:15: dns.upstreams: port 0 in "192.0.2.1:0" (1 to 65535)
t.toml:18: dns.upstreams: "udp://192.0.2.1:53" is given twice (delete one)
t.toml:19: dns.upstreams: "dns.example:853" is no address with a port (write it like 192.0.2.1:53 or [2001:db8::1]:53)
t.toml:20: dns.upstreams: "" is no name: parsing host "": empty name (write it like dns.example)
t.toml:21: dns.upstreams: "192.0.2.2" is no name: an address where a name belongs (write it like dns.example)
t.toml:22: dns.upstreams: "https://dns.example/dns-query" has a name and no address (write it like https://dns.example/dns-query#192.0.2.1)
t.toml:23: dns.upstreams: "https://dns.example/dns-query#dns.example" has a name and no address (write it like https://dns.example/dns-query#192.0.2.1)
t.toml:24: dns.upstreams: "https://192.0.2.1/dns-query#192.0.2.1" has two addresses (leave out the one behind the #)
t.toml:25: dns.upstreams: "https://192.0.2.1" is no URL of a resolver (write it like https://192.0.2.1/dns-query)
t.toml:26: dns.upstreams: port 0 in "192.0.2.1:0" (1 to 65535)
t.toml:27: dns.upstreams: "https://me@192.0.2.1/dns-query" is no URL of a resolver (write it like https://192.0.2.1/dns-query)
t.toml:28: dns.upstreams: "https://192.0.2.1/dns-query{?dns}" is no URL of a resolver (write it like https://192.0.2.1/dns-query)
t.toml:30: dns.bypass: "*" is no name and no *.suffix: parsing host "*": octet 0x2a in a name (write it like example.com or *.example.com, other scripts as xn--)
t.toml:30: dns.bypass: "192.0.2.1/24" has host bits set (write 192.0.2.0/24)
t.toml:30: dns.bypass: "a b" is no name and no *.suffix: parsing host "a b": octet 0x20 in a name (write it like example.com or *.example.com, other scripts as xn--)
t.toml:30: dns.bypass: "a.*.b" is no name and no *.suffix: parsing host "a.*.b": octet 0x2a in a name (write it like example.com or *.example.com, other scripts as xn--)
t.toml:30: dns.bypass: "bücher.example" is no name and no *.suffix: parsing host "bücher.example": octet 0xc3 in a name (write it like example.com or *.example.com, other scripts as xn--)
t.toml:32: direct.mark: want 0 to 4294967295, got -1
t.toml:33: direct.prefer: unknown value "IPv6" (did you mean "ipv6"?)
t.toml:34: direct.interface: "a b" is no interface name (1 to 15 octets without space, '/', ':' or '%')
t.toml:35: direct.deny: "10.0.0.0/33" is no prefix (write it like 192.0.2.0/24 or 2001:db8::/32)
t.toml:35: direct.deny: "192.0.2.1/24" has host bits set (write 192.0.2.0/24)
t.toml:35: direct.deny: "::ffff:192.0.2.1" is IPv4 in IPv6 form (write it as IPv4)
t.toml:35: direct.deny: "example.com" is no prefix (write it like 192.0.2.0/24 or 2001:db8::/32)
t.toml:35: direct.deny: "fe80::1%lan0" is no prefix (write it like 192.0.2.0/24 or 2001:db8::/32)
t.toml:37: limits.dial-timeout: "10" is no duration (write it like 10s, 5m or 2h4m)
t.toml:38: limits.tcp-idle: want more than 0s and at most 168h0m0s, got 0s
t.toml:39: limits.udp-idle: want more than 0s and at most 168h0m0s, got 8000h0m0s
t.toml:41: log.level: unknown value "INFO" (did you mean "info"?)
t.toml:42: log.format: unknown value "xml" (known: text, json)`},

	{"pools", "[pool]\nipv4 = '198.18.0.0/25'\nipv6 = '2001:2::/113'\n", `t.toml:2: pool.ipv4: 198.18.0.0/25 is too small (/24 or shorter)
t.toml:3: pool.ipv6: 2001:2::/113 is too small (/112 or shorter)`},
	{"pools of the other family", "[pool]\nipv4 = '2001:2::/48'\nipv6 = '198.18.0.0/15'\n", `t.toml:2: pool.ipv4: 2001:2::/48 is no IPv4 prefix
t.toml:3: pool.ipv6: 198.18.0.0/15 is no IPv6 prefix`},
	{"pools over loopback", "[pool]\nipv4 = '0.0.0.0/0'\nipv6 = '::/0'\n", `t.toml:2: pool.ipv4: 0.0.0.0/0 overlaps 0.0.0.0/8, which hosts treat specially (the default is 198.18.0.0/15)
t.toml:3: pool.ipv6: ::/0 overlaps ::/96, which hosts treat specially (the default is 2001:2::/48)`},
	{"pools over link-local and multicast", "[pool]\nipv4 = '224.0.0.0/8'\nipv6 = 'fe80::/64'\n", `t.toml:2: pool.ipv4: 224.0.0.0/8 overlaps 224.0.0.0/4, which hosts treat specially (the default is 198.18.0.0/15)
t.toml:3: pool.ipv6: fe80::/64 overlaps fe80::/10, which hosts treat specially (the default is 2001:2::/48)`},
	{"local IPv6 pool", "[pool]\nipv6 = 'fd00::/64'\n", `t.toml:2: pool.ipv6: of 198.18.0.0/15 and fd00::/64 one is public and one local to browsers (take both of one kind)`},
	{"local IPv4 pool", "[pool]\nipv4 = '100.64.0.0/10'\n", `t.toml:2: pool.ipv4: of 100.64.0.0/10 and 2001:2::/48 one is public and one local to browsers (take both of one kind)`},
	{"kind of a pool that is wrong", "[pool]\nipv4 = '10.0.0.1/8'\nipv6 = 'fd00::/64'\n", `t.toml:2: pool.ipv4: "10.0.0.1/8" has host bits set (write 10.0.0.0/8)`},

	{"state that is no path", "[pool]\nstate = 'names'\n", `t.toml:2: pool.state: "names" is no absolute path`},

	{"listen", `
[dns]
listen = [":53",
	"127.0.0.1:0",
	"127.0.0.1",
	":domain",
	"[::ffff:127.0.0.1]:53",
	"127.0.0.1:5353"]
upstreams = ["udp://127.0.0.1:5353"]
[socks]
listen = [
	":1080",
	"0.0.0.0:1080",
	"127.0.0.1:5353",
	"localhost:1080",
	"127.0.0.1:65536",
]
`, `t.toml:3: dns.listen: ":53" is on the lan interfaces and there are none (set lan.interfaces, or give an address)
t.toml:4: dns.listen: port 0 in "127.0.0.1:0" (1 to 65535)
t.toml:5: dns.listen: "127.0.0.1" is no address with a port (write it like 192.0.2.1:53 or [2001:db8::1]:53)
t.toml:6: dns.listen: ":domain" is no port (write it like :53)
t.toml:7: dns.listen: "[::ffff:127.0.0.1]:53" is IPv4 in IPv6 form (write it as IPv4)
t.toml:9: dns.upstreams: 127.0.0.1:5353 is this gateway itself (name another resolver)
t.toml:12: socks.listen: ":1080" has no address (write it like 192.0.2.1:1080)
t.toml:13: socks.listen: 0.0.0.0:1080 is open to everyone (say in socks.clients or socks.user who may use it)
t.toml:14: socks.listen: 127.0.0.1:5353 is taken by dns.listen (take another port)
t.toml:15: socks.listen: "localhost:1080" is no address with a port (write it like 192.0.2.1:53 or [2001:db8::1]:53)
t.toml:16: socks.listen: "127.0.0.1:65536" is no address with a port (write it like 192.0.2.1:53 or [2001:db8::1]:53)`},
	{"relays that are nowhere", `[socks]
ports = "50000"
external = ["gw.example", "::ffff:192.0.2.1", "127.0.0.1", "203.0.113.7", "2001:db8::7", "203.0.113.8"]
`, `t.toml:2: socks.ports: "50000" is no range of ports (write it like 50000-50999)
t.toml:3: socks.external: "127.0.0.1" is no address that others reach this host by
t.toml:3: socks.external: "::ffff:192.0.2.1" is IPv4 in IPv6 form (write it as IPv4)
t.toml:3: socks.external: "gw.example" is no address (write it like 203.0.113.7 or 2001:db8::7)
t.toml:3: socks.external: 203.0.113.8 is a second address of its family (give one of each)`},
	{"clients that are wrong", "[socks]\nlisten = ['0.0.0.0:1']\nclients = ['all']\n", `t.toml:3: socks.clients: "all" is no prefix (write it like 192.0.2.0/24 or 2001:db8::/32)`},
	{"clients that are nobody", "[socks]\nclients = []\nlisten = ['[::]:1080', '[fe80::1%a/b]:1080']\n", `t.toml:3: socks.listen: [::]:1080 is open to everyone (say in socks.clients or socks.user who may use it)
t.toml:3: socks.listen: zone of "[fe80::1%a/b]:1080": "a/b" is no interface name (1 to 15 octets without space, '/', ':' or '%')`},
	{"empty tables", "[[outlet]]\n[[rule]]\n", `t.toml:1: outlet.name: missing (rules name an outlet by it)
t.toml:1: outlet.type: missing (socks5, direct or reject)
t.toml:2: rule.outlet: missing (the name of an outlet, direct or reject)`},
	{"TUN on the lan", "lan.interfaces = ['sixgate0']\n", `t.toml:1: lan.interfaces: "sixgate0" is the TUN device (set another tun.name)`},

	{"advertised on no lan", "[advertise]\ninterfaces = ['lan1', '']\n[lan]\ninterfaces = ['lan0']\n", `t.toml:2: advertise.interfaces: "" is no interface name (1 to 15 octets without space, '/', ':' or '%')
t.toml:2: advertise.interfaces: "lan1" is none of lan.interfaces (name it there, too)`},
	{"advertised to nobody", "[advertise]\nrouter = true\nprefixes = true\n", `t.toml:2: advertise.router: nobody is told (set advertise.interfaces, or delete it)
t.toml:3: advertise.prefixes: nobody is told (set advertise.interfaces, or delete it)`},
	{"advertised without IPv6", "[lan]\ninterfaces = ['lan0']\nfamilies = 'ipv4'\n[advertise]\ninterfaces = ['lan0']\n", `t.toml:5: advertise.interfaces: lan.families says that the clients have no IPv6 (change one of both)`},

	{"outlets", `
[[outlet]]
name = "direct"
type = "direct"

[[outlet]]
type = "http"
server = "127.0.0.1"

[[outlet]]
name = "a b"

[[outlet]]
name = "far"
type = "socks5"
over = "naer"

[[outlet]]
name = "near"
type = "direct"
server = "gw.example:1080"
over = "far"

[[outlet]]
name = "near"
type = "socks5"
server = "0x7f.1:1080"

[[outlet]]
name = "zero"
type = "socks5"
server = "gw.example:0"
`, `t.toml:3: outlet.name: there is an outlet "direct" already (take another name)
t.toml:6: outlet.name: missing (rules name an outlet by it)
t.toml:7: outlet.type: unknown value "http" (known: socks5, direct, reject)
t.toml:8: outlet.server: parsing address "127.0.0.1": missing port (write it like gw.example:1080)
t.toml:10: outlet.type: missing (socks5, direct or reject)
t.toml:11: outlet.name: "a b" is no outlet name (write a word)
t.toml:13: outlet.server: missing (host:port of the SOCKS server)
t.toml:16: outlet.over: unknown outlet "naer" (did you mean "near"?)
t.toml:21: outlet.server: a direct outlet has no server (delete it, or set type to socks5)
t.toml:22: outlet.over: a direct outlet goes over no other (delete it, or set type to socks5)
t.toml:25: outlet.name: there is an outlet "near" already (take another name)
t.toml:27: outlet.server: parsing host "0x7f.1": numeric form that is no IP literal (write it like gw.example:1080)
t.toml:32: outlet.server: port 0 in "gw.example:0" (1 to 65535)`},
	{"outlets to nowhere", `
[[outlet]]
name = "self"
type = "socks5"
server = "127.0.0.1:1080"
[[outlet]]
name = "wan"
type = "direct"
pipeline = true
isolate = true
[[outlet]]
name = "both"
type = "socks5"
server = "a:1"
username = "u"
isolate = true
prefer = "ipv4"
`, `t.toml:5: outlet.server: 127.0.0.1:1080 is this gateway itself (name another server)
t.toml:9: outlet.pipeline: a direct outlet has no server (delete it, or set type to socks5)
t.toml:10: outlet.isolate: a direct outlet has no server (delete it, or set type to socks5)
t.toml:16: outlet.isolate: each client is a user of its own there (delete it, or username)
t.toml:17: outlet.prefer: a socks5 outlet chooses no addresses (delete it, or set type to direct)`},
	{"cycles of outlets", `
outlet = [
	{name = "in", type = "socks5", server = "a:1", over = "a"},
	{name = "a", type = "socks5", server = "a:1", over = "b"},
	{name = "b", type = "socks5", server = "a:1", over = "c"},
	{name = "c", type = "socks5", server = "a:1", over = "a"},
	{name = "self", type = "socks5", server = "a:1", over = "self"},
	{name = "fine", type = "socks5", server = "a:1", over = "direct"},
]
`, `t.toml:4: outlet.over: "a" is dialled through itself (let one outlet of the chain go without over)
t.toml:7: outlet.over: "self" is dialled through itself (let one outlet of the chain go without over)`},
	{"rules", `
[[outlet]]
name = "tokyo"
type = "reject"

[[rule]]
names = ["example.com", "EXAMPLE.com"]

[[rule]]
networks = ["203.0.113.1/24"]
clients = ["2001:db8::/129"]
ports = [0, 65536]
proto = "sctp"
outlet = "tokio"

[[rule]]
outlet = "osaka"
`, `t.toml:6: rule.outlet: missing (the name of an outlet, direct or reject)
t.toml:7: rule.names: "EXAMPLE.com" is given twice (delete one)
t.toml:10: rule.networks: "203.0.113.1/24" has host bits set (write 203.0.113.0/24)
t.toml:11: rule.clients: "2001:db8::/129" is no prefix (write it like 192.0.2.0/24 or 2001:db8::/32)
t.toml:12: rule.ports: want 1 to 65535, got 0
t.toml:12: rule.ports: want 1 to 65535, got 65536
t.toml:13: rule.proto: unknown value "sctp" (known: tcp, bind, udp, icmp)
t.toml:14: rule.outlet: unknown outlet "tokio" (did you mean "tokyo"?)
t.toml:17: rule.outlet: unknown outlet "osaka" (known: direct, reject, tokyo)`},

	{"users", `
[[socks.user]]
name = "alice"
[[socks.user]]
name = "bob"
pasword = "b"
[[socks.user]]
name = "bob"
password = "$2a$10$short"
[[socks.user]]
name = ""
password = ""
[[outlet]]
name = "a"
type = "socks5"
server = "a:1"
password = "a"
[[outlet]]
name = "b"
type = "direct"
username = "b"
[[rule]]
users = [""]
outlet = "a"
`, `t.toml:2: socks.user.password: missing (a bcrypt hash, as htpasswd -nB makes it, or plain text)
t.toml:4: socks.user.password: missing (a bcrypt hash, as htpasswd -nB makes it, or plain text)
t.toml:6: socks.user.pasword: unknown key (did you mean "password"?)
t.toml:8: socks.user.name: there is a user "bob" already (take another name)
t.toml:9: socks.user.password: parsing a password that starts as a bcrypt hash: crypto/bcrypt: hashedSecret too short to be a bcrypted password
t.toml:11: socks.user.name: a user's name of 0 octets (1 to 255)
t.toml:12: socks.user.password: parsing a password of 0 octets: want 1 to 255
t.toml:13: outlet.username: missing (the password is of nobody)
t.toml:21: outlet.username: a direct outlet has no server (delete it, or set type to socks5)
t.toml:23: rule.users: a user's name of 0 octets (1 to 255)`},

	{"NAT64", `
direct.nat64 = "64:ff9b::/95"
`, `t.toml:2: direct.nat64: 64:ff9b::/95 is no prefix of a NAT64 (its length is 32, 40, 48, 56, 64 or 96)`},

	{"NAT64 of a pool", `
direct.nat64 = "2001:2::/96"
`, `t.toml:2: direct.nat64: 2001:2::/96 overlaps the pool 2001:2::/48 (name the prefix of the network's NAT64)`},

	{"not yet", `
[tun]
queues = 2
handover = "yes"
[limits]
flows = 0
flows-per-client = -1
new-names-per-second = -50
[control]
socket = 1
[status]
listen = "0.0.0.0:80"
`, `t.toml:3: tun.queues: not yet supported (leave it out)
t.toml:4: tun.handover: unknown value "yes" (known: off, auto, on)
t.toml:7: limits.flows-per-client: want 0 to 2147483647, got -1
t.toml:8: limits.new-names-per-second: want 0 to 2147483647, got -50
t.toml:10: control.socket: want a string, got an integer
t.toml:12: status.listen: 0.0.0.0:80 can be read by everyone (set user and password, or take a loopback address)`},
	{"status for nobody", "[status]\npassword = 'a'\n", `t.toml:1: status.user: missing (the password is of nobody)`},
	{"status for whom", "[status]\nuser = 'a'\n", `t.toml:1: status.password: missing (a bcrypt hash, as htpasswd -nB makes it, or plain text)`},
}

func TestBad(t *testing.T) {
	for _, test := range badFiles {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("t.toml", []byte(test.text))
			if err == nil || err.Error() != test.want {
				t.Errorf("got\n%v\nwant\n%s", err, test.want)
			}
		})
	}
}

func TestEditDistance(t *testing.T) {
	tests := []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"mtu", "mtu", 0}, {"flaw", "lawn", 2}, {"naer", "near", 1},
	}
	for _, test := range tests {
		if got := editDistance(test.a, test.b); got != test.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
