package socks

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
)

// Listening is where a server opens the sockets that it tells its clients of:
// relays of UDP, and those that wait for the peer of a BIND. The zero Listening
// is at any port of the host's own addresses.
type Listening struct {
	Ports    Ports
	External []netip.Addr // at most one of a family, which NAT translates to the host's
}

// Told returns what to tell of a socket: the external address of its family
// in the place of its own, but of one on loopback, which no NAT leads to.
func (l Listening) Told(socket netip.AddrPort) netip.AddrPort {
	for _, ip := range l.External {
		if ip.Is4() == socket.Addr().Is4() && !socket.Addr().IsLoopback() {
			return netip.AddrPortFrom(ip, socket.Port())
		}
	}
	return socket
}

// Ports are those from First to Last. The zero Ports are any.
type Ports struct{ First, Last uint16 }

// Open calls open with ports of p, from one at random on, until it returns
// another error than EADDRINUSE; with 0, for any, where p is zero.
func (p Ports) Open(open func(port uint16) error) error {
	if p == (Ports{}) {
		return open(0)
	}
	count := int(p.Last-p.First) + 1
	for i, start := 0, rand.IntN(count); i < count; i++ {
		if err := open(p.First + uint16((start+i)%count)); !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return fmt.Errorf("opening one of the ports %d to %d, which all are taken: %w", p.First, p.Last, syscall.EADDRINUSE)
}
