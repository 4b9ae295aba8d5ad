package appliance

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"sixgate/appliance/config"
	"sixgate/socks"
	"sixgate/socks/outlet"
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
