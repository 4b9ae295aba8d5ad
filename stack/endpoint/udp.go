package endpoint

import (
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// UDP is a connected UDP socket: one datagram a call.
type UDP struct {
	conn
}

// NewUDP returns the socket of ep, a connected endpoint that notifies queue,
// between local and remote.
func NewUDP(ep tcpip.Endpoint, queue *waiter.Queue, local, remote netip.AddrPort) *UDP {
	c := &UDP{}
	c.init(ep, queue, net.UDPAddrFromAddrPort(local), net.UDPAddrFromAddrPort(remote))
	return c
}

// Read reads one datagram; what does not fit into b is lost. An ICMP port
// unreachable of the peer is ECONNREFUSED.
func (c *UDP) Read(b []byte) (int, error) {
	n, terr, err := c.read(b)
	if _, ok := terr.(*tcpip.ErrClosedForReceive); ok {
		err = net.ErrClosed // by the stack: a datagram socket has no other end
	} else if terr != nil {
		err = Errno(terr)
	}
	if err != nil {
		return 0, c.opError("read", err)
	}
	return n, nil
}

// Write sends b as one datagram.
func (c *UDP) Write(b []byte) (int, error) {
	n, terr, err := c.write(b)
	if terr != nil {
		err = Errno(terr)
	}
	if err != nil {
		return 0, c.opError("write", err)
	}
	return n, nil
}
