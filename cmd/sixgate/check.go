package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"sixgate/appliance"
	"sixgate/appliance/config"
)

func checkCommand() *cobra.Command {
	return withConfig(&cobra.Command{
		Use:   "check",
		Short: "Test configuration and host, and change nothing",
	}, func(ctx context.Context, c *config.Config) error {
		missing := 0
		for _, f := range appliance.Check(ctx, c) {
			if !f.OK {
				missing++
			}
			if _, err := fmt.Println(appliance.Visible(f.String())); err != nil {
				return err
			}
		}
		if missing > 0 {
			return fmt.Errorf("%w: %d of the lines above say what is missing", appliance.ErrHost, missing)
		}
		return nil
	})
}
