package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"golang.org/x/sys/unix"

	"sixgate/appliance/config"
)

// Reload reads the configuration again and takes it as a whole or, where
// anything is wrong with it or takes a restart, not at all: the error is then
// a config.Complaints, or why it cannot be read. No flow ends by it, and no
// name gets another address.
func (a *Appliance) Reload() error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if a.Load == nil {
		return fmt.Errorf("reloading: %w", syscall.EOPNOTSUPP)
	}
	if now, err := monotonic(); err != nil {
		a.Logger.Warn("telling the service manager of the reload", "err", err)
	} else {
		a.Notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now))
		defer a.Notify("READY=1")
	}
	c, err := a.Load(a.config())
	if err != nil {
		return err
	}
	if err := a.parts.adopt(c); err != nil {
		return err
	}
	if a.Level != nil {
		a.Level.Set(c.Log.Level)
	}
	a.Logger.Info("reloaded", "config", c.File, "rules", len(c.Rules), "outlets", len(c.Outlets))
	return nil
}

// monotonic returns CLOCK_MONOTONIC in microseconds, as sd_notify(3) wants it.
func monotonic() (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("reading the clock: %w", err)
	}
	return now.Nano() / 1000, nil
}

// heed reloads at each hang-up until ctx ends.
func (a *Appliance) heed(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.HangUps:
		}
		err := a.Reload()
		var complaints config.Complaints
		if errors.As(err, &complaints) {
			for _, c := range complaints {
				a.Logger.Warn("not reloaded", "err", c.String())
			}
		} else if err != nil {
			a.Logger.Warn("not reloaded", "err", err)
		}
	}
}

// serveReload answers with what is wrong with the configuration, an empty list
// if nothing.
func (a *Appliance) serveReload(w http.ResponseWriter, _ *http.Request) {
	err := a.Reload()
	complaints := config.Complaints{}
	if err != nil && !errors.As(err, &complaints) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	a.writeJSON(w, complaints)
}

// AskReload makes the gateway behind a control socket reload. The error is a
// config.Complaints where the configuration is at fault.
func AskReload(ctx context.Context, socket string) error {
	var complaints config.Complaints
	if err := request(ctx, socket, http.MethodPost, "/reload", into(&complaints)); err != nil {
		return err
	}
	if len(complaints) > 0 {
		return complaints
	}
	return nil
}
