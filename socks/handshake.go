package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// The versions of SOCKS.
const (
	version  = 5
	version4 = 4
)

// notHTTP answers a browser that takes us for an HTTP proxy.
const notHTTP = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis is a SOCKS port.\r\n"

// handshake reads up to the request, and not an octet more, and answers it if
// it is a bad one. With an error, the client is to be left alone.
func (s *Server) handshake(ctx context.Context, conn net.Conn) (*Request, error) {
	ver, err := readOctets(conn, nil, 1)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the version: %w", err)
	case ver[0] == version:
		return s.handshake5(ctx, conn)
	case ver[0] == version4:
		return s.handshake4(conn)
	case 'A' <= ver[0] && ver[0] <= 'Z': // the start of an HTTP method
		io.WriteString(conn, notHTTP) // a courtesy; the error below tells all
	}
	return nil, fmt.Errorf("SOCKS version %#02x: %w", ver[0], syscall.EPROTO)
}

// handshake5 goes on after the version.
func (s *Server) handshake5(ctx context.Context, conn net.Conn) (*Request, error) {
	chosen, err := greet(conn, s.methods())
	if err != nil {
		return nil, err
	}
	user, conn, err := chosen.authenticate(ctx, conn, remote(conn).Addr())
	switch {
	case errors.Is(err, errWrong):
		s.tally.wrongPasswords.Add(1)
	case errors.Is(err, errLockedOut):
		s.tally.lockedOut.Add(1)
	}
	if err != nil {
		return nil, err
	}
	msg, err := readRequest(conn)
	if err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	command, dest, err := parseRequest(msg)
	if err != nil {
		conn.Write(appendReply(nil, ReplyOf(err), Addr{})) // the error to return is err
		return nil, err
	}
	return &Request{conn: conn, append: appendReply, server: s, user: user, command: command, dest: dest}, nil
}

// methods returns the ways to authenticate, the best first. GSSAPI, which RFC
// 1928, section 3 demands and curl always offers, is not among them.
func (s *Server) methods() []method {
	if users := s.access().Users; users != nil {
		return []method{passwordMethod{users}}
	}
	return []method{noMethod{}}
}

// greet reads the rest of a client's greeting, and answers it by the first of
// methods that the client offers.
func greet(client io.ReadWriter, methods []method) (method, error) {
	count, err := readOctets(client, nil, 1)
	if err != nil {
		return nil, fmt.Errorf("reading NMETHODS: %w", err)
	}
	offered, err := readOctets(client, nil, int(count[0]))
	if err != nil {
		return nil, fmt.Errorf("reading METHODS: %w", err)
	}
	for _, m := range methods {
		if bytes.IndexByte(offered, m.code()) < 0 {
			continue
		}
		if _, err := client.Write([]byte{version, m.code()}); err != nil {
			return nil, fmt.Errorf("answering the greeting: %w", err)
		}
		return m, nil
	}
	client.Write([]byte{version, methodUnacceptable}) // the error below tells all
	return nil, fmt.Errorf("methods % x: %w", offered, syscall.EACCES)
}
