package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"sixgate/appliance"
)

func namesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "names", Short: "List the names that have fake addresses"}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	return askCommand(cmd, func(ctx context.Context, socket string) error {
		var names []appliance.Mapping
		if err := appliance.Ask(ctx, socket, "/names", &names); err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(os.Stdout).Encode(names)
		}
		t := newTable(os.Stdout)
		fmt.Fprintln(t, "NAME\tIPV4\tIPV6\tFLOWS")
		for _, n := range names {
			t.printf("%s\t%s\t%s\t%d\n", n.Name, n.IPv4, n.IPv6, n.Flows)
		}
		return t.Flush()
	})
}
