package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and commit are set by the linker.
var (
	version = "devel"
	commit  = "unknown"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit, Go and netstack versions",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "sixgate %s\ncommit %s\n%s %s/%s\nnetstack %s\n",
				version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH, netstackVersion())
			return err
		},
	}
}

// netstackVersion returns the version of the TCP/IP stack that was linked in.
func netstackVersion() string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, m := range info.Deps {
			if m.Path == "gvisor.dev/gvisor" {
				return m.Version
			}
		}
	}
	return "unknown"
}
