package outlet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"sixgate/socks"
	"sixgate/socks/datagram"
)

// Outlet is a way out. The errors of Dial tell a syscall.Errno. LocalAddr of the
// connection is where the far end sees it come from, as far as that is known, so
// that its family is the far side's. Datagrams are for a PeerOutlet or a
// PacketOutlet.
type Outlet interface {
	Dial(ctx context.Context, network string, dest socks.Addr) (net.Conn, error)
}

// PacketOutlet is an Outlet that takes datagrams to many destinations.
type PacketOutlet interface {
	// ListenPacket opens a PacketConn; ctx bounds the opening.
	ListenPacket(ctx context.Context) (PacketConn, error)
}

// PacketConn exchanges datagrams with many destinations, and is the same
// address to all of them (RFC 4787, section 4.1). Only those that were written
// to are heard (section 5, address-dependent filtering).
type PacketConn interface {
	// Find gets ready to send to dest. It may have to look up a name, which ctx
	// bounds, and answers for it by the same address from then on.
	Find(ctx context.Context, dest socks.Addr) error
	// Send sends b to dest, and never waits. Who was not found, or not sent to
	// for long, is EDESTADDRREQ: it is to be found again.
	Send(b datagram.Batch, dest socks.Addr) error
	// Forward makes the PacketConn call take with what comes in, and the address
	// it comes from, one call at a time. take must not wait, and is done with the
	// payload when it returns.
	Forward(take func(b datagram.Batch, from socks.Addr))
	// Done is closed when nothing comes in any more.
	Done() <-chan struct{}
	Close() error
}

// ResolveOutlet is an Outlet that tells which address of a name it would take,
// and which name an address has.
type ResolveOutlet interface {
	Resolve(ctx context.Context, name string) (netip.Addr, error)
	ResolvePTR(ctx context.Context, ip netip.Addr) (name string, err error)
}

// BindOutlet is an Outlet that takes connections from the far side.
type BindOutlet interface {
	// Bind listens for one connection of peer, of anybody where that is an
	// unspecified address; ctx bounds the opening.
	Bind(ctx context.Context, peer socks.Addr) (Binding, error)
}

// Binding waits for one connection.
type Binding interface {
	// Addr returns where peer may connect to. It may be unspecified.
	Addr() netip.AddrPort
	// Accept waits for the connection and tells where it comes from. It ends
	// the Binding.
	Accept(ctx context.Context) (net.Conn, netip.AddrPort, error)
	// Close ends the Binding, unless Accept has.
	Close() error
}

// Reject is the way out that is none: its Dial is EACCES.
type Reject struct{}

// Dial returns EACCES.
func (Reject) Dial(_ context.Context, _ string, dest socks.Addr) (net.Conn, error) {
	return nil, fmt.Errorf("dialling %s: %w", dest, errRejected)
}

// Reach returns EACCES.
func (Reject) Reach(_ context.Context, _ string, _ netip.AddrPort, dest socks.Addr) (Peer, error) {
	return nil, fmt.Errorf("reaching %s: %w", dest, errRejected)
}

// ListenPacket returns EACCES.
func (Reject) ListenPacket(context.Context) (PacketConn, error) {
	return nil, fmt.Errorf("sending datagrams: %w", errRejected)
}

// Bind returns EACCES.
func (Reject) Bind(_ context.Context, peer socks.Addr) (Binding, error) {
	return nil, fmt.Errorf("binding for %s: %w", peer, errRejected)
}

var errRejected = fmt.Errorf("rejected by rule: %w", syscall.EACCES)
