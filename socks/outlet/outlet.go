package outlet

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"sixgate/socks"
)

// Outlet is a way out. The errors of Dial tell a syscall.Errno; network is
// "tcp" or "udp". LocalAddr of the connection is where the far end sees it come
// from, as far as that is known, so that its family is the far side's.
type Outlet interface {
	Dial(ctx context.Context, network string, dest socks.Addr) (net.Conn, error)
}

// Reject is the way out that is none: its Dial is EACCES.
type Reject struct{}

// Dial returns EACCES.
func (Reject) Dial(_ context.Context, _ string, dest socks.Addr) (net.Conn, error) {
	return nil, fmt.Errorf("dialling %s: rejected by rule: %w", dest, syscall.EACCES)
}
