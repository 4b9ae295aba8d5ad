package relay

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// tcpClose is TCP_CLOSE of Linux's include/net/tcp_states.h.
const tcpClose = 7

// gone reports whether the kernel has no more connection behind c, which has
// just read its end. That is so after a reset of which a write has already
// taken the ECONNRESET, for the kernel tells of it once, and reads then find a
// plain end. It is also so when the peer's host has, long after its good end,
// forgotten the connection and answered a keepalive by a reset.
func gone(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	state := uint8(0)
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return err == nil && state == tcpClose
}
