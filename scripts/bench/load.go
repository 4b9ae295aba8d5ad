package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// workers is how many short connections there are at once.
	workers = 64
	// message is what a request and its answer carry, in bytes.
	message = 64
	// exchange is how long one request may take, at most.
	exchange = 5 * time.Second
	// begin is how long the gateway may take until it carries anything.
	begin = 10 * time.Second
)

// done is what one load has done.
type done struct {
	Seconds   float64
	Bytes     float64 // those that have reached the other end
	Sent      float64 // those of datagrams, some of which may be lost
	Exchanges int
	Errors    int // exchanges that went wrong
	LastError string
	P50, P99  float64 // of the exchanges, in seconds
}

// load is the client: `load KIND N TIME HOST` puts a load on the gateway,
// prints what was done as one line of JSON, and then keeps its connections
// until ctx ends.
func load(ctx context.Context, args []string) error {
	kinds := map[string]func(context.Context, netip.Addr, int, time.Duration) (done, error){
		"up": up, "down": down, "connect": connect, "request": request, "idle": idle, "churn": churn,
		"whole-up": wholeUp, "whole-down": wholeDown,
		"small": letters(message), "large": letters(large), "single": send(false), "bundled": send(true), "silent": silent,
	}
	if len(args) != 4 || kinds[args[0]] == nil {
		return fmt.Errorf("loading the gateway: got arguments %q", args)
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	length, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	ctx, host := target(ctx, args[3])
	server, err := reach(ctx, host)
	if err != nil {
		return err
	}
	result, err := kinds[args[0]](ctx, server, n, length)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// reach waits until the server can be reached by its name or address, and
// returns the address, which may be a fake one.
func reach(ctx context.Context, host string) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, begin)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(lanAddr, strconv.Itoa(dnsPort)))
	}}
	network := "ip4"
	if host == serverName6 {
		network = "ip6"
	}
	for {
		addrs, err := resolver.LookupNetIP(ctx, network, host)
		if err == nil {
			if err = echoOnce(ctx, addrs[0]); err == nil {
				return addrs[0], nil
			}
		}
		select {
		case <-ctx.Done():
			return netip.Addr{}, fmt.Errorf("reaching %s through the gateway: %w", host, err)
		case <-time.After(tally):
		}
	}
}

func dial(ctx context.Context, server netip.Addr, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, exchange)
	defer cancel()
	dest := netip.AddrPortFrom(server, port)
	if proxy, ok := ctx.Value(proxied{}).(string); ok {
		return dialSOCKS(ctx, proxy, dest)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", dest.String())
}

// echoOnce is a short connection: connect, one exchange, close.
func echoOnce(ctx context.Context, server netip.Addr) error {
	conn, err := dial(ctx, server, echoPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	return ask(conn)
}

// ask sends a message and waits for its echo.
func ask(conn net.Conn) error {
	buf := make([]byte, message)
	if err := conn.SetDeadline(time.Now().Add(exchange)); err != nil {
		return err
	}
	if _, err := conn.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, buf)
	return err
}

// up sends over n streams, and counts what the server says has come.
func up(ctx context.Context, server netip.Addr, n int, length time.Duration) (done, error) {
	return bulk(ctx, server, discardPort, n, length, func(conn net.Conn) uint64 {
		go func() {
			for buf := make([]byte, block); ; {
				if _, err := conn.Write(buf); err != nil {
					return
				}
			}
		}()
		var count [8]byte
		var last uint64
		for {
			if _, err := io.ReadFull(conn, count[:]); err != nil {
				return last
			}
			last = binary.BigEndian.Uint64(count[:])
		}
	})
}

// down receives over n streams.
func down(ctx context.Context, server netip.Addr, n int, length time.Duration) (done, error) {
	return bulk(ctx, server, chargenPort, n, length, func(conn net.Conn) uint64 {
		var sum uint64
		for buf := make([]byte, block); ; {
			n, err := conn.Read(buf)
			sum += uint64(n)
			if err != nil {
				return sum
			}
		}
	})
}

// bulk runs n streams, each of which ends with the deadline of its connection
// and returns how many bytes it has carried.
func bulk(ctx context.Context, server netip.Addr, port uint16, n int, length time.Duration, stream func(net.Conn) uint64) (done, error) {
	conns := make([]net.Conn, n)
	for i := range conns {
		conn, err := dial(ctx, server, port)
		if err != nil {
			return done{}, err
		}
		conns[i] = conn
	}
	start := time.Now()
	end := start.Add(length)
	counts := make([]uint64, n)
	var all sync.WaitGroup
	for i, conn := range conns {
		if err := conn.SetDeadline(end); err != nil {
			return done{}, err
		}
		all.Go(func() { counts[i] = stream(conn) })
	}
	all.Wait()
	took := time.Since(start)
	if took < length*9/10 {
		return done{}, fmt.Errorf("streaming for %v: all streams ended after %v", length, took)
	}
	result := done{Seconds: took.Seconds()}
	for i, count := range counts {
		if count == 0 {
			return done{}, fmt.Errorf("streaming for %v: stream %d carried nothing", length, i)
		}
		result.Bytes += float64(count)
	}
	return result, nil
}

// connect makes short connections, n at once.
func connect(ctx context.Context, server netip.Addr, n int, length time.Duration) (done, error) {
	return repeat(ctx, n, length, func(int) error { return echoOnce(ctx, server) })
}

// request makes exchanges over n connections that stay.
func request(ctx context.Context, server netip.Addr, n int, length time.Duration) (done, error) {
	conns := make([]net.Conn, n)
	for i := range conns {
		conn, err := dial(ctx, server, echoPort)
		if err != nil {
			return done{}, err
		}
		conns[i] = conn
	}
	return repeat(ctx, n, length, func(i int) error { return ask(conns[i]) })
}

// repeat lets n workers do a thing again and again, and times it.
func repeat(ctx context.Context, n int, length time.Duration, do func(worker int) error) (done, error) {
	var (
		mu     sync.Mutex // guards result and all
		result done
		all    []time.Duration
		group  sync.WaitGroup
	)
	start := time.Now()
	for worker := range n {
		group.Go(func() {
			var times []time.Duration
			var failed int
			var last error
			for ctx.Err() == nil && time.Since(start) < length {
				before := time.Now()
				if err := do(worker); err != nil {
					failed, last = failed+1, err
					time.Sleep(tally) // an error must not become a flood
					continue
				}
				times = append(times, time.Since(before))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, times...)
			result.Errors += failed
			if last != nil {
				result.LastError = last.Error()
			}
		})
	}
	group.Wait()
	if len(all) == 0 {
		return done{}, fmt.Errorf("making exchanges: none went well: %s", result.LastError)
	}
	result.Seconds = time.Since(start).Seconds()
	result.Exchanges = len(all)
	result.P50, result.P99 = percentile(all, 50).Seconds(), percentile(all, 99).Seconds()
	return result, nil
}

// idle opens n connections, each of which has carried a message, and leaves
// them open until ctx ends.
func idle(ctx context.Context, server netip.Addr, n int, _ time.Duration) (done, error) {
	group, opening := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	start := time.Now()
	for i := range n {
		group.Go(func() error {
			if opening.Err() != nil {
				return opening.Err()
			}
			conn, err := dial(opening, server, echoPort)
			if err == nil {
				context.AfterFunc(ctx, func() { conn.Close() })
				err = ask(conn)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("opening connection %d of %d: %w", i+1, n, err)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return done{}, err
	}
	return done{Seconds: time.Since(start).Seconds()}, nil
}
