package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
)

// Command is what a request asks for (RFC 1928, section 4).
type Command byte

// The commands of RFC 1928, section 4.
const (
	CommandConnect      Command = 1
	CommandBind         Command = 2
	CommandUDPAssociate Command = 3
)

// readRequest reads the octets of a request, and not one more. One of another
// version ends after its third octet.
func readRequest(r io.Reader) ([]byte, error) {
	b, err := readOctets(r, nil, 3)
	if err != nil || b[0] != version {
		return b, err
	}
	return readAddr(r, b)
}

// parseRequest parses what readRequest has read. ReplyOf its error is the
// answer to the client.
func parseRequest(b []byte) (Command, Addr, error) {
	if len(b) < 4 || b[0] != version {
		return 0, Addr{}, fmt.Errorf("parsing request % x: %w", b, syscall.EPROTO)
	}
	command := Command(b[1])
	if command != CommandConnect {
		return command, Addr{}, fmt.Errorf("parsing command %#02x: %w", b[1], syscall.EOPNOTSUPP)
	}
	dest, err := parseAddr(b[3:])
	if err == nil {
		err = checkConnect(dest)
	}
	return command, dest, err
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// checkConnect returns why nothing can be connected to dest, whatever the way
// out. A link-local address needs a link, which no request can name.
func checkConnect(dest Addr) error {
	ip := dest.IP
	switch {
	case dest.Port == 0:
		return fmt.Errorf("connecting to port 0: %w", syscall.EADDRNOTAVAIL)
	case ip.IsUnspecified(), ip.IsMulticast(), ip == broadcast, ip.Is6() && ip.IsLinkLocalUnicast():
		return fmt.Errorf("connecting to %s: %w", ip, syscall.EACCES)
	}
	return nil
}

// Request is a request that waits for its answer. Exactly one of Accept and
// Refuse is to be called, once.
type Request struct {
	conn    net.Conn
	command Command
	dest    Addr
	unwatch func()
	answer  Reply // meaningful once answered
	done    bool  // answered
}

// Client returns where the request came from, the address unmapped and without
// zone.
func (r *Request) Client() netip.AddrPort { return remote(r.conn) }

// User returns the name by which the client has authenticated, or "".
func (r *Request) User() string { return "" }

// Command returns CMD.
func (r *Request) Command() Command { return r.command }

// Dest returns DST.ADDR and DST.PORT.
func (r *Request) Dest() Addr { return r.dest }

// Accept tells the client that its connection stands, and returns the
// server's end, which the caller is to close. bound becomes BND.ADDR and
// BND.PORT: where the far connection was dialled from, or the zero AddrPort.
func (r *Request) Accept(bound netip.AddrPort) (net.Conn, error) {
	if err := r.reply(Succeeded, AddrFromAddrPort(bound)); err != nil {
		return nil, fmt.Errorf("answering SOCKS client %s: %w", r.Client(), WithErrno(err))
	}
	return r.conn, nil
}

// Refuse tells the client why there will be no connection, by ReplyOf(err).
func (r *Request) Refuse(err error) {
	code := ReplyOf(err)
	if code == Succeeded {
		code = GeneralFailure
	}
	r.reply(code, Addr{}) // an error means that there is nobody left to tell
}

var errAnswered = errors.New("already answered")

// reply sends the reply by one Write: some clients read it by one Read.
func (r *Request) reply(code Reply, bound Addr) error {
	if r.done {
		return errAnswered
	}
	r.done, r.answer = true, code
	r.unwatch()
	_, err := r.conn.Write(appendReply(nil, code, bound))
	return err
}

// serve lets h answer r, refuses what h has not, and returns the answer.
func (r *Request) serve(ctx context.Context, h Handler) Reply {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.unwatch = watch(r.conn, func() { cancel(errGone) })
	h.ServeSOCKS(ctx, r)
	if !r.done {
		r.Refuse(nil)
	}
	return r.answer
}
