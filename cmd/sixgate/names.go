package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"sixgate/appliance"
)

func namesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "names", Short: "List the names that have fake addresses"}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	return askCommand(cmd, func(ctx context.Context, socket string) error {
		names, err := appliance.AskNames(ctx, socket)
		if err != nil {
			return err
		}
		if *asJSON {
			return appliance.WriteArray(os.Stdout, slices.Values(names))
		}
		t := newTable(os.Stdout)
		fmt.Fprintln(t, "NAME\tIPV4\tIPV6\tFLOWS")
		for i, n := range names {
			if i%1000 == 999 { // a full table aligned as a whole would take as much memory as the gateway has
				if err := t.Flush(); err != nil {
					return err
				}
			}
			t.printf("%s\t%s\t%s\t%d\n", n.Name, n.IPv4, n.IPv6, n.Flows)
		}
		return t.Flush()
	})
}
