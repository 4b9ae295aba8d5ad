package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
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
		{"goroutines more", func(r reading) float64 { return r.after.held.goroutines - r.before.held.goroutines }, nothing},
		{"endpoints", func(r reading) float64 { return r.after.held.endpoints }, nothing},
		{"flows", func(r reading) float64 { return r.after.held.flows }, nothing},
		{"holds of names", func(r reading) float64 { return r.after.held.names }, nothing},
	}}
}

// held is what a gateway says that it holds for flows. What it does not say is
// not a number.
type held struct {
	goroutines, endpoints, flows float64
	names                        float64 // how many flows hold one
}

func unknown() held { return held{math.NaN(), math.NaN(), math.NaN(), math.NaN()} }

// control is where a gateway can be asked.
func (n *network) control() string { return filepath.Join(n.work, "control") }

func (b *bench) askSixgate(ctx context.Context, n *network) (held, error) {
	var status struct {
		Held  struct{ Goroutines, Endpoints float64 }
		Flows struct{ Live float64 }
	}
	var names []struct{ Flows float64 }
	for command, into := range map[string]any{"status": &status, "names": &names} {
		said, err := exec.CommandContext(ctx, b.sixgate, command, "--json", "--socket", n.control()).Output()
		if err != nil {
			return held{}, fmt.Errorf("asking for %s: %w", command, err)
		}
		if err := json.Unmarshal(said, into); err != nil {
			return held{}, fmt.Errorf("asking for %s: %w", command, err)
		}
	}
	h := held{goroutines: status.Held.Goroutines, endpoints: status.Held.Endpoints, flows: status.Flows.Live}
	for _, name := range names {
		h.names += name.Flows
	}
	return h, nil
}
