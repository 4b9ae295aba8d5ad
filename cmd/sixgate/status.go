package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sixgate/appliance"
	"sixgate/appliance/config"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show how the running gateway is"}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	return askCommand(cmd, func(ctx context.Context, socket string) error {
		var s appliance.Status
		if err := appliance.Ask(ctx, socket, "/status", &s); err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(os.Stdout).Encode(s)
		}
		return printStatus(os.Stdout, s)
	})
}

// askCommand makes cmd one that asks a running gateway, which it finds by the
// flag --socket, else by the configuration.
func askCommand(cmd *cobra.Command, ask func(ctx context.Context, socket string) error) *cobra.Command {
	socket := cmd.Flags().String("socket", "", "control socket `path` of the gateway (default: as configured)")
	file := configFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("socket", "config")
	cmd.Args = noArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, err := *socket, error(nil)
		if path == "" {
			path, err = controlSocket(os.Stderr, *file, load)
		}
		if err != nil {
			return err
		}
		return ask(cmd.Context(), path)
	}
	return cmd
}

// controlSocket returns the path that a file configures. A gateway may run
// while the default file has mistakes, or may be read by others alone: then it
// is looked for where it is by default, and w told so.
func controlSocket(w io.Writer, file string, load func(file string) (*config.Config, error)) (string, error) {
	c, err := load(file)
	if err != nil && file == "" {
		c = config.Default()
		_, err = fmt.Fprintf(w, "sixgate: %s cannot be used, as `sixgate check` tells: asking at %s\n", defaultConfig, c.Control.Socket)
	}
	if err != nil {
		return "", err
	}
	return c.Control.Socket, nil
}

func printStatus(w io.Writer, s appliance.Status) error {
	t := newTable(w)
	t.printf("running\tfor %v, version %s\n", time.Since(s.Started).Round(time.Second), s.Version)
	t.printf("config\t%s, in force for %v\n", cmp.Or(s.Config, "none: the defaults"), time.Since(s.Loaded).Round(time.Second))
	t.printf("uplink\t%s\n", s.Uplink)
	if s.NAT64 != "" {
		t.printf("nat64\t%s\n", s.NAT64)
	}
	t.printf("lan\t%s\n", s.LAN)
	t.printf("handover\t%s; %d connections went to the kernel\n", s.Handover, s.TUN["tcp_handed_back"])
	t.printf("names\t%d mapped of %d\n", s.Names.Mapped, s.Names.Room)
	t.printf("flows\t%d live; ever: %s\n", s.Flows.Live, counts(s.Flows.Joined))
	t.printf("refused\t%s\n", counts(s.Flows.Refused))
	t.printf("bytes\t%d up, %d down\n", s.Flows.Up, s.Flows.Down)
	t.printf("dns\t%d fake, %d real, %d no such name, %d no such data, %d failed\n",
		s.DNS["fake"], s.DNS["real"], s.DNS["nx_domain"], s.DNS["no_data"], s.DNS["serv_fail"])
	t.printf("dropped\t%s\n", counts(s.Drops))
	t.printf("files\t%d open of %d\n", s.Files.Open, s.Files.Limit)
	for _, a := range s.Advertised {
		t.printf("advertised\ton %s: %s; %d sent, %d solicited, %d contradicted\n", a.Interface, a.What, a.Sent, a.Solicited, a.Contradicted)
	}
	for _, r := range s.Resolvers {
		state := fmt.Sprintf("%.1f ms", r.RTT*1000)
		if r.Down {
			state = "down: " + r.Error
		}
		t.printf("resolver\t%s, %s, %d asked, %d failed, %d forged\n", r.Server, state, r.Asked, r.Failed, r.Forged)
	}
	for _, h := range s.Hops {
		t.printf("outlet\t%s: %s, %s, %d asked, %d failed\n", h.Outlet, h.Server, h.State(), h.Asked, h.Failed)
	}
	return t.Flush()
}

// counts lists what is not zero.
func counts(values map[string]uint64) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if n := values[key]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, key))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}
