package main

import (
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"
)

// serviceManager returns how to tell the service manager of a state and how
// long it waits for a sign of life, as sd_notify(3) and sd_watchdog_enabled(3)
// have it. Without a service manager both are zero.
func serviceManager(logger *slog.Logger) (notify func(state string), watchdog time.Duration) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil, 0
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
		if err == nil { // not set: no watchdog
			watchdog = time.Duration(usec) * time.Microsecond
		}
	}
	return func(state string) {
		if err := send(socket, state); err != nil {
			logger.Warn("telling the service manager", "state", state, "err", err)
		}
	}, watchdog
}

// send sends one datagram to a Unix socket.
func send(socket, text string) error {
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(text))
	return err
}
