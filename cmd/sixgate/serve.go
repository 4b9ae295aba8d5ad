package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"sixgate/appliance"
	"sixgate/appliance/config"
)

func serveCommand() *cobra.Command {
	return withConfig(&cobra.Command{
		Use:   "serve",
		Short: "Run the gateway in the foreground until SIGINT or SIGTERM",
		Long: `Run the gateway in the foreground until SIGINT or SIGTERM. It logs to stderr,
and says "ready" once all is up. SIGHUP does what ` + "`sixgate reload`" + ` does.

Without a file it serves this machine alone: DNS on 127.0.0.1:5364, SOCKS on port
1080 of 127.0.0.1 and ::1.`,
	}, func(ctx context.Context, c *config.Config) error {
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		// A second signal finds the default action again, and kills.
		context.AfterFunc(ctx, stop)
		hangUps := make(chan os.Signal, 1)
		signal.Notify(hangUps, syscall.SIGHUP)
		defer signal.Stop(hangUps)
		level := new(slog.LevelVar)
		level.Set(c.Log.Level)
		logger := newLogger(c.Log.JSON, level)
		logger.Info("starting", "version", version, "config", c.File)
		notify, watchdog := serviceManager(logger)
		a, err := appliance.New(c, appliance.Options{
			Version: version, Logger: logger, Notify: notify, Watchdog: watchdog,
			Load: reload, HangUps: hangUps, Level: level,
		})
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})
}

func newLogger(json bool, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
