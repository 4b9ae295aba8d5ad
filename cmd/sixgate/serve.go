package main

import (
	"context"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"

	"sixgate/appliance"
	"sixgate/appliance/config"
)

func serveCommand() *cobra.Command {
	return withConfig(&cobra.Command{
		Use:   "serve",
		Short: "Run the gateway in the foreground until SIGINT or SIGTERM",
	}, func(ctx context.Context, c *config.Config) error {
		logger := newLogger(c.Log)
		logger.Info("starting", "version", version, "config", c.File)
		a, err := appliance.New(c, version, logger, func() { notifyReady(logger, os.Getenv("NOTIFY_SOCKET")) })
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

// notifyReady tells the service manager that all is up (sd_notify(3)). socket
// is empty where there is none to tell.
func notifyReady(logger *slog.Logger, socket string) {
	if socket == "" {
		return
	}
	conn, err := net.Dial("unixgram", socket)
	if err == nil {
		_, err = conn.Write([]byte("READY=1"))
		conn.Close()
	}
	if err != nil {
		logger.Warn("telling the service manager that all is up", "err", err)
	}
}
