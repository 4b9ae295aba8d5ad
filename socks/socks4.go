package socks

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
)

// Result codes of SOCKS4 replies.
const (
	granted4  = 90
	rejected4 = 91
)

// maxUserID bounds the USERID of SOCKS4, which has no bound of its own.
const maxUserID = 255

// marker4 holds the addresses 0.0.0.x that in SOCKS4A announce a name.
var marker4 = netip.MustParsePrefix("0.0.0.0/24")

// handshake4 goes on after the version. USERID is a claim and no proof, so
// there is no SOCKS4 for a server with Users.
func (s *Server) handshake4(conn net.Conn) (*Request, error) {
	head, userID, host, err := readRequest4(conn)
	if err != nil {
		return nil, fmt.Errorf("reading the SOCKS4 request: %w", err)
	}
	command, dest, err := parseRequest4(head, userID, host)
	if err == nil && s.access().Users != nil {
		err = fmt.Errorf("SOCKS4 has no passwords: %w", syscall.EACCES)
	}
	if err != nil {
		conn.Write(appendReply4(nil, ReplyOf(err), Addr{})) // the error to return is err
		return nil, err
	}
	return &Request{conn: conn, append: appendReply4, server: s, command: command, dest: dest}, nil
}

// readRequest4 reads a SOCKS4 or 4A request after its version, and not one
// octet more: CD, DSTPORT and DSTIP, the USERID, and the name of 4A. A string
// that is too long ends with its first octet too many.
func readRequest4(r io.Reader) (head, userID, host []byte, err error) {
	if head, err = readOctets(r, nil, 1+2+4); err != nil {
		return nil, nil, nil, err
	}
	if userID, err = readString(r, maxUserID); err != nil || len(userID) > maxUserID {
		return head, userID, nil, err
	}
	if isMarker4(netip.AddrFrom4([4]byte(head[3:]))) {
		host, err = readString(r, maxName+1) // a name may end in a dot
	}
	return head, userID, host, err
}

func isMarker4(ip netip.Addr) bool { return marker4.Contains(ip) && !ip.IsUnspecified() }

// readString reads up to a NUL, which it leaves out, or up to max+1 octets.
func readString(r io.Reader, max int) (b []byte, err error) {
	for len(b) <= max {
		if b, err = readOctets(r, b, 1); err != nil {
			return nil, err
		}
		if b[len(b)-1] == 0 {
			return b[:len(b)-1], nil
		}
	}
	return b, nil
}

// parseRequest4 parses what readRequest4 has read.
func parseRequest4(head, userID, host []byte) (Command, Addr, error) {
	command := Command(head[0])
	port, ip := binary.BigEndian.Uint16(head[1:]), netip.AddrFrom4([4]byte(head[3:]))
	switch {
	case command != CommandConnect && command != CommandBind:
		return command, Addr{}, fmt.Errorf("parsing SOCKS4 command %#02x: %w", head[0], syscall.EOPNOTSUPP)
	case len(userID) > maxUserID:
		return command, Addr{}, fmt.Errorf("parsing a USERID over %d octets: %w", maxUserID, syscall.EPROTO)
	}
	dest := Addr{IP: ip, Port: port}
	if isMarker4(ip) {
		var err error
		if dest, err = ParseHost(string(host), port); err != nil {
			return command, Addr{}, fmt.Errorf("%w: %w", err, syscall.EHOSTUNREACH)
		}
	}
	return command, dest, checkDest(command, dest)
}

// appendReply4 appends a SOCKS4 reply, which has no room for an IPv6 address.
func appendReply4(b []byte, code Reply, bound Addr) []byte {
	result, ip := byte(rejected4), [4]byte{}
	if code == Succeeded {
		result = granted4
	}
	if bound.IP.Is4() {
		ip = bound.IP.As4()
	}
	return append(binary.BigEndian.AppendUint16(append(b, 0, result), bound.Port), ip[:]...)
}
