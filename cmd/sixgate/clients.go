package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sixgate/appliance"
)

func clientsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "clients", Short: "List the clients that were seen last, and what failed for them"}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	return askCommand(cmd, func(ctx context.Context, socket string) error {
		var clients []appliance.Client
		if err := appliance.Ask(ctx, socket, "/clients", &clients); err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(os.Stdout).Encode(clients)
		}
		return printClients(os.Stdout, clients, time.Now())
	})
}

func printClients(w io.Writer, clients []appliance.Client, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range clients {
		fmt.Fprintf(t, "%s\tseen %v ago; %d live; ever: %s; %d failed\n", c.Addr, ago(now, c.Seen), c.Live, counts(c.Joined), c.Failed)
		fmt.Fprintf(t, "\t%d up, %d down\n", c.Up, c.Down)
		if len(c.Names) > 0 {
			fmt.Fprintf(t, "\treached %s\n", strings.Join(c.Names, ", "))
		}
		for _, f := range c.Failures {
			fmt.Fprintf(t, "\tfailed %s, %d times, last %v ago: %s\n", f.What, f.Times, ago(now, f.Last), f.Why)
		}
	}
	return t.Flush()
}

func ago(now, then time.Time) time.Duration { return now.Sub(then).Round(time.Second) }
