package config

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sixgate/socks"
)

func TestEmptyFileIsDefault(t *testing.T) {
	c, err := Parse("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := Default(); !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "sixgate.toml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestLoadTellsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sixgate.toml")
	if err := os.WriteFile(path, []byte("[tun]\nmtu = 9000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.File != path || c.TUN.MTU != 9000 {
		t.Errorf("got file %q, MTU %d", c.File, c.TUN.MTU)
	}
}

// TestFull reads a file with every key there is.
func TestFull(t *testing.T) {
	data, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("", data)
	if err != nil {
		t.Fatal(err)
	}
	if want := full(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func full() *Config {
	c := Default()
	c.LAN.Interfaces = []string{"lan0"}
	c.DNS.Listen = []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, 53)}
	c.Advertise = Advertise{Interfaces: []string{"lan0"}, Router: true, Prefixes: true}
	c.DNS.Upstreams = []Upstream{
		{Network: "udp", Addr: netip.MustParseAddrPort("10.66.0.2:53")},
		{Network: "tls", Addr: netip.MustParseAddrPort("9.9.9.9:853"), Name: "dns.quad9.net"},
		{Network: "https", Addr: netip.MustParseAddrPort("1.1.1.1:443"), Path: "/dns-query"},
	}
	c.DNS.Bypass = []string{"*.corp.example", "10.0.0.0/8"}
	c.Direct.NAT64.Prefix = netip.MustParsePrefix("64:ff9b::/96")
	hash, err := socks.ParsePassword("$2a$10$rRittcC9o0RoOr.FRqKBNu0R.TJBwnurGFxP5nucAfwlDtEQ0bt7i")
	if err != nil {
		panic(err)
	}
	c.SOCKS.Relays = socks.Listening{Ports: socks.Ports{First: 50000, Last: 50999}, External: []netip.Addr{netip.MustParseAddr("203.0.113.7")}}
	c.SOCKS.Users = []User{{"alice", hash}}
	c.Limits.NewNames = 100
	c.DNS.Hosts, c.DNS.Leases = []string{"/etc/hosts.lan"}, []string{"/var/lib/misc/dnsmasq.leases"}
	c.Outlets = []Outlet{
		{Name: "near", Type: OutletSOCKS5, Server: socks.Addr{IP: netip.MustParseAddr("192.0.2.1"), Port: 1080}},
		{Name: "far", Type: OutletSOCKS5, Server: socks.Addr{Name: "gw2.example", Port: 1080}, Username: "gw1", Password: "secret", Over: "near", Pipeline: true},
	}
	c.Rules = []Rule{{
		Names:    []string{"*.example.com"},
		Networks: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		Clients:  []netip.Prefix{netip.MustParsePrefix("192.168.77.0/24")},
		Users:    []string{"alice"},
		Ports:    []uint16{80, 443},
		Proto:    "tcp",
		Outlet:   "far",
	}}
	return c
}

func TestGood(t *testing.T) {
	tests := []struct {
		name, text string
		want       func(*Config)
	}{
		{"listen on the lan by default", `lan.interfaces = ["lan0", "lan1"]`, func(c *Config) {
			c.LAN.Interfaces = []string{"lan0", "lan1"}
			c.DNS.Listen = []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, 53)}
		}},
		{"no listeners", "[dns]\nlisten = []\n[socks]\nlisten = []", func(c *Config) {
			c.DNS.Listen, c.SOCKS.Listen = nil, nil
		}},
		{"lan families and fake policy", "[lan]\nfamilies = 'dual'\n[dns]\nfake = 'always'\nhttps = 'nodata'\ncapture = false", func(c *Config) {
			c.LAN.Families, c.DNS.Fake, c.DNS.HTTPS, c.DNS.Capture = FamiliesDual, FakeAlways, HTTPSNoData, false
		}},
		{"pools of local kind", "[pool]\nipv4 = '10.64.0.0/10'\nipv6 = 'fd00:6::/64'", func(c *Config) {
			c.Pool = Pool{netip.MustParsePrefix("10.64.0.0/10"), netip.MustParsePrefix("fd00:6::/64"), "/var/lib/sixgate/names"}
		}},
		{"names in memory", "pool.state = ''", func(c *Config) { c.Pool.State = "" }},
		{"names become lower case", "dns.bypass = ['Intranet.Example.', '*.CORP.example', 'nas']", func(c *Config) {
			c.DNS.Bypass = []string{"intranet.example", "*.corp.example", "nas"}
		}},
		{"addresses get their real answer", "dns.bypass = ['10.0.0.0/8', '2001:db8::1', 'a.example']", func(c *Config) {
			c.DNS.Bypass = []string{"10.0.0.0/8", "2001:db8::1/128", "a.example"}
		}},
		{"addresses are prefixes", "[direct]\ndeny = ['192.0.2.1', '2001:db8::1', '10.0.0.0/8']\nallow = ['169.254.169.254/32']", func(c *Config) {
			c.Direct.Deny = []netip.Prefix{
				netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("10.0.0.0/8"),
			}
			c.Direct.Allow = []netip.Prefix{netip.MustParsePrefix("169.254.169.254/32")}
		}},
		{"encrypted upstreams", "dns.upstreams = ['tls://[2001:db8::1]:853', 'https://DNS.Example:8443/q?a=b#192.0.2.1', 'https://[2001:db8::1]/dns-query']", func(c *Config) {
			c.DNS.Upstreams = []Upstream{
				{Network: "tls", Addr: netip.MustParseAddrPort("[2001:db8::1]:853")},
				{Network: "https", Addr: netip.MustParseAddrPort("192.0.2.1:8443"), Name: "dns.example", Path: "/q?a=b"},
				{Network: "https", Addr: netip.MustParseAddrPort("[2001:db8::1]:443"), Path: "/dns-query"},
			}
		}},
		{"direct", "[direct]\nprefer = 'ipv4-only'\nmark = 0xffffffff\ninterface = 'wan0'", func(c *Config) {
			c.Direct.Prefer, c.Direct.Mark, c.Direct.Interface = OnlyIPv4, 0xffffffff, "wan0"
		}},
		{"a NAT64 to be found", "direct.nat64 = 'auto'", func(c *Config) { c.Direct.NAT64 = NAT64{Find: true} }},
		{"SOCKS for some", "[socks]\nlisten = ['192.0.2.1:1080']\nclients = ['192.0.2.0/24']", func(c *Config) {
			c.SOCKS.Listen = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1080")}
			c.SOCKS.Clients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}},
		{"SOCKS for users", "[socks]\nlisten = ['192.0.2.1:1080']\n[[socks.user]]\nname = 'bob'\npassword = 'b'", func(c *Config) {
			c.SOCKS.Listen = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1080")}
			password, _ := socks.ParsePassword("b")
			c.SOCKS.Users = []User{{"bob", password}}
		}},
		{"built-in outlets", "[[rule]]\nports = [25]\noutlet = 'reject'\n[[rule]]\noutlet = 'direct'", func(c *Config) {
			c.Rules = []Rule{{Ports: []uint16{25}, Outlet: BuiltInReject}, {Outlet: BuiltInDirect}}
		}},
		{"inline tables", "outlet = [{name = 'no', type = 'reject'}, {name = 'wan', type = 'direct', server = '', prefer = 'ipv4-only'}]", func(c *Config) {
			c.Outlets = []Outlet{{Name: "no", Type: OutletReject}, {Name: "wan", Type: OutletDirect, Prefer: OnlyIPv4}}
		}},
		{"limits and log", "[limits]\nflows = 9\nflows-per-client = 3\ndial-timeout = '500ms'\nudp-idle = '168h'\n[log]\nlevel = 'debug'\nformat = 'json'", func(c *Config) {
			c.Limits.DialTimeout, c.Limits.UDPIdle = 500*time.Millisecond, 168*time.Hour
			c.Limits.Flows, c.Limits.FlowsPerClient = 9, 3
			c.Log = Log{Level: slog.LevelDebug, JSON: true}
		}},
		{"handover", "tun.handover = 'auto'", func(c *Config) { c.TUN.Handover = HandoverAuto }},
		{"status and control", "status.listen = '[::1]:80'\ncontrol.socket = '/tmp/../s'", func(c *Config) {
			c.Status.Listen = netip.MustParseAddrPort("[::1]:80")
			c.Control.Socket = "/s"
		}},
		{"neither status nor control", "status.listen = ''\ncontrol.socket = ''", func(c *Config) {
			c.Status, c.Control = Status{}, Control{}
		}},
		{"what asks for nothing", `tun.queues = 0
direct.nat64 = ""
limits.flows = 0
limits.flows-per-client = 0`, func(*Config) {}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse("", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			want := Default()
			test.want(want)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	full, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(strings.Repeat("a.", 2000) + "a = " + strings.Repeat("[", 2000) + strings.Repeat("]", 2000)))
	for _, test := range badFiles {
		f.Add([]byte(test.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("t", data)
		if err == nil {
			if c == nil {
				t.Fatal("neither configuration nor error")
			}
			return
		}
		complaints, ok := errors.AsType[Complaints](err)
		if !ok || len(complaints) == 0 || c != nil {
			t.Fatalf("configuration %v with %T: %v", c, err, err)
		}
		if !slices.IsSortedFunc(complaints, func(a, b Complaint) int { return a.Line - b.Line }) {
			t.Errorf("not by line:\n%v", err)
		}
		for _, c := range complaints {
			if last := 1 + strings.Count(string(data), "\n"); c.Line < 1 || c.Line > last {
				t.Errorf("line %d of %d: %v", c.Line, last, c)
			}
			if strings.ContainsAny(c.String(), "\n\x1b") {
				t.Errorf("control characters: %q", c)
			}
		}
	})
}
