package outlet

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"sixgate/socks"
)

// Via is the way out through a SOCKS server (RFC 3089, section 4). A name
// travels to the server as it is, and is never looked up on this side.
type Via struct {
	over   Outlet
	client socks.Client
	vet    func(netip.Addr) error // may be nil
	health *health                // never nil; of all that For returns
	ports  *viaPorts              // likewise
	key    []byte                 // of the names by which the server knows clients; nil: it knows none
}

// NewVia returns the way out through the server of client, which over dials.
// With another Via for over it is a chain, of any length. The server is
// trusted to be where it is, and not to name others: vet, which may be nil,
// tells which other addresses must not get datagrams at its word.
func NewVia(over Outlet, client socks.Client, vet func(netip.Addr) error) *Via {
	return &Via{over: over, client: client, vet: vet, health: &health{}, ports: &viaPorts{opened: make(map[netip.AddrPort][]*viaPort)}}
}

// Isolated returns v as it keeps clients apart: to its server each of them is a
// user of another name, which tells nothing of the client. A server that makes
// circuits by user, as Tor does, has none shared by two then.
func (v *Via) Isolated() *Via {
	isolated := *v
	isolated.key = make([]byte, sha256.Size)
	rand.Read(isolated.key) // never fails
	return &isolated
}

// Isolates reports whether a server on the way, v's or one before it, keeps
// clients apart.
func (v *Via) Isolates() bool {
	via, chained := v.over.(*Via)
	return v.key != nil || chained && via.Isolates()
}

// For returns v as it serves one client.
func (v *Via) For(client string) *Via {
	one := *v
	if via, ok := v.over.(*Via); ok {
		one.over = via.For(client)
	}
	if v.key != nil {
		mac := hmac.New(sha256.New, v.key)
		io.WriteString(mac, client)
		name := base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
		one.client.Username, one.client.Password, one.client.Required = name, name, true
	}
	return &one
}

// Dial connects to dest, by TCP alone: Reach and ListenPacket are for datagrams.
func (v *Via) Dial(ctx context.Context, network string, dest socks.Addr) (net.Conn, error) {
	if network != "tcp" {
		return nil, fmt.Errorf("dialling %s by %s through SOCKS server %s: %w", dest, network, v.client.Server, syscall.EOPNOTSUPP)
	}
	conn, err := v.reach(ctx)
	if err != nil {
		return nil, err
	}
	bound, err := v.client.Connect(ctx, conn, dest)
	if v.note(err) != nil {
		conn.Close()
		return nil, err
	}
	return boundTo(conn, bound), nil
}

// keepAliveIdle is when TCP asks whether a silent server still lives, before
// the timers of most NATs on the way forget it.
const keepAliveIdle = time.Minute

// reach connects to the server, whose end a silent connection must not miss.
func (v *Via) reach(ctx context.Context) (net.Conn, error) {
	conn, err := v.over.Dial(ctx, "tcp", v.client.Server)
	if err != nil {
		return nil, v.health.note(v.client.Server, false, fmt.Errorf("reaching SOCKS server %s: %w", v.client.Server, err))
	}
	if c, ok := conn.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		// Fails only on a connection that is already gone.
		c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Count: -1})
	}
	return conn, nil
}

// note notes the outcome of asking the server once it was reached.
func (v *Via) note(err error) error { return v.health.note(v.client.Server, true, err) }

// reachable returns bound, an address that the server at the other end of conn
// has told, or the server's own in the place of an unspecified one.
func (v *Via) reachable(bound socks.Addr, conn net.Conn) socks.Addr {
	if bound.IsName() || bound.IP.IsValid() && !bound.IP.IsUnspecified() {
		return bound
	}
	server := v.client.Server
	if far := socks.AddrPortOf(conn.RemoteAddr()); far.IsValid() && !v.chained() {
		server = socks.AddrFromAddrPort(far)
	}
	server.Port = bound.Port
	return server
}

// relay returns where to send the datagrams for which the server at the other
// end of conn has told the address bound. One that no public server can mean is
// that of a server behind a NAT, which leads to it by its public one.
func (v *Via) relay(bound socks.Addr, conn net.Conn) socks.Addr {
	server := v.reachable(socks.Addr{Port: bound.Port}, conn)
	if isPublic(server.IP) && bound.IP.IsValid() && !isPublic(bound.IP) {
		return server
	}
	return v.reachable(bound, conn)
}

func isPublic(ip netip.Addr) bool { return ip.IsGlobalUnicast() && !ip.IsPrivate() }

// chained reports whether another server reaches this one for us. It is then
// the one that sends datagrams to wherever this one wants them, and that has
// to be careful.
func (v *Via) chained() bool {
	_, chained := v.over.(*Via)
	return chained
}

// vetRelay returns why datagrams must not go to relay, for which the server at
// the other end of conn asks: it might use us to reach what it cannot.
func (v *Via) vetRelay(relay socks.Addr, conn net.Conn) error {
	switch far := socks.AddrPortOf(conn.RemoteAddr()); {
	case v.chained() || relay.IP.IsValid() && relay.IP == far.Addr():
		return nil
	case relay.IsName():
		return fmt.Errorf("a relay by the name %s: %w", relay, syscall.EPROTO)
	case v.vet == nil:
		return nil
	}
	return v.vet(relay.IP)
}

// Resolve asks the server, which has to speak Tor's RESOLVE.
func (v *Via) Resolve(ctx context.Context, name string) (netip.Addr, error) {
	conn, err := v.reach(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	ip, err := v.client.Resolve(ctx, conn, name)
	return ip, v.note(err)
}

// ResolvePTR asks the server, which has to speak Tor's RESOLVE_PTR.
func (v *Via) ResolvePTR(ctx context.Context, ip netip.Addr) (string, error) {
	conn, err := v.reach(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	name, err := v.client.ResolvePTR(ctx, conn, ip)
	return name, v.note(err)
}

// Bind asks the server to listen.
func (v *Via) Bind(ctx context.Context, peer socks.Addr) (Binding, error) {
	conn, err := v.reach(ctx)
	if err != nil {
		return nil, err
	}
	bound, err := v.client.Bind(ctx, conn, peer)
	if v.note(err) != nil {
		conn.Close()
		return nil, err
	}
	return &viaBinding{via: v, conn: conn, bound: v.reachable(bound, conn)}, nil
}

// viaBinding is the Binding of a Via.
type viaBinding struct {
	via   *Via
	conn  net.Conn // nil when Accept has given it away
	bound socks.Addr
}

func (b *viaBinding) Addr() netip.AddrPort { return b.bound.AddrPort() }

func (b *viaBinding) Accept(ctx context.Context) (net.Conn, netip.AddrPort, error) {
	peer, err := b.via.client.Bound(ctx, b.conn)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	conn := b.conn
	b.conn = nil
	return conn, peer.AddrPort(), nil
}

func (b *viaBinding) Close() error {
	if b.conn == nil {
		return nil
	}
	return b.conn.Close()
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
