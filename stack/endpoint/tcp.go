package endpoint

import (
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// TCP is a TCP connection.
type TCP struct {
	conn
}

// NewTCP returns the connection of ep, a connected endpoint that notifies
// queue, between local and remote.
func NewTCP(ep tcpip.Endpoint, queue *waiter.Queue, local, remote netip.AddrPort) *TCP {
	c := &TCP{}
	c.init(ep, queue, net.TCPAddrFromAddrPort(local), net.TCPAddrFromAddrPort(remote))
	return c
}

// Read returns io.EOF after a FIN, and an ECONNRESET after an RST.
func (c *TCP) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, terr, err := c.read(b)
	if err != nil {
		return 0, c.opError("read", err)
	}
	if terr != nil {
		return 0, c.readError(terr)
	}
	c.ep.ModerateRecvBuf(n)
	return n, nil
}

// readError returns the error for terr, io.EOF among them.
func (c *TCP) readError(terr tcpip.Error) error {
	if _, ok := terr.(*tcpip.ErrClosedForReceive); !ok {
		return c.opError("read", Errno(terr))
	}
	// Netstack tells of an RST once, to whichever call comes first: when that
	// was a Write, only the state still tells it from a FIN.
	if tcp.EndpointState(c.ep.State()) == tcp.StateError {
		return c.opError("read", syscall.ECONNRESET)
	}
	return io.EOF
}

// Write returns when all of b is in the send buffer.
func (c *TCP) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		n, terr, err := c.write(b[written:])
		written += n
		if terr != nil {
			err = Errno(terr)
		}
		if err != nil {
			return written, c.opError("write", err)
		}
	}
	return written, nil
}

// CloseWrite sends a FIN after what is written; reading goes on.
func (c *TCP) CloseWrite() error {
	if terr := c.ep.Shutdown(tcpip.ShutdownWrite); terr != nil {
		return c.opError("close", Errno(terr))
	}
	return nil
}

// SetLinger has the meaning of net.TCPConn.SetLinger: with 0 seconds, Close
// discards unsent data and sends an RST.
func (c *TCP) SetLinger(sec int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{
		Enabled: sec >= 0,
		Timeout: time.Duration(max(sec, 0)) * time.Second,
	})
	return nil
}

// SetKeepAliveConfig has the meaning of net.TCPConn.SetKeepAliveConfig, but
// that every field of an enabled config must be positive.
func (c *TCP) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	idle := tcpip.KeepaliveIdleOption(config.Idle)
	interval := tcpip.KeepaliveIntervalOption(config.Interval)
	if terr := c.ep.SetSockOpt(&idle); terr != nil {
		return c.opError("set", Errno(terr))
	}
	if terr := c.ep.SetSockOpt(&interval); terr != nil {
		return c.opError("set", Errno(terr))
	}
	if terr := c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, config.Count); terr != nil {
		return c.opError("set", Errno(terr))
	}
	c.ep.SocketOptions().SetKeepAlive(config.Enable)
	return nil
}
