package dnsfake

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

const (
	maxDatagrams = 2048 // being answered at a time
	controlSize  = 64   // octets; more than a struct in6_pktinfo with its header
)

// ServePacket answers the queries that arrive on pc until ctx ends, then returns
// nil. It closes pc and waits for its goroutines before it returns.
func (s *Server) ServePacket(ctx context.Context, pc net.PacketConn) error {
	ctx, cancel := context.WithCancel(ctx)
	var answers sync.WaitGroup
	defer answers.Wait()
	defer cancel()
	defer pc.Close()
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	receive, err := receiver(pc)
	if err != nil {
		return err
	}
	slots := make(chan struct{}, maxDatagrams)
	buf := make([]byte, streamSize)
	for {
		n, client, send, err := receive(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading queries on %s: %w", pc.LocalAddr(), err)
		}
		select {
		case slots <- struct{}{}:
		default: // the client asks again
			s.count(dropped)
			continue
		}
		query := append([]byte(nil), buf[:n]...)
		answers.Go(func() {
			defer func() { <-slots }()
			if reply := s.Reply(ctx, query, client, false); reply != nil && ctx.Err() == nil {
				send(reply)
			}
		})
	}
}

// receiveFunc reads a datagram into b, and returns where it is from, which may
// be IPv4-mapped, and how to send one back. That a datagram cannot be sent is no
// more than its loss.
type receiveFunc func(b []byte) (n int, from netip.AddrPort, send func([]byte), err error)

// receiver returns pc's receiveFunc. On a socket that is bound to no address,
// replies leave from the address that the query was sent to: another would not
// be a reply to the client.
func receiver(pc net.PacketConn) (receiveFunc, error) {
	udp, ok := pc.(*net.UDPConn)
	if !ok || !addrPort(udp.LocalAddr()).Addr().IsUnspecified() {
		return func(b []byte) (int, netip.AddrPort, func([]byte), error) {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return 0, netip.AddrPort{}, nil, err
			}
			return n, addrPort(from), func(reply []byte) { pc.WriteTo(reply, from) }, nil
		}, nil
	}
	if err := wantPacketInfo(udp); err != nil {
		return nil, fmt.Errorf("asking for destinations on %s: %w", udp.LocalAddr(), err)
	}
	return func(b []byte) (int, netip.AddrPort, func([]byte), error) {
		control := make([]byte, controlSize)
		n, controls, _, from, err := udp.ReadMsgUDPAddrPort(b, control)
		// The kernel takes as the source what it gave as the destination.
		return n, from, func(reply []byte) { udp.WriteMsgUDPAddrPort(reply, control[:controls], from) }, err
	}, nil
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
