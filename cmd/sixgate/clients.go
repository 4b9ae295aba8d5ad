package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
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
	t := newTable(w)
	for _, c := range clients {
		t.printf("%s\tseen %v ago; %d live; ever: %s; %d failed\n", c.Addr, ago(now, c.Seen), c.Live, counts(c.Joined), c.Failed)
		t.printf("\t%d up, %d down\n", c.Up, c.Down)
		if len(c.Names) > 0 {
			t.printf("\treached %s\n", strings.Join(c.Names, ", "))
		}
		for _, f := range c.Failures {
			t.printf("\tfailed %s\n", f.Tell(now))
		}
	}
	return t.Flush()
}

func ago(now, then time.Time) time.Duration { return now.Sub(then).Round(time.Second) }
