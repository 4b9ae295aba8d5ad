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
	}, func(ctx context.Context, c *config.Config) error {
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		// A second signal finds the default action again, and kills.
		context.AfterFunc(ctx, stop)
		logger := newLogger(c.Log)
		logger.Info("starting", "version", version, "config", c.File)
		notify, watchdog := serviceManager(logger)
		a, err := appliance.New(c, appliance.Options{Version: version, Logger: logger, Notify: notify, Watchdog: watchdog})
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})
}

func newLogger(c config.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.JSON {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
