package main

import (
	"github.com/spf13/cobra"

	"sixgate/appliance"
)

func reloadCommand() *cobra.Command {
	return askCommand(&cobra.Command{
		Use:   "reload",
		Short: "Have the running gateway read its configuration again",
		Long: `Have the running gateway read its configuration again, without ending a flow.

It is taken as a whole or not at all: what is wrong with it, and which keys
take a restart, is told with file and line.`,
	}, appliance.AskReload)
}
