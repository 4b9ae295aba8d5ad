package socks

import (
	"fmt"
	"net"
	"syscall"
	"time"
)

// errGone ends the context of a request whose client has closed.
var errGone = fmt.Errorf("the client has closed: %w", syscall.ECONNABORTED)

// watchAfter is how long a request may take before its client is watched: most
// are answered sooner, and to watch costs as much as to answer.
const watchAfter = 50 * time.Millisecond

// watch calls gone when conn's peer closes it, until stop is called. It takes
// none of the octets that the peer has sent already, and does not see an end
// behind them: that may be a half-close, after which an answer is wanted.
func watch(conn net.Conn, gone func()) (stop func()) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	done := make(chan struct{})
	begin := time.AfterFunc(watchAfter, func() {
		defer close(done)
		if raw.Read(atEnd) == nil {
			gone()
		}
	})
	return func() {
		if begin.Stop() {
			return
		}
		// These fail only on a closed connection, which ends the wait too.
		conn.SetReadDeadline(time.Unix(1, 0))
		<-done
		conn.SetReadDeadline(time.Time{})
	}
}

// atEnd reports whether there will be nothing to read from fd any more.
func atEnd(fd uintptr) bool {
	for {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch err {
		case nil:
			return n == 0
		case syscall.EINTR:
		default:
			return err != syscall.EAGAIN
		}
	}
}
