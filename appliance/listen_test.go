package appliance

import (
	"net/netip"
	"testing"
)

// TestListenOnFamily wants 0.0.0.0 to be what it is, IPv4: who lists it does not
// mean to serve IPv6.
func TestListenOnFamily(t *testing.T) {
	for _, want := range []string{"0.0.0.0", "127.0.0.1", "::", "::1"} {
		opened, err := listen(t.Context(), "the test", true, []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(want), 0)})
		if err != nil {
			t.Fatal(err)
		}
		defer opened[0].Close()
		for _, got := range []netip.AddrPort{addrPort(opened[0].listener.Addr()), addrPort(opened[0].packet.LocalAddr())} {
			if got.Addr().String() != want {
				t.Errorf("%s became %s", want, got)
			}
		}
	}
}
