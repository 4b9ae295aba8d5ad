package socks

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Client asks a SOCKS5 server. After an error of one of its methods conn is of
// no use; a refusal is a *ReplyError. What follows the server's reply on conn
// stays there.
type Client struct {
	Server   Addr
	Username string // "": none is offered; at most 255 octets
	Password string // at most 255 octets

	// Required is never to be served as nobody in particular: no other method is
	// offered than that of passwords.
	Required bool

	// Pipeline sends all that there is to say at once, and the password before
	// the server has asked for it: a hop then costs one round trip instead of
	// two or three. Not every server bears it (hyper-util#187).
	Pipeline bool
}

// Connect asks the server at the other end of conn to connect to dest, and
// returns its BND.ADDR and BND.PORT. A name goes as it is, for the server to
// look up. After it conn carries dest's octets.
func (c Client) Connect(ctx context.Context, conn net.Conn, dest Addr) (bound Addr, err error) {
	err = c.interruptible(ctx, conn, func() error {
		bound, err = c.ask(conn, CommandConnect, dest)
		return err
	})
	if err != nil {
		return Addr{}, fmt.Errorf("connecting to %s through SOCKS server %s: %w", dest, c.Server, err)
	}
	return bound, nil
}

// Associate asks the server for a UDP relay, and returns the address for
// datagrams, which may be unspecified. The relay ends with conn.
func (c Client) Associate(ctx context.Context, conn net.Conn) (relay Addr, err error) {
	// Zeros of the wrong family are refused by a Dante without IPv4
	// (hev-socks5-tproxy#28).
	var hint Addr
	if AddrPortOf(conn.RemoteAddr()).Addr().Is6() {
		hint.IP = netip.IPv6Unspecified()
	}
	err = c.interruptible(ctx, conn, func() error {
		relay, err = c.ask(conn, CommandUDPAssociate, hint)
		return err
	})
	if err != nil {
		return Addr{}, fmt.Errorf("associating with SOCKS server %s: %w", c.Server, err)
	}
	return relay, nil
}

// Bind asks the server to take one connection from peer, and returns where it
// listens, which may be unspecified.
func (c Client) Bind(ctx context.Context, conn net.Conn, peer Addr) (bound Addr, err error) {
	err = c.interruptible(ctx, conn, func() error {
		bound, err = c.ask(conn, CommandBind, peer)
		return err
	})
	if err != nil {
		return Addr{}, fmt.Errorf("binding for %s at SOCKS server %s: %w", peer, c.Server, err)
	}
	return bound, nil
}

// Bound waits for the connection that Bind has asked for, and returns where it
// came from. After it conn carries the peer's octets.
func (c Client) Bound(ctx context.Context, conn net.Conn) (peer Addr, err error) {
	err = c.interruptible(ctx, conn, func() error {
		peer, err = c.answer(conn)
		return err
	})
	if err != nil {
		return Addr{}, fmt.Errorf("waiting for a connection at SOCKS server %s: %w", c.Server, err)
	}
	return peer, nil
}

// Resolve asks the server, which has to know Tor's RESOLVE, for an address of
// name.
func (c Client) Resolve(ctx context.Context, conn net.Conn, name string) (netip.Addr, error) {
	var found Addr
	err := c.interruptible(ctx, conn, func() (err error) {
		found, err = c.ask(conn, CommandResolve, Addr{Name: name})
		if err == nil && !found.IP.IsValid() {
			err = syscall.EPROTO
		}
		return err
	})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("resolving %s by SOCKS server %s: %w", name, c.Server, err)
	}
	return found.IP, nil
}

