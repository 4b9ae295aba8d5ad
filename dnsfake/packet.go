package dnsfake

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	controlSize = 64 // octets; more than a struct in6_pktinfo with its header
	// maxQuery is room for a query with every EDNS option in use; what is
	// longer is cut, and answered as malformed.
	maxQuery = 4096
	// maxBatch is how many queries are taken from the kernel at a time, and
	// replies given to it.
	maxBatch = 16
	// readBuffer is how much may wait in the kernel, in octets, which counts each
	// query as some 400. By itself Linux takes 250 queries, which a flood sends
	// while another goroutine has the processor.
	readBuffer = 512 << 10
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
	controls := 0
	if addrPort(conn.LocalAddr()).Addr().IsUnspecified() {
		if err := wantPacketInfo(conn); err != nil {
			return fmt.Errorf("asking for destinations on %s: %w", conn.LocalAddr(), err)
		}
		controls = controlSize
	}
	if err := widen(conn); err != nil {
		return fmt.Errorf("making room for queries on %s: %w", conn.LocalAddr(), err)
	}
	batches := ipv4.NewPacketConn(conn) // of either family
	queries, replies := newMessages(maxQuery, controls), newMessages(plainSize, 0)
	for {
		n, err := batches.ReadBatch(queries, 0)
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
		ready := 0
		for i := range queries[:n] {
			q, r := &queries[i], &replies[ready]
			from := q.Addr.(*net.UDPAddr).AddrPort()
			query, control, client := q.Buffers[0][:q.N], q.OOB[:q.NN], from.Addr().Unmap()
			if reply, done := s.quick(r.Buffers[0][:0], query, client); done {
				if len(reply) > 0 {
					r.Buffers[0], r.OOB, r.Addr = reply, control, q.Addr
					ready++
				}
				continue
			}
			if !s.waiting.take(client) { // the client asks again
				s.count(dropped)
				continue
			}
			query, control = append([]byte(nil), query...), append([]byte(nil), control...)
			answers.Go(func() {
				defer s.waiting.give(client)
				if reply := s.slow(ctx, query, client, false); reply != nil && ctx.Err() == nil {
					conn.WriteMsgUDPAddrPort(reply, control, from)
				}
			})
		}
		send(batches, replies[:ready])
	}
}

// newMessages returns room for a batch of datagrams of so many octets, and of
// their control messages.
func newMessages(size, controls int) []ipv4.Message {
	messages := make([]ipv4.Message, maxBatch)
	for i := range messages {
		messages[i] = ipv4.Message{Buffers: [][]byte{make([]byte, size)}, OOB: make([]byte, controls)}
	}
	return messages
}

// send sends replies. That one cannot be sent is no more than its loss.
func send(conn *ipv4.PacketConn, replies []ipv4.Message) {
	for len(replies) > 0 {
		n, err := conn.WriteBatch(replies, 0)
		if err != nil {
			n = 1 // the first one's
		}
		replies = replies[n:]
	}
}

// widen gives conn readBuffer, or as much of it as a process without privileges
// may have.
func widen(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var forced error
	if err := raw.Control(func(fd uintptr) {
		forced = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, readBuffer)
	}); err != nil {
		return err
	}
	if forced == nil {
		return nil
	}
	return conn.SetReadBuffer(readBuffer)
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
