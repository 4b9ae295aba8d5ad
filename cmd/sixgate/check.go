package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sixgate/appliance"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Test configuration and host, and change nothing",
		Args:  noArgs,
	}
	load := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		missing := 0
		for _, f := range appliance.Check(cmd.Context(), c) {
			if !f.OK {
				missing++
			}
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), f); err != nil {
				return err
			}
		}
		if missing > 0 {
			return fmt.Errorf("%w: %d of the lines above say what is missing", appliance.ErrHost, missing)
		}
		return nil
	}
	return cmd
}
