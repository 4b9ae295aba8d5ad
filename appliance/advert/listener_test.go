package advert

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// asking is a Link that notes where routers are asked.
type asking struct {
	*cable
	at []int // guarded by cable.mu
}

func (a *asking) Send(iface int, to netip.Addr, octets []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if to == allRouters() && solicits(octets, netip.MustParseAddr(ourAddress)) {
		a.at = append(a.at, iface)
	}
	return nil
}

// asked returns where routers were asked since the last time.
func (a *asking) asked() (at []int) {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	at, a.at = a.at, nil
	return at
}

// hearing runs a listener until test returns.
func hearing(t *testing.T, test func(l *Listener, link *asking, heard *[]int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		link, heard := &asking{cable: newCable()}, []int(nil)
		l := NewListener(link, func(iface int, _ netip.Addr, _ Message) { heard = append(heard, iface) }, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		test(l, link, &heard)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestAsked wants routers asked thrice where none answers, and no more where one
// has.
func TestAsked(t *testing.T) {
	hearing(t, func(l *Listener, link *asking, _ *[]int) {
		time.Sleep(time.Minute)
		if at := link.asked(); at != nil {
			t.Errorf("nobody is to be asked, and %v were", at)
		}
		l.Follow([]int{2})
		time.Sleep(time.Minute)
		if at := link.asked(); !slices.Equal(at, []int{2, 2, 2}) {
			t.Errorf("at 2, %v were asked", at)
		}
		l.Follow([]int{2, 3})
		if at := link.asked(); !slices.Equal(at, []int{3}) {
			t.Errorf("at 3, %v were asked", at)
		}
		link.packets <- Packet{Octets: Message{}.Marshal(), From: netip.MustParseAddr("fe80::2"), HopLimit: neighbourly, Interface: 3}
		time.Sleep(time.Minute)
		if at := link.asked(); at != nil {
			t.Errorf("after an answer %v were asked", at)
		}
		l.Follow(nil)
		synctest.Wait()
		l.Follow([]int{2})
		if at := link.asked(); !slices.Equal(at, []int{2}) {
			t.Errorf("back at 2, %v were asked", at)
		}
	})
}

// TestHeard wants only routers of the wanted interfaces to be heard.
func TestHeard(t *testing.T) {
	hearing(t, func(l *Listener, link *asking, heard *[]int) {
		l.Follow([]int{2, 5})
		good := Packet{Octets: Message{}.Marshal(), From: netip.MustParseAddr("fe80::2"), HopLimit: neighbourly, Interface: 2}
		for _, change := range []func(*Packet){
			func(*Packet) {},
			func(p *Packet) { p.Interface = 3 },
			func(p *Packet) { p.HopLimit = 254 },
			func(p *Packet) { p.From = netip.MustParseAddr("2001:db8::2") },
			func(p *Packet) { p.Octets = solicitation() },
			func(p *Packet) { p.Octets = p.Octets[:8] },
			func(p *Packet) { p.Interface = 5 },
		} {
			p := good
			change(&p)
			link.packets <- p
		}
		synctest.Wait()
		if !slices.Equal(*heard, []int{2, 5}) {
			t.Errorf("heard were %v", *heard)
		}
	})
}
