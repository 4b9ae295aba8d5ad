package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

const (
	// stalled is how long a client that reads nothing waits until it gives up.
	stalled = time.Second
	// rest is how long the gateway has after a churn to give back what it took.
	rest = time.Minute
)

// churn makes connections that end in all the ways in which connections do, n
// at once. None is left at the end.
func churn(ctx context.Context, server netip.Addr, n int, length time.Duration) (done, error) {
	ways := []func(context.Context, netip.Addr) error{echoOnce, halfClose, breakOff, stall, cut}
	return repeat(ctx, n, length, func(int) error { return ways[rand.IntN(len(ways))](ctx, server) })
}

// halfClose ends its direction before the answer comes.
func halfClose(ctx context.Context, server netip.Addr) error {
	return with(ctx, server, echoPort, func(conn *net.TCPConn) error {
		sent := bytes.Repeat([]byte{'x'}, message)
		if _, err := conn.Write(sent); err != nil {
			return err
		}
		if err := conn.CloseWrite(); err != nil {
			return err
		}
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
			return fmt.Errorf("after the end of the request: %d bytes of %d came back: %w", len(got), message, err)
		}
		return nil
	})
}

// breakOff resets the connection before the answer comes.
func breakOff(ctx context.Context, server netip.Addr) error {
	return with(ctx, server, echoPort, func(conn *net.TCPConn) error {
		if _, err := conn.Write(make([]byte, message)); err != nil {
			return err
		}
		return conn.SetLinger(0)
	})
}

// stall asks for more than anybody buffers, and reads nothing of it.
func stall(ctx context.Context, server netip.Addr) error {
	return with(ctx, server, chargenPort, func(*net.TCPConn) error {
		time.Sleep(stalled)
		return nil
	})
}

// cut resets the connection in the middle of what it sends.
func cut(ctx context.Context, server netip.Addr) error {
	return with(ctx, server, discardPort, func(conn *net.TCPConn) error {
		if _, err := conn.Write(make([]byte, block)); err != nil {
			return err
		}
		return conn.SetLinger(0)
	})
}

// with makes a connection, which lives as long as do runs.
func with(ctx context.Context, server netip.Addr, port uint16, do func(*net.TCPConn) error) error {
	conn, err := dial(ctx, server, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(exchange)); err != nil {
		return err
	}
	return do(conn.(*net.TCPConn))
}

func leftovers() *table {
	return &table{"What is left a minute after connections that ended in all ways", []measure{
		{"a second", func(r reading) float64 { return float64(r.Exchanges) / r.Seconds }, timesSplice},
		{"errors", func(r reading) float64 { return float64(r.Errors) }, nothing},
		{"RSS MiB before", func(r reading) float64 { return r.before.rss() / (1 << 20) }, nothing},
		{"RSS MiB after", func(r reading) float64 { return r.after.rss() / (1 << 20) }, nothing},
		{"descriptors more", func(r reading) float64 { return r.after.program.files - r.before.program.files }, nothing},
	}}
}
