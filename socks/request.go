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

// The commands of RFC 1928, section 4, and those that Tor adds.
const (
	CommandConnect      Command = 0x01
	CommandBind         Command = 0x02
	CommandUDPAssociate Command = 0x03
	CommandResolve      Command = 0xf0 // the address of a name
	CommandResolvePTR   Command = 0xf1 // the name of an address
)

var commandNames = map[Command]string{
	CommandConnect:      "CONNECT",
	CommandBind:         "BIND",
	CommandUDPAssociate: "UDP ASSOCIATE",
	CommandResolve:      "RESOLVE",
	CommandResolvePTR:   "RESOLVE_PTR",
}

func (c Command) String() string {
	if name, ok := commandNames[c]; ok {
		return name
	}
	return fmt.Sprintf("command %#02x", byte(c))
}

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
	if _, known := commandNames[command]; !known {
		return command, Addr{}, fmt.Errorf("parsing %s: %w", command, syscall.EOPNOTSUPP)
	}
	dest, err := parseAddr(b[3:])
	if command == CommandUDPAssociate && errors.Is(err, syscall.EHOSTUNREACH) {
		// Where the client will send from, which many cannot tell and some
		// garble ("0", the target's name): it is of no use to anybody.
		return command, Addr{}, nil
	}
	if err == nil {
		err = checkDest(command, dest)
	}
	return command, dest, err
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// checkDest returns why nothing can come of command with dest, whatever the
// way out. A link-local address needs a link, which no request can name.
func checkDest(command Command, dest Addr) error {
	ip := dest.IP
	switch {
	case command == CommandResolvePTR && dest.IsName():
		return fmt.Errorf("looking up the name of the name %s: %w", dest.Name, syscall.EAFNOSUPPORT)
	case command != CommandConnect:
		return nil
	case dest.Port == 0:
		return fmt.Errorf("connecting to port 0: %w", syscall.EADDRNOTAVAIL)
	case ip.IsUnspecified(), ip.IsMulticast(), ip == broadcast, ip.Is6() && ip.IsLinkLocalUnicast():
		return fmt.Errorf("connecting to %s: %w", ip, syscall.EACCES)
	}
	return nil
}

// Request is a request that waits for its answer. Exactly one of Accept,
// Associate, Resolved and Refuse is to be called, once: it is the answer. The
// answer to a BIND has two parts, of which Announce is the first.
type Request struct {
	conn    net.Conn
	append  func(b []byte, code Reply, bound Addr) []byte // the version's reply
	server  *Server
	user    string
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
func (r *Request) User() string { return r.user }

// Command returns CMD.
func (r *Request) Command() Command { return r.command }

// Dest returns DST.ADDR and DST.PORT. Those of an UDP ASSOCIATE mean nothing.
func (r *Request) Dest() Addr { return r.dest }

// Accept tells the client that its connection stands, and returns the
// server's end, which the caller is to close. bound becomes BND.ADDR and
// BND.PORT: where the far connection was dialled from, or the zero AddrPort;
// of a BIND, where the connection came from.
func (r *Request) Accept(bound netip.AddrPort) (net.Conn, error) {
	if err := r.reply(Succeeded, AddrFromAddrPort(bound)); err != nil {
		return nil, fmt.Errorf("answering SOCKS client %s: %w", r.Client(), WithErrno(err))
	}
	return r.conn, nil
}

// Announce tells the client of a BIND where its peer may connect to. The
// answer is still to come.
func (r *Request) Announce(bound netip.AddrPort) error {
	if _, err := r.conn.Write(r.append(nil, Succeeded, AddrFromAddrPort(bound))); err != nil {
		return fmt.Errorf("answering SOCKS client %s: %w", r.Client(), WithErrno(err))
	}
	return nil
}

// Resolved tells the client of a RESOLVE the address of its name, and that of
// a RESOLVE_PTR the name of its address.
func (r *Request) Resolved(found Addr) { r.reply(Succeeded, found) } // an error means that there is nobody left to tell

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
	_, err := r.conn.Write(r.append(nil, code, bound))
	return err
}

// serve lets h answer r, refuses what h has not, and reports whether all has
// been said by then.
func (r *Request) serve(ctx context.Context, h Handler) (refused bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.unwatch = watch(r.conn, func() { cancel(errGone) })
	h.ServeSOCKS(ctx, r)
	if !r.done {
		r.Refuse(nil)
	}
	return r.answer != Succeeded
}
