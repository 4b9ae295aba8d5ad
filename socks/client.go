package socks

import (
	"context"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Connect asks the SOCKS5 server hop at the other end of conn to connect to
// dest, and returns its BND.ADDR and BND.PORT. A name goes as it is, for the
// hop to look up. After it conn carries dest's octets, none of which Connect
// takes; after an error conn is of no use. A refusal is a *ReplyError.
func Connect(ctx context.Context, conn net.Conn, hop, dest Addr) (bound Addr, err error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0)) // fails only on a closed connection
		close(interrupted)
	})
	bound, err = connect(conn, hop, dest)
	if !stop() {
		<-interrupted
		err = context.Cause(ctx)
	}
	if err != nil {
		return Addr{}, fmt.Errorf("connecting to %s through SOCKS server %s: %w", dest, hop, WithErrno(err))
	}
	return bound, nil
}

func connect(server io.ReadWriter, hop, dest Addr) (bound Addr, err error) {
	if !dest.IsValid() || len(dest.Name) > maxName {
		return Addr{}, syscall.EINVAL
	}
	if _, err := server.Write([]byte{version, 1, methodNone}); err != nil {
		return Addr{}, err
	}
	choice, err := readOctets(server, nil, 2)
	switch {
	case err != nil:
		return Addr{}, err
	case choice[0] != version:
		return Addr{}, fmt.Errorf("parsing method selection % x: %w", choice, syscall.EPROTO)
	case choice[1] != methodNone:
		return Addr{}, fmt.Errorf("method %#02x selected: %w", choice[1], syscall.EACCES)
	}
	if _, err := server.Write(dest.AppendTo([]byte{version, byte(CommandConnect), 0})); err != nil {
		return Addr{}, err
	}
	msg, err := readReply(server)
	if err != nil {
		return Addr{}, err
	}
	code, bound, err := parseReply(msg)
	if err == nil && code != Succeeded {
		err = &ReplyError{Hop: hop, Code: code}
	}
	return bound, err
}
