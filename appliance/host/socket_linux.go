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
// be it that its handshake is still under way.
func Carries(client, dest netip.AddrPort) (bool, error) {
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	request.AddRawData(socketQuery(client, dest))
	found, err := request.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil || len(found) == 0 || len(found[0]) < 2 {
		return false, fmt.Errorf("looking for the connection of %s to %s: %w", client, dest, errors.Join(err, unix.ENODATA))
	}
	return found[0][1] != tcpListen, nil // a socket for all addresses is found, too
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
