package main

import (
	"context"

	"github.com/spf13/cobra"

	"sixgate/appliance"
	"sixgate/appliance/config"
)

func cleanupCommand() *cobra.Command {
	return withConfig(&cobra.Command{
		Use:   "cleanup",
		Short: "Remove what a killed gateway left on the host",
	}, func(_ context.Context, c *config.Config) error {
		return appliance.CleanUp(c)
	})
}
