package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// tcpListen is TCP_LISTEN of Linux's include/net/tcp_states.h.
const tcpListen = 10

// Carries reports whether the kernel has a TCP connection of a client to dest,
// be it that its handshake is still under way. A kernel without inet_diag and
// tcp_diag has none: see TellsOf.
func Carries(client, dest netip.AddrPort) (bool, error) {
	state, err := socketState(client, dest)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return state != tcpListen, err // a socket for all addresses is found, too
}

// TellsOf reports whether the kernel tells of socket, which listens.
func TellsOf(socket netip.AddrPort) bool {
	nobody := netip.AddrPortFrom(socket.Addr(), 0)
	state, err := socketState(nobody, socket)
	return err == nil && state == tcpListen
}

// socketState returns the state of the socket that gets what a client sends to
// dest, and ENOENT where there is none.
func socketState(client, dest netip.AddrPort) (byte, error) {
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	request.AddRawData(socketQuery(client, dest))
	found, err := request.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err == nil && (len(found) == 0 || len(found[0]) < 2) {
		err = unix.EBADMSG
	}
	if err != nil {
		return 0, fmt.Errorf("looking for the socket of %s for %s: %w", dest, client, err)
	}
	return found[0][1], nil // struct inet_diag_msg: family, state
}

// socketQuery returns a struct inet_diag_req_v2 (sock_diag(7)): family,
// protocol, extensions, padding, states, then ports and addresses in network
// order, interface and cookie.
func socketQuery(client, dest netip.AddrPort) []byte {
	b := make([]byte, 56)
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_TCP
	if dest.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(b[4:], 1<<32-1) // all states
	binary.BigEndian.PutUint16(b[8:], dest.Port())
	binary.BigEndian.PutUint16(b[10:], client.Port())
	copy(b[12:28], dest.Addr().AsSlice())
	copy(b[28:44], client.Addr().AsSlice())
	binary.NativeEndian.PutUint64(b[48:], 1<<64-1) // INET_DIAG_NOCOOKIE
	return b
}