// ResolvePTR asks the server, which has to know Tor's RESOLVE_PTR, for a name of
// ip.
func (c Client) ResolvePTR(ctx context.Context, conn net.Conn, ip netip.Addr) (name string, err error) {
	err = c.interruptible(ctx, conn, func() error {
		found, err := c.ask(conn, CommandResolvePTR, Addr{IP: ip})
		if name = found.Name; err == nil && name == "" {
			err = syscall.EPROTO
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("resolving %s by SOCKS server %s: %w", ip, c.Server, err)
	}
	return name, nil
}

// interruptible runs talk, and makes what it reads or writes fail when ctx
// ends. Its error tells an errno.
func (c Client) interruptible(ctx context.Context, conn net.Conn, talk func() error) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0)) // fails only on a closed connection
		close(interrupted)
	})
	err := talk()
	if !stop() {
		<-interrupted
		err = context.Cause(ctx)
	}
	return WithErrno(err)
}

// ask authenticates, sends a request and returns BND of the reply.
func (c Client) ask(server io.ReadWriter, command Command, dest Addr) (bound Addr, err error) {
	if len(dest.Name) > maxName || command != CommandUDPAssociate && !dest.IsValid() {
		return Addr{}, syscall.EINVAL
	}
	if max(len(c.Username), len(c.Password)) > maxPassword {
		return Addr{}, syscall.EINVAL
	}
	request := dest.AppendTo([]byte{version, byte(command), 0})
	if c.Pipeline {
		err = c.pipeline(server, request)
	} else if err = c.authenticate(server); err == nil {
		_, err = server.Write(request)
	}
	if err != nil {
		return Addr{}, err
	}
	return c.answer(server)
}

// pipeline sends all up to the request, and reads all before the answer to it.
// It offers the one method that it follows, so that there is nothing to choose.
func (c Client) pipeline(server io.ReadWriter, request []byte) error {
	said := []byte{version, 1, methodNone}
	if c.Username != "" {
		said = appendPassword([]byte{version, 1, methodPassword}, c.Username, c.Password)
	}
	if _, err := server.Write(append(said, request...)); err != nil {
		return err
	}
	password, err := c.chosen(server)
	if err != nil || !password {
		return err
	}
	return c.verdict(server)
}

// authenticate agrees on a method, and follows it. GSSAPI is never offered.
func (c Client) authenticate(server io.ReadWriter) error {
	greeting := []byte{version, 1, methodNone}
	switch {
	case c.insists():
		greeting = []byte{version, 1, methodPassword}
	case c.Username != "":
		greeting = []byte{version, 2, methodNone, methodPassword}
	}
	if _, err := server.Write(greeting); err != nil {
		return err
	}
	password, err := c.chosen(server)
	if err != nil || !password {
		return err
	}
	if _, err := server.Write(appendPassword(nil, c.Username, c.Password)); err != nil {
		return err
	}
	return c.verdict(server)
}

// insists reports whether the one method offered is that of passwords.
func (c Client) insists() bool { return c.Username != "" && (c.Required || c.Pipeline) }

// chosen reads which method the server has chosen, and reports whether it is
// that of passwords.
func (c Client) chosen(server io.Reader) (password bool, err error) {
	choice, err := readOctets(server, nil, 2)
	switch {
	case err != nil:
		return false, err
	case choice[0] != version:
		return false, fmt.Errorf("parsing method selection % x: %w", choice, syscall.EPROTO)
	case choice[1] == methodNone && c.insists():
		return false, fmt.Errorf("method %#02x selected, which was not offered: %w", methodNone, syscall.EPROTO)
	case choice[1] == methodNone:
		return false, nil
	case choice[1] != methodPassword || c.Username == "":
		return false, fmt.Errorf("method %#02x selected: %w", choice[1], syscall.EACCES)
	}
	return true, nil
}

// verdict reads what the server thinks of the password.
func (c Client) verdict(server io.Reader) error {
	verdict, err := readOctets(server, nil, 2)
	if err == nil && verdict[1] != 0 {
		err = fmt.Errorf("user %q not accepted: %w", c.Username, syscall.EACCES)
	}
	return err
}

// answer reads a reply.
func (c Client) answer(server io.Reader) (bound Addr, err error) {
	msg, err := readReply(server)
	if err != nil {
		return Addr{}, err
	}
	code, bound, err := parseReply(msg)
	if err == nil && code != Succeeded {
		err = &ReplyError{Hop: c.Server, Code: code}
	}
	return bound, err
}
