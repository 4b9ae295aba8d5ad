package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the bench, or, when the first argument names one, a part that the
// bench runs inside a namespace.
func run(ctx context.Context, args []string) error {
	parts := map[string]func(context.Context, []string) error{
		"server": serve, "load": load, "splice": splice, "delay": delay,
	}
	if len(args) > 0 && parts[args[0]] != nil {
		ctx, cancel := context.WithCancel(ctx)
		// A part ends with the bench, however that ended.
		go func() { defer cancel(); io.Copy(io.Discard, os.Stdin) }()
		return parts[args[0]](ctx, args[1:])
	}
	b, err := parse(args)
	if err != nil {
		return err
	}
	if b.list {
		b.print(os.Stdout)
		return nil
	}
	return b.run(ctx)
}

// bench is what was asked for on the command line.
type bench struct {
	self        string // this program, which is also the server, the load and the splice relay
	sixgate     string // the program to be measured
	cache       string // where contestants are built
	json        string
	list        bool
	congestion  string
	rounds      int
	seconds     time.Duration
	contestants []contestant
	scenarios   []scenario
}

func parse(args []string) (*bench, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	b := &bench{self: self}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&b.sixgate, "sixgate", "bin/sixgate", "the sixgate to measure")
	flags.StringVar(&b.cache, "cache", filepath.Join(cache, "sixgate-bench"), "where to build other contestants")
	flags.StringVar(&b.json, "json", "bin/bench.json", "where to write all figures")
	flags.IntVar(&b.rounds, "rounds", 3, "how often each contestant runs each scenario, in turn")
	flags.DurationVar(&b.seconds, "time", 3*time.Second, "how long one run loads the gateway")
	flags.StringVar(&b.congestion, "congestion", "", "how kernel TCP controls congestion, such as cubic (default: as on this machine)")
	only := flags.String("contestants", "*", "patterns, with commas; SOCKS servers, such as socks-*, only take part when named")
	where := flags.String("scenarios", "*", "patterns, with commas, such as on/*,connections; whole/* only when named")
	flags.BoolVar(&b.list, "list", false, "only list contestants and scenarios")
	var peers []contestant
	flags.Func("peer", "name=command of another program that reads a TUN device; {tun} and {wan} become the names of devices", func(text string) error {
		peer, err := parsePeer(text)
		peers = append(peers, peer)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || b.rounds < 1 || b.seconds <= 0 {
		return nil, errors.New("reading the command line: see -help")
	}
	all := append(b.builtin(), peers...)
	if b.list || *only != "*" {
		all = append(all, b.servers()...)
	}
	b.contestants = choose(all, *only, func(c contestant) string { return c.name })
	loads := scenarios()
	if b.list || *where != "*" {
		loads = append(loads, transfers()...)
	}
	b.scenarios = choose(loads, *where, func(s scenario) string { return s.name })
	if len(b.contestants) == 0 || len(b.scenarios) == 0 {
		return nil, errors.New("reading the command line: nothing matches, see -list")
	}
	return b, nil
}

// choose returns those whose names match one of the patterns (path.Match). A
// lone * is all, also names with slashes.
func choose[T any](all []T, patterns string, name func(T) string) []T {
	return slices.DeleteFunc(all, func(one T) bool {
		return !slices.ContainsFunc(strings.Split(patterns, ","), func(pattern string) bool {
			matched, _ := path.Match(pattern, name(one))
			return matched || pattern == "*"
		})
	})
}

// print lists what was chosen.
func (b *bench) print(out io.Writer) {
	fmt.Fprintln(out, "Contestants:")
	for _, c := range b.contestants {
		fmt.Fprintf(out, "  %-16s %s\n", c.name, c.about)
	}
	fmt.Fprintln(out, "Scenarios:")
	for _, s := range b.scenarios {
		fmt.Fprintf(out, "  %-16s %s\n", s.name, s.table.title)
	}
}
