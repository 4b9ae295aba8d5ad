package outlet

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"sixgate/socks"
)

// Via is the way out through a SOCKS server (RFC 3089, section 4). A name
// travels to the server as it is, and is never looked up on this side.
type Via struct {
	over   Outlet
	client socks.Client
}

// NewVia returns the way out through the server of client, which over dials.
// With another Via for over it is a chain, of any length.
func NewVia(over Outlet, client socks.Client) *Via {
	return &Via{over: over, client: client}
}

// Dial connects to dest. UDP is EOPNOTSUPP, at once.
func (v *Via) Dial(ctx context.Context, network string, dest socks.Addr) (net.Conn, error) {
	if network != "tcp" {
		return nil, fmt.Errorf("dialling %s through SOCKS server %s: %s: %w", dest, v.client.Server, network, syscall.EOPNOTSUPP)
	}
	conn, err := v.over.Dial(ctx, network, v.client.Server)
	if err != nil {
		return nil, fmt.Errorf("reaching SOCKS server %s: %w", v.client.Server, err)
	}
	bound, err := v.client.Connect(ctx, conn, dest)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return boundTo(conn, bound), nil
}

// boundConn is a connection that comes to the far end from local. It has the
// methods of its TCPConn, among them those that splice.
type boundConn struct {
	*net.TCPConn
	local net.Addr
}

func (c *boundConn) LocalAddr() net.Addr { return c.local }

// boundTo returns conn with bound as its local address, if that is a real one
// and conn is of TCP: a server may have none to tell, or be unwilling to.
func boundTo(conn net.Conn, bound socks.Addr) net.Conn {
	if !bound.IP.IsValid() || bound.IP.IsUnspecified() {
		return conn
	}
	local := net.TCPAddrFromAddrPort(bound.AddrPort())
	switch c := conn.(type) {
	case *net.TCPConn:
		return &boundConn{c, local}
	case *boundConn:
		return &boundConn{c.TCPConn, local}
	}
	return conn
}
