package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// splicePort is where nft redirects to. It is none of the ports that the
// gate's own connections are given.
const splicePort = 1000

// splice is a relay behind an nft redirect, until ctx ends: what a gateway in
// user space costs at the least. io.Copy splices between kernel sockets.
func splice(ctx context.Context, _ []string) error {
	listener, err := net.Listen("tcp4", ":"+strconv.Itoa(splicePort))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("accepting a connection: %w", err)
		}
		go join(client.(*net.TCPConn))
	}
}

// join carries a redirected connection to where it was meant for.
func join(client *net.TCPConn) {
	defer client.Close()
	dest, err := originalDestination(client)
	if err != nil {
		return
	}
	conn, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(dest))
	if err != nil {
		return
	}
	defer conn.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(conn, client)
		conn.CloseWrite()
	}()
	io.Copy(client, conn)
	client.CloseWrite()
	<-done
}

// originalDestination is where a connection went before nft redirected it.
func originalDestination(conn *net.TCPConn) (dest netip.AddrPort, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return dest, err
	}
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		// The kernel writes a sockaddr_in, which fits into this structure.
		var addr *unix.IPv6Mreq
		if addr, sockErr = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); sockErr == nil {
			sockaddr := addr.Multiaddr[:]
			dest = netip.AddrPortFrom(netip.AddrFrom4([4]byte(sockaddr[4:8])), binary.BigEndian.Uint16(sockaddr[2:4]))
		}
	})
	return dest, errors.Join(err, sockErr)
}
