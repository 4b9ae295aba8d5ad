package stack

import (
	"net/netip"
	"testing"
	"time"

	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Who provokes ever more messages gets some, and takes none of another's.
func TestTellingIsShared(t *testing.T) {
	network := netstack.New(netstack.Options{})
	defer network.Destroy()
	tell, now := &teller{network: network}, time.Now()
	greedy, other := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	for range 2 {
		told := 0
		for range 10 * maxTold {
			if tell.mayTell(greedy, now) {
				told++
			}
		}
		if told != maxTold || !tell.mayTell(other, now) {
			t.Errorf("%d messages for one client, and maybe none for the other", told)
		}
		now = now.Add(tellingTime)
	}
	if len(tell.told) != 2 {
		t.Errorf("%d clients are remembered", len(tell.told))
	}
}
