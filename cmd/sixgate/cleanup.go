package main

import (
	"github.com/spf13/cobra"

	"sixgate/appliance"
)

func cleanupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove what a killed gateway left on the host",
		Args:  noArgs,
	}
	load := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		return appliance.CleanUp(c)
	}
	return cmd
}
