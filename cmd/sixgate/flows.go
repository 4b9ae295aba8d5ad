package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sixgate/appliance"
)

func flowsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "flows", Short: "List the flows that live"}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	return askCommand(cmd, func(ctx context.Context, socket string) error {
		var flows []appliance.Flow
		if err := appliance.Ask(ctx, socket, "/flows", &flows); err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(os.Stdout).Encode(flows)
		}
		t := newTable(os.Stdout)
		fmt.Fprintln(t, "CLIENT\tPROTO\tDESTINATION\tFAR\tTYPE\tOUTLET\tUP\tDOWN\tAGE")
		for _, f := range flows {
			far := "-"
			switch {
			case f.Far.IsValid() && f.Network == "icmp":
				far = f.Far.Addr().String()
			case f.Far.IsValid():
				far = f.Far.String()
			}
			t.printf("%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%v\n", f.Client, f.Network, cmp.Or(f.Real, f.Asked), far,
				cmp.Or(f.Type, "-"), cmp.Or(f.Outlet, "direct"), f.Up, f.Down, time.Duration(f.Age)*time.Second)
		}
		return t.Flush()
	})
}
