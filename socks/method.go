package socks

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Methods of authentication (RFC 1928, section 3).
const (
	methodNone         = 0x00
	methodPassword     = 0x02
	methodUnacceptable = 0xff
)

// method is a way to authenticate.
type method interface {
	// code returns METHOD.
	code() byte
	// authenticate holds the method's conversation with a client of source
	// that has been told the choice. It returns who the client is, "" for
	// nobody in particular, and the connection that the rest goes over: conn
	// itself, or one that wraps it, as GSSAPI (RFC 1961) would.
	authenticate(ctx context.Context, conn net.Conn, source netip.Addr) (user string, over net.Conn, err error)
}

// noMethod asks for nothing.
type noMethod struct{}

func (noMethod) code() byte { return methodNone }

func (noMethod) authenticate(_ context.Context, conn net.Conn, _ netip.Addr) (string, net.Conn, error) {
	return "", conn, nil
}

// passwordVersion is VER of the conversation about a password (RFC 1929,
// section 2).
const passwordVersion = 1

// passwordMethod asks for a name and a password (RFC 1929).
type passwordMethod struct{ users *Users }

func (passwordMethod) code() byte { return methodPassword }

// authenticate gives its verdict before anything further is read.
func (m passwordMethod) authenticate(ctx context.Context, conn net.Conn, source netip.Addr) (string, net.Conn, error) {
	name, password, err := readPassword(conn)
	if err == nil {
		err = m.users.Authenticate(ctx, source, name, password)
	}
	status := byte(0)
	if err != nil {
		status = 1
	}
	if _, werr := conn.Write([]byte{passwordVersion, status}); err == nil && werr != nil {
		err = fmt.Errorf("answering the password: %w", werr)
	}
	return name, conn, err
}

// readPassword reads a request for authentication (RFC 1929, section 2), and
// not one octet more. The two are opaque octets, and the password may have
// none.
func readPassword(client net.Conn) (name, password string, err error) {
	b, err := readOctets(client, nil, 2)
	if err != nil {
		return "", "", fmt.Errorf("reading the user's name: %w", err)
	}
	if b[0] != passwordVersion || b[1] == 0 {
		return "", "", fmt.Errorf("parsing password version %#02x, name of %d octets: %w", b[0], b[1], syscall.EPROTO)
	}
	n := int(b[1])
	if b, err = readOctets(client, nil, n+1); err != nil {
		return "", "", fmt.Errorf("reading the user's name: %w", err)
	}
	name = string(b[:n])
	if b, err = readOctets(client, nil, int(b[n])); err != nil {
		return "", "", fmt.Errorf("reading the password of %q: %w", name, err)
	}
	return name, string(b), nil
}

// appendPassword appends a request for authentication.
func appendPassword(b []byte, name, password string) []byte {
	b = append(append(b, passwordVersion, byte(len(name))), name...)
	return append(append(b, byte(len(password))), password...)
}
