package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"sixgate/appliance"
	"sixgate/appliance/config"
)

// insideCommandName is the command that a process of `sixgate run` runs before
// it becomes the program.
const insideCommandName = "run-inside"

// exit is how a program ended, or why it could not begin.
type exit struct {
	status int
	why    error // may be nil
}

func (e exit) Error() string { return fmt.Sprintf("exit status %d: %v", e.status, e.why) }

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG...]",
		Short: "Run one program behind a gateway of its own",
		Long: `Run one program whose TCP and UDP all go through a gateway of its own, which
nothing else uses. It needs no root where users may make namespaces. The exit
status is the program's, or 128 and the number of the signal that ended it.`,
	}
	file := cmd.Flags().String("config", "", "configuration `file` (default: none)")
	via := cmd.Flags().StringArray("via", nil, "SOCKS server to go through, as socks5://[user:password@]host[:port] `URL`; repeated: through this one to the next")
	cmd.Flags().SetInterspersed(false) // what follows CMD is CMD's
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{errors.New("no command to run")}
		}
		c, err := programConfig(*file)
		if err != nil {
			return err
		}
		if err := c.Via(*via); err != nil {
			return usageError{err}
		}
		return runProgram(c, args)
	}
	return cmd
}

// programConfig reads file, else returns the built-in defaults: the file of the
// box is about the clients of the box. Without a file only what is wrong is
// logged, as the terminal is the program's.
func programConfig(file string) (*config.Config, error) {
	if file != "" {
		return load(file)
	}
	c := config.Default()
	c.Log.Level = slog.LevelWarn
	return c, nil
}

func runProgram(c *config.Config, args []string) error {
	signals := make(chan os.Signal, 16)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2} {
		if !signal.Ignored(s) { // else the program inherits that
			signal.Notify(signals, s)
		}
	}
	status, err := appliance.RunProgram(c, appliance.Program{
		Args: args, Env: os.Environ(), Self: []string{"sixgate", insideCommandName}, Signals: signals,
	}, appliance.Options{Version: version, Logger: newLogger(c.Log.JSON, c.Log.Level)})
	if status == 0 {
		return err
	}
	return exit{status, err}
}

// insideCommand is for `sixgate run` alone.
func insideCommand() *cobra.Command {
	return &cobra.Command{
		Use:                insideCommandName + " SOCKET PATH CMD [ARG...]",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) < 3 {
				return usageError{errors.New("only `sixgate run` may run this")}
			}
			socket, err := strconv.Atoi(args[0])
			if err != nil {
				return usageError{err}
			}
			return appliance.Enter(socket, args[1], args[2:], os.Environ())
		},
	}
}
