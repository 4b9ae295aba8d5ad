package main

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if notify, watchdog := serviceManager(slog.New(slog.DiscardHandler)); notify != nil || watchdog != 0 {
		t.Error("there is no service manager")
	}
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000000")
	for pid, want := range map[string]time.Duration{
		"": 30 * time.Second, strconv.Itoa(os.Getpid()): 30 * time.Second, "1": 0,
	} {
		t.Setenv("WATCHDOG_PID", pid)
		notify, watchdog := serviceManager(slog.New(slog.DiscardHandler))
		if watchdog != want {
			t.Errorf("watchdog for pid %q is %v, want %v", pid, watchdog, want)
		}
		notify("READY=1")
		buf := make([]byte, 100)
		n, err := socket.Read(buf)
		if err != nil || string(buf[:n]) != "READY=1" {
			t.Errorf("got %q, %v", buf[:n], err)
		}
	}
}
