package dnsfake

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	controlSize = 64 // octets; more than a struct in6_pktinfo with its header
	// maxQuery is room for a query with every EDNS option in use; what is
	// longer is cut, and answered as malformed.
	maxQuery = 4096
)

// ServePacket answers the queries that arrive on conn until ctx ends, then
// returns nil. It closes conn and waits for its goroutines before it returns.
func (s *Server) ServePacket(ctx context.Context, conn *net.UDPConn) error {
	ctx, cancel := context.WithCancel(ctx)
	var answers sync.WaitGroup
	defer answers.Wait()
	defer cancel()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// On a socket that is bound to no address, replies leave from the address
	// that the query was sent to: another would not be a reply to the client.
	// The kernel takes as the source what it gave as the destination.
	var control []byte
	if addrPort(conn.LocalAddr()).Addr().IsUnspecified() {
		if err := wantPacketInfo(conn); err != nil {
			return fmt.Errorf("asking for destinations on %s: %w", conn.LocalAddr(), err)
		}
		control = make([]byte, controlSize)
	}
	query, reply := make([]byte, maxQuery), make([]byte, 0, plainSize)
	for {
		n, controls, _, from, err := conn.ReadMsgUDPAddrPort(query, control)
		if ctx.Err() != nil {
			return nil
		}
		if short(err) {
			s.warn("reading queries", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("reading queries on %s: %w", conn.LocalAddr(), err)
		}
		client := from.Addr().Unmap()
		if reply, done := s.quick(reply[:0], query[:n], client); done {
			if len(reply) > 0 { // that it cannot be sent is no more than its loss
				conn.WriteMsgUDPAddrPort(reply, control[:controls], from)
			}
			continue
		}
		if !s.waiting.take(client) { // the client asks again
			s.count(dropped)
			continue
		}
		query, control := append([]byte(nil), query[:n]...), append([]byte(nil), control[:controls]...)
		answers.Go(func() {
			defer s.waiting.give(client)
			if reply := s.slow(ctx, query, client, false); reply != nil && ctx.Err() == nil {
				conn.WriteMsgUDPAddrPort(reply, control, from)
			}
		})
	}
}

// wantPacketInfo has the kernel say with each datagram where it was sent to; see
// ip(7), and RFC 3542, section 6.
func wantPacketInfo(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	level, option := syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO
	if addrPort(c.LocalAddr()).Addr().Is4() {
		level, option = syscall.IPPROTO_IP, syscall.IP_PKTINFO
	}
	controlErr := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), level, option, 1) })
	if controlErr != nil {
		return controlErr
	}
	return err
}
