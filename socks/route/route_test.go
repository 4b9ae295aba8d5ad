package route

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sixgate/socks"
)

func TestMatchName(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"example.com", "example.com", true},
		{"example.com", "www.example.com", false},
		{"*.example.com", "www.example.com", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", ".example.com", false},
		{"*.example.com", "badexample.com", false},
	} {
		if got := MatchName(tt.pattern, tt.name); got != tt.want {
			t.Errorf("MatchName(%q, %q) = %v", tt.pattern, tt.name, got)
		}
	}
}

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestPick(t *testing.T) {
	rules := Rules{
		{Names: []string{"*.far.test"}, Ports: []uint16{80, 443}, Outlet: "far"},
		{Names: []string{"*.far.test"}, Network: "udp", Outlet: "reject"},
		{Clients: prefixes("192.0.2.64/26"), Outlet: "guests"},
		{Networks: prefixes("203.0.113.0/24"), Outlet: "net"},
		{Network: "bind", Outlet: "deaf"},
		{Users: []string{"alice", "bob"}, Outlet: "friends"},
	}
	for _, tt := range []struct {
		name, network, client, dest string
		user                        string
		addresses                   []netip.Addr
		want                        string
		looked                      int
	}{
		{"name and port", "tcp", "192.0.2.1", "a.far.test:80", "", nil, "far", 0},
		{"other port falls through", "udp", "192.0.2.1", "a.far.test:53", "", nil, "reject", 0},
		{"client", "tcp", "192.0.2.70", "x.test:80", "", nil, "guests", 0},
		{"literal in network", "tcp", "192.0.2.1", "203.0.113.9:22", "", nil, "net", 0},
		{"literal elsewhere", "tcp", "192.0.2.1", "198.51.100.1:22", "", nil, "", 0},
		{"name in network", "tcp", "192.0.2.1", "x.test:80", "", []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("203.0.113.1")}, "net", 1},
		{"name without addresses", "tcp", "192.0.2.1", "x.test:80", "", nil, "", 1},
		{"user", "tcp", "192.0.2.1", "198.51.100.1:22", "bob", nil, "friends", 0},
		{"BIND", "bind", "192.0.2.1", "198.51.100.1:22", "bob", nil, "deaf", 0},
		{"BIND is of TCP", "bind", "192.0.2.1", "203.0.113.9:22", "", nil, "net", 0},
		{"other user", "tcp", "192.0.2.1", "198.51.100.1:22", "eve", nil, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dest, err := socks.ParseAddr(tt.dest)
			if err != nil {
				t.Fatal(err)
			}
			looked := 0
			flow := Flow{Network: tt.network, Client: netip.MustParseAddr(tt.client), User: tt.user, Dest: dest}
			if tt.network == "bind" {
				flow.Network, flow.Bind = "tcp", true
			}
			got := rules.Pick(flow, func() []netip.Addr {
				looked++
				return tt.addresses
			})
			if got != tt.want || looked != tt.looked {
				t.Errorf("got %q after %d look-ups, want %q after %d", got, looked, tt.want, tt.looked)
			}
		})
	}
}

func TestOfName(t *testing.T) {
	rules := Rules{
		{Users: []string{"alice"}, Outlet: "friends"},
		{Names: []string{"*.ads.test"}, Clients: prefixes("192.0.2.0/24"), Outlet: "no"},
		{Network: "bind", Outlet: "deaf"},
		{Networks: prefixes("203.0.113.0/24"), Outlet: "net"},
		{Names: []string{"*.ads.test"}, Outlet: "no"},
		{Names: []string{"only.far.test"}, Ports: []uint16{443}, Outlet: "far"},
		{Network: "udp", Outlet: "tcp only"},
		{Clients: prefixes("192.0.2.64/26"), Outlet: "guests"},
	}
	for _, tt := range []struct{ client, name, want string }{
		{"192.0.2.1", "x.ads.test", "no"},
		{"198.51.100.1", "x.ads.test", "net no"},
		{"192.0.2.1", "only.far.test", "net far tcp only"},
		{"192.0.2.1", "other.test", "net tcp only"},
		{"192.0.2.70", "other.test", "net tcp only guests"},
	} {
		var got []string
		for r := range rules.OfName(netip.MustParseAddr(tt.client), tt.name) {
			got = append(got, r.Outlet)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("OfName(%s, %s): %q, want %q", tt.client, tt.name, got, tt.want)
		}
	}
}

func TestOutlets(t *testing.T) {
	clients := func(p string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(p)} }
	rules := Rules{
		{Clients: clients("192.0.2.0/24"), Names: []string{"a.test"}, Outlet: "name"},
		{Network: "udp", Ports: []uint16{53}, Outlet: "dns"},
		{Users: []string{"alice"}, Outlet: "alice"},
		{Network: "udp", Networks: clients("203.0.113.0/24"), Outlet: "dns"},
		{Network: "tcp", Outlet: "tcp"},
	}
	for _, tt := range []struct {
		flow Flow
		want []string
	}{
		{Flow{Network: "udp"}, []string{"dns", ""}},
		{Flow{Network: "tcp"}, []string{"tcp"}},
		{Flow{Network: "tcp", User: "alice"}, []string{"alice"}},
		{Flow{Network: "udp", Client: netip.MustParseAddr("192.0.2.1"), User: "alice"}, []string{"name", "dns", "alice"}},
	} {
		if got := rules.Outlets(tt.flow); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %q, want %q", tt.flow, got, tt.want)
		}
	}
	if rules.ByNetwork() != true || (Rules{{Names: []string{"a.test"}}}).ByNetwork() {
		t.Error("ByNetwork does not see which rules look at addresses")
	}
}
