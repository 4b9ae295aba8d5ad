package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"sixgate/appliance"
)

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain NAME|ADDRESS",
		Short: "Tell what the running gateway would do with a name or an address, and why",
	}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	client := cmd.Flags().String("client", "", "`address` of the client that asks (default: a host of the first lan interface)")
	var target string
	askCommand(cmd, func(ctx context.Context, socket string) error {
		var e appliance.Explanation
		query := url.Values{"target": {target}, "client": {*client}}
		if err := appliance.Ask(ctx, socket, "/explain?"+query.Encode(), &e); err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(os.Stdout).Encode(e)
		}
		for i, step := range e.Steps {
			if _, err := fmt.Printf("%d. %s\n", i+1, appliance.Visible(step)); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError{fmt.Errorf("want one name or address, got %d", len(args))}
		}
		target = args[0]
		return nil
	}
	return cmd
}
