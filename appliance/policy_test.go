package appliance

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sixgate/appliance/config"
	"sixgate/dnsfake"
	"sixgate/socks"
	"sixgate/socks/gateway"
	"sixgate/socks/outlet"
	"sixgate/socks/route"
)

// TestBuildBeyond asks for what names have through those chains alone on which
// no server keeps users apart, the nearest ones included.
func TestBuildBeyond(t *testing.T) {
	server := socks.AddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:1080"))
	via := func(name, over string, isolate bool) config.Outlet {
		return config.Outlet{Name: name, Type: config.OutletSOCKS5, Server: server, Over: over, Isolate: isolate}
	}
	c := config.Default()
	c.Outlets = []config.Outlet{
		via("far", "", false), via("tor", "", true), via("behind tor", "tor", false), via("further", "behind tor", false),
		via("tor behind", "far", true), via("farther", "far", false), {Name: "other", Type: config.OutletDirect},
	}
	outlets := buildOutlets(c, outlet.DirectConfig{}, outlet.NewGuard(nil, nil, nil))
	for _, ask := range []struct {
		upstreams []config.Upstream
		want      []string
	}{
		{nil, nil}, // the host's are of this network
		{[]config.Upstream{{Network: "udp", Addr: netip.MustParseAddrPort("192.0.2.53:53")}}, []string{"far", "farther"}},
	} {
		c.DNS.Upstreams = ask.upstreams
		beyond, err := buildBeyond(c, outlets)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(beyond)); !slices.Equal(got, ask.want) {
			t.Errorf("by %v through %q, want %q", ask.upstreams, got, ask.want)
		}
		if err := closeAll(beyond); err != nil {
			t.Error(err)
		}
	}
}

// TestWay has rules that decide of some connections to a name only.
// TestPreferOfRule has rules that reach hosts by one family, where others are
// reached by either.
func TestPreferOfRule(t *testing.T) {
	w := newWorld(t)
	for prefer, far := range map[config.Prefer]netip.Addr{"": far6, config.PreferIPv4: far4, config.OnlyIPv4: far4, config.OnlyIPv6: far6} {
		b := newBox(t, w, func(c *config.Config) {
			c.Outlets = []config.Outlet{{Name: "by", Type: config.OutletDirect, Prefer: prefer}}
			c.Rules = []config.Rule{{Names: []string{"dual.test"}, Outlet: "by"}}
		})
		c, err := b.dialTUN(t.Context(), "tcp", false, "dual.test", w.port)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil { // an echo: all is joined
			t.Fatal(err)
		}
		flows := b.parts.gateway.Flows()
		if len(flows) != 1 || flows[0].Far.Addr() != far || flows[0].Outlet != "by" {
			t.Errorf("prefer %q: %+v", prefer, flows)
		}
		c.Close()
	}
}

func TestWay(t *testing.T) {
	c := config.Default()
	c.Outlets = []config.Outlet{{Name: "far", Type: config.OutletSOCKS5, Server: socks.AddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:1080"))}}
	p := &policy{flows: &gateway.Policy{Outlets: buildOutlets(c, outlet.DirectConfig{}, outlet.NewGuard(nil, nil, nil))}}
	names, network := []string{"a.test"}, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	far := route.Rule{Names: names, Outlet: "far"}
	reject := route.Rule{Names: names, Outlet: config.BuiltInReject}
	for _, tt := range []struct {
		what  string
		rules route.Rules
		want  dnsfake.Way
	}{
		{"no rules", nil, dnsfake.ToHost},
		{"a chain", route.Rules{far}, dnsfake.ToChain},
		{"of all names", route.Rules{{Outlet: "far"}}, dnsfake.ToChain},
		{"of another name", route.Rules{{Names: []string{"b.test"}, Outlet: "far"}}, dnsfake.ToHost},
		{"without UDP", route.Rules{{Network: "udp", Outlet: config.BuiltInReject}, far}, dnsfake.ToChain},
		{"a port of it past the chain", route.Rules{{Names: names, Ports: []uint16{22}, Outlet: config.BuiltInDirect}, far}, dnsfake.ToChain},
		{"a network past the chain", route.Rules{{Networks: network, Outlet: config.BuiltInDirect}, far}, dnsfake.ToChain},
		{"a network through the chain", route.Rules{{Networks: network, Outlet: "far"}}, dnsfake.ToHost},
		{"nobody", route.Rules{reject, far}, dnsfake.ToNobody},
		{"all of a client's", route.Rules{{Outlet: config.BuiltInReject}}, dnsfake.ToHost},
		{"bit by bit nobody", route.Rules{{Network: "udp", Outlet: config.BuiltInReject}, {Networks: network, Outlet: config.BuiltInReject}, reject}, dnsfake.ToNobody},
		{"a port of nobody", route.Rules{{Names: names, Ports: []uint16{25}, Outlet: config.BuiltInReject}}, dnsfake.ToGateway},
		{"a network of nobody", route.Rules{{Names: names, Networks: network, Outlet: config.BuiltInReject}}, dnsfake.ToGateway},
		{"a port of another name", route.Rules{{Names: []string{"b.test"}, Ports: []uint16{25}, Outlet: config.BuiltInReject}}, dnsfake.ToHost},
		{"a port of all names", route.Rules{{Ports: []uint16{25}, Outlet: config.BuiltInReject}}, dnsfake.ToHost},
		{"past a rule for nobody", route.Rules{{Names: names, Outlet: config.BuiltInDirect}, reject}, dnsfake.ToHost},
		{"nobody but a network", route.Rules{{Networks: network, Outlet: config.BuiltInDirect}, reject}, dnsfake.ToGateway},
		{"nobody but a port", route.Rules{{Names: names, Ports: []uint16{443}, Outlet: config.BuiltInDirect}, reject}, dnsfake.ToGateway},
		{"a user of nobody", route.Rules{{Names: names, Users: []string{"alice"}, Outlet: config.BuiltInReject}, far}, dnsfake.ToChain},
	} {
		p.flows.Rules = tt.rules
		if got := p.way(netip.MustParseAddr("192.0.2.77"), "a.test"); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
		}
	}
}
