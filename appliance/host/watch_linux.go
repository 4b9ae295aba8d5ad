package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how long the network must be quiet before a change is told: a
// link that comes up or a lease that is renewed comes as a burst.
const settle = 300 * time.Millisecond

// longest bounds a burst: something that never is quiet, as a routing daemon,
// is told of this often.
const longest = 3 * time.Second

// Watch calls changed once it listens, and then after each burst of changes of
// links, addresses, routes, policy or nft tables in the caller's network namespace,
// until ctx ends. What changed it does not say, since a look at the whole is
// the only thing that is never out of date; changes made by changed itself are
// told, too.
func Watch(ctx context.Context, changed func()) error {
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	heard := make(chan struct{}, 1)
	listeners := 0
	ended := make(chan struct{})
	for protocol, groups := range map[int][]uint32{
		unix.NETLINK_ROUTE: {
			unix.RTNLGRP_LINK,
			unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
			unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		},
		unix.NETLINK_NETFILTER: {unix.NFNLGRP_NFTABLES},
	} {
		socket, err := subscribe(protocol, groups)
		if protocol == unix.NETLINK_NETFILTER && (errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EPERM)) {
			continue // there are no tables, or none of an ordinary user's
		}
		if err != nil {
			cancel(err)
			break
		}
		listeners++
		context.AfterFunc(ctx, func() { socket.Close() })
		go func() {
			cancel(listen(ctx, socket, heard))
			ended <- struct{}{}
		}()
	}
	for ok := ctx.Err() == nil; ok; ok = burst(ctx, heard) {
		changed()
	}
	for range listeners {
		<-ended
	}
	if outer.Err() != nil {
		return nil
	}
	return fmt.Errorf("watching the network: %w", context.Cause(ctx))
}

// burst waits for a change and for the end of its burst. It is false when ctx
// ends before.
func burst(ctx context.Context, heard <-chan struct{}) bool {
	select {
	case <-heard:
	case <-ctx.Done():
		return false
	}
	limit := time.After(longest)
	for {
		select {
		case <-heard:
		case <-time.After(settle):
			return true
		case <-limit:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// subscribe opens a netlink socket that gets the notices of groups.
func subscribe(protocol int, groups []uint32) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, group := range groups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group))
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("subscribing to netlink %d: %w", protocol, err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// listen tells heard of every notice until socket is closed. Notices that the
// kernel had no room for (ENOBUFS) are changes, too.
func listen(ctx context.Context, socket *os.File, heard chan<- struct{}) error {
	buf := make([]byte, os.Getpagesize())
	for {
		_, err := socket.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		select {
		case heard <- struct{}{}:
		default: // told already
		}
	}
}
