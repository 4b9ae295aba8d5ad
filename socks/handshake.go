package socks

import (
	"bytes"
	"fmt"
	"io"
	"syscall"
)

// version is VER of SOCKS5.
const version = 5

// Methods of authentication (RFC 1928, section 3).
const (
	methodNone         = 0x00
	methodUnacceptable = 0xff
)

// notHTTP answers a browser that takes us for an HTTP proxy.
const notHTTP = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis is a SOCKS port.\r\n"

// greet reads a client's greeting, and not an octet more, and answers it. With
// an error, the client is to be left alone.
func greet(client io.ReadWriter) error {
	ver, err := readOctets(client, nil, 1)
	if err != nil {
		return fmt.Errorf("reading the version: %w", err)
	}
	if ver[0] != version {
		if 'A' <= ver[0] && ver[0] <= 'Z' { // the start of an HTTP method
			io.WriteString(client, notHTTP) // a courtesy; the error below tells all
		}
		return fmt.Errorf("SOCKS version %#02x: %w", ver[0], syscall.EPROTO)
	}
	count, err := readOctets(client, nil, 1)
	if err != nil {
		return fmt.Errorf("reading NMETHODS: %w", err)
	}
	offered, err := readOctets(client, nil, int(count[0]))
	if err != nil {
		return fmt.Errorf("reading METHODS: %w", err)
	}
	method := selectMethod(offered)
	if _, err := client.Write([]byte{version, method}); err != nil {
		return fmt.Errorf("answering the greeting: %w", err)
	}
	if method == methodUnacceptable {
		return fmt.Errorf("methods % x: %w", offered, syscall.EACCES)
	}
	return nil
}

// selectMethod returns the method that the server likes best among those that
// the client has offered. GSSAPI, which curl always offers, is not among ours.
func selectMethod(offered []byte) byte {
	if bytes.IndexByte(offered, methodNone) >= 0 {
		return methodNone
	}
	return methodUnacceptable
}
