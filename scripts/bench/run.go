package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

const (
	// descriptors is for a relay that holds six for each of 10,000
	// connections (two sockets, two pipes).
	descriptors = 1 << 18
	// settle is how long the memory gets to settle after the load.
	settle = time.Second
)

// run lets each contestant run each scenario, one after another, again and
// again, and reports. After an interrupt it reports what there is.
func (b *bench) run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("making network namespaces: needs root")
	}
	if err := raiseLimit(); err != nil {
		return fmt.Errorf("raising the limit of open files: %w", err)
	}
	report, err := b.newReport(ctx)
	if err != nil {
		return err
	}
	for round := 1; round <= b.rounds; round++ {
		for _, s := range b.scenarios {
			for _, c := range report.contestants {
				if ctx.Err() != nil {
					break
				}
				r, err := b.once(ctx, s, c)
				if ctx.Err() == nil {
					entry := report.add(s, c, round, r, err)
					fmt.Fprintf(os.Stderr, "%d/%d %-12s %-15s %s\n", round, b.rounds, s.name, c.name, entry)
				}
			}
		}
	}
	report.print(os.Stdout)
	if err := report.write(b.json); err != nil {
		return err
	}
	return ctx.Err()
}

// raiseLimit lets all programs open as many files as descriptors, or, where
// that is not allowed, as the machine allows.
func raiseLimit() error {
	limit := syscall.Rlimit{Cur: descriptors, Max: descriptors}
	err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	if errors.Is(err, syscall.EPERM) {
		if err = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
			limit.Cur = limit.Max
			err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
		}
	}
	return err
}

// once is one run, in a network of its own.
func (b *bench) once(ctx context.Context, s scenario, c contestant) (r reading, err error) {
	length := b.seconds * time.Duration(max(1, s.times))
	ctx, cancel := context.WithTimeout(ctx, time.Minute+rest+2*length)
	defer cancel()
	host := c.host
	if s.six {
		host = c.host6
	}
	if host == "" {
		return r, errors.New("takes no IPv6 here")
	}
	work, err := os.MkdirTemp("", "bench")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(work)
	n := &network{prefix: fmt.Sprintf("bench%d", os.Getpid()), work: work, self: b.self, congestion: b.congestion}
	defer func() { err = errors.Join(err, n.remove()) }()
	if err := n.build(ctx, s.links); err != nil {
		return r, err
	}
	server, err := n.part(ctx, "server", "server")
	if err != nil {
		return r, err
	}
	defer server.stop()
	if _, err := server.line(); err != nil {
		return r, err
	}
	program, err := c.start(ctx, n)
	if err != nil {
		return r, err
	}
	defer program.stop()
	// The first connection shows that all is up, and is not counted.
	first, _, err := n.load(ctx, host, "idle", 1, 0)
	if err != nil {
		return r, fmt.Errorf("%w%s", err, program.lastWords())
	}
	first.stop()
	view := func(others ...*process) (view, error) {
		v, err := look(program, others...)
		if v.held = unknown(); err == nil && c.ask != nil {
			v.held, err = c.ask(ctx, n)
		}
		return v, err
	}
	before, err := view(server)
	if err != nil {
		return r, err
	}
	client, result, err := n.load(ctx, host, s.load, s.n, length)
	if err != nil {
		return r, fmt.Errorf("%w%s", err, program.lastWords())
	}
	defer client.stop()
	if s.load == "churn" {
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
	if s.load == "idle" || s.load == "silent" {
		time.Sleep(settle)
	}
	after, err := view(server, client)
	return reading{done: result, n: s.n, before: before, after: after}, err
}

// load starts a load and waits until it is done. It keeps its connections
// until it is stopped.
func (n *network) load(ctx context.Context, host, kind string, count int, length time.Duration) (*process, done, error) {
	p, err := n.part(ctx, "client", "load", kind, strconv.Itoa(count), length.String(), host)
	if err != nil {
		return nil, done{}, err
	}
	var result done
	line, err := p.line()
	if err == nil {
		err = json.Unmarshal([]byte(line), &result)
	}
	if err != nil {
		p.stop()
		return nil, done{}, err
	}
	return p, result, nil
}
