package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// Reply is a SOCKS5 reply code (RFC 1928, section 6).
type Reply byte

// The reply codes of RFC 1928, section 6.
const (
	Succeeded          Reply = 0
	GeneralFailure     Reply = 1
	NotAllowed         Reply = 2
	NetworkUnreachable Reply = 3
	HostUnreachable    Reply = 4
	ConnectionRefused  Reply = 5
	TTLExpired         Reply = 6
	CommandUnsupported Reply = 7
	AddressUnsupported Reply = 8
)

var replyNames = [...]string{
	Succeeded:          "succeeded",
	GeneralFailure:     "general failure",
	NotAllowed:         "not allowed by ruleset",
	NetworkUnreachable: "network unreachable",
	HostUnreachable:    "host unreachable",
	ConnectionRefused:  "connection refused",
	TTLExpired:         "TTL expired",
	CommandUnsupported: "command not supported",
	AddressUnsupported: "address type not supported",
}

func (r Reply) String() string {
	if int(r) < len(replyNames) {
		return replyNames[r]
	}
	return fmt.Sprintf("reply %#02x", byte(r))
}

// replyErrnos pairs each code with the errno that means the same.
var replyErrnos = map[Reply]syscall.Errno{
	NotAllowed:         syscall.EACCES,
	NetworkUnreachable: syscall.ENETUNREACH,
	HostUnreachable:    syscall.EHOSTUNREACH,
	ConnectionRefused:  syscall.ECONNREFUSED,
	TTLExpired:         syscall.ETIMEDOUT,
	CommandUnsupported: syscall.EOPNOTSUPP,
	AddressUnsupported: syscall.EAFNOSUPPORT,
}

// ReplyError is a refusal by a SOCKS server.
type ReplyError struct {
	Hop  Addr // the server that refused
	Code Reply
}

func (e *ReplyError) Error() string {
	return fmt.Sprintf("refused by SOCKS server %s: %s", e.Hop, e.Code)
}

// Unwrap returns the errno that means the same as the code; EIO says as little
// as a general failure or an unknown code does.
func (e *ReplyError) Unwrap() error {
	if errno, ok := replyErrnos[e.Code]; ok {
		return errno
	}
	return syscall.EIO
}

// ReplyOf returns the code that tells a client of err. Timeouts are
// TTLExpired, as in Dante: its clients turn 6 into ETIMEDOUT, and nothing else
// uses it.
func ReplyOf(err error) Reply {
	var dns *net.DNSError
	var hop *ReplyError
	switch {
	case err == nil:
		return Succeeded
	case errors.As(err, &hop) && hop.Code <= AddressUnsupported:
		return hop.Code
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return NotAllowed
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return ConnectionRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN), errors.As(err, &dns):
		return HostUnreachable
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN):
		return NetworkUnreachable
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return TTLExpired
	case errors.Is(err, syscall.EOPNOTSUPP):
		return CommandUnsupported
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return AddressUnsupported
	}
	return GeneralFailure
}

// appendReply appends a reply (RFC 1928, section 6). bound is BND.ADDR and
// BND.PORT, zero in a failure.
func appendReply(b []byte, code Reply, bound Addr) []byte {
	return bound.AppendTo(append(b, version, byte(code), 0))
}

// readReply reads the octets of a reply, and not one more. A refusal ends after
// its code, as some servers send no more of it.
func readReply(r io.Reader) ([]byte, error) {
	b, err := readOctets(r, nil, 2)
	if err != nil || b[0] != version || Reply(b[1]) != Succeeded {
		return b, err
	}
	if b, err = readOctets(r, b, 1); err != nil {
		return b, err
	}
	return readAddr(r, b)
}

// parseReply parses what readReply has read. A BND.ADDR that is no host, as it
// comes from servers that have nothing to tell, becomes the zero Addr.
func parseReply(b []byte) (code Reply, bound Addr, err error) {
	if len(b) < 2 || b[0] != version {
		return 0, Addr{}, fmt.Errorf("parsing SOCKS reply % x: %w", b, syscall.EPROTO)
	}
	code = Reply(b[1])
	if code != Succeeded {
		return code, Addr{}, nil
	}
	bound, err = parseAddr(b[min(3, len(b)):])
	if errors.Is(err, syscall.EPROTO) || errors.Is(err, syscall.EAFNOSUPPORT) {
		return code, Addr{}, fmt.Errorf("parsing SOCKS reply % x: %w", b, err)
	}
	return code, bound, nil
}
