package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"sixgate/appliance"
	"sixgate/appliance/config"
)

// Exit codes other than 0.
const (
	exitFailed     = 1 // failed while running
	exitUsage      = 2 // bad usage or configuration
	exitHost       = 3 // the host cannot
	exitNotRunning = 4 // no running gateway to talk to
)

// defaultConfig is read when it exists and no --config is given.
const defaultConfig = "/etc/sixgate/sixgate.toml"

// rootCommand is what help, completions and manual pages are made of.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sixgate",
		Short: "IPv4/IPv6 gateway by fake addresses (RFC 3089)",
		Long: `IPv4-only machines reach IPv6-only servers by name, and the other way round,
with nothing installed on either: sixgate answers their DNS with fake addresses
of their own family, and carries what they connect to these to the real hosts.

Settings are in ` + defaultConfig + `, which the README explains.

The exit status is 0, or 1 for what failed while it ran, 2 for a command line or
a configuration that makes no sense, 3 for a host that lacks something, which is
told with what to do about it, and 4 where no gateway runs that could be asked.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(*cobra.Command, []string) error { return usageError{errors.New("no command given")} },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(), checkCommand(), runCommand(), insideCommand(), statusCommand(), flowsCommand(), clientsCommand(), namesCommand(), explainCommand(), reloadCommand(), cleanupCommand(), versionCommand())
	return root
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if program, ok := errors.AsType[exit](err); ok {
		if program.why != nil {
			fmt.Fprintln(os.Stderr, "sixgate:", program.why)
		}
		return program.status
	}
	code := exitCode(err)
	switch {
	case errors.As(err, new(config.Complaints)):
		fmt.Fprintln(os.Stderr, err) // a line each, file and line first
	case code == exitUsage:
		fmt.Fprintf(os.Stderr, "sixgate: %v (see sixgate --help)\n", err)
	default:
		fmt.Fprintln(os.Stderr, "sixgate:", err)
	}
	return code
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func exitCode(err error) int {
	switch {
	case errors.As(err, new(usageError)), errors.As(err, new(config.Complaints)), errors.Is(err, appliance.ErrQuestion):
		return exitUsage
	case errors.Is(err, appliance.ErrHost):
		return exitHost
	case errors.Is(err, appliance.ErrNotRunning):
		return exitNotRunning
	}
	return exitFailed
}

// noArgs is cobra.NoArgs as a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}

// withConfig gives cmd the flag --config and makes it run f with what that
// file says, else the default file, else the built-in defaults.
func withConfig(cmd *cobra.Command, f func(context.Context, *config.Config) error) *cobra.Command {
	file := configFlag(cmd)
	cmd.Args = noArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load(*file)
		if err != nil {
			return err
		}
		return f(cmd.Context(), c)
	}
	return cmd
}

func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("config", "", "configuration `file` (default "+defaultConfig+" where it exists)")
}

func load(file string) (*config.Config, error) {
	if file != "" {
		c, err := config.Load(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, usageError{err}
		}
		return c, err
	}
	c, err := config.Load(defaultConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return config.Default(), nil
	}
	return c, err
}

// reload is load for a gateway that runs with running.
func reload(running *config.Config) (*config.Config, error) {
	c, err := config.Reload(cmp.Or(running.File, defaultConfig), running)
	if running.File == "" && errors.Is(err, fs.ErrNotExist) {
		return running, nil // there still is no file
	}
	return c, err
}
