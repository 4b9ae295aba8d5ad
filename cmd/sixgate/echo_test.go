package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// echoStream wants back what it sends, all of it after its own end, so that
// both directions are seen to end on their own.
func echoStream(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent := bytes.Repeat([]byte("IPv4 and IPv6. "), 1<<14)
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		written <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	received, err := io.ReadAll(conn)
	if err := errors.Join(<-written, err); err != nil {
		return err
	}
	if !bytes.Equal(sent, received) {
		return fmt.Errorf("%d octets came back of %d, or others", len(received), len(sent))
	}
	return nil
}

// echoDatagrams sends one datagram after another.
func echoDatagrams(conn net.Conn) error {
	for i := range 10 {
		if err := echoOne(conn, bytes.Repeat([]byte{byte(i)}, 1+i*100)); err != nil {
			return fmt.Errorf("datagram %d: %w", i, err)
		}
	}
	return nil
}

// echoOne sends b until it comes back, as all clients of UDP do: on a busy
// machine an echo may take longer than the gateway keeps a silent flow.
func echoOne(conn net.Conn, b []byte) error {
	buf := make([]byte, 2048)
	for end := time.Now().Add(patience); ; {
		if _, err := conn.Write(b); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience / 10)); err != nil {
			return err
		}
		for {
			n, err := conn.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(end) {
				break
			}
			if err != nil {
				return err
			}
			switch {
			case bytes.Equal(b, buf[:n]):
				return nil
			case n == 0 || buf[0] >= b[0]:
				return fmt.Errorf("%d octets came back of %d, or others", n, len(b))
			} // else the second echo of an earlier one
		}
	}
}
