package main

import (
	"errors"
	"strings"
	"testing"

	"sixgate/appliance/config"
)

func TestControlSocket(t *testing.T) {
	broken := func(string) (*config.Config, error) { return nil, config.Complaints{{File: "x", Line: 1, Text: "y"}} }
	other := func(string) (*config.Config, error) {
		return &config.Config{Control: config.Control{Socket: "/run/other"}}, nil
	}
	standard := config.Default().Control.Socket
	for _, c := range []struct {
		what, file string
		load       func(string) (*config.Config, error)
		want       string
		warned     int
	}{
		{"as configured", "", other, "/run/other", 0},
		{"the default file has mistakes", "", broken, standard, 1},
		{"a file that was named has", "/etc/mine", broken, "", 0},
	} {
		var log strings.Builder
		got, err := controlSocket(&log, c.file, c.load)
		if got != c.want || (err != nil) != (c.want == "") || strings.Count(log.String(), "\n") != c.warned {
			t.Errorf("%s: %q, %v, and told %q", c.what, got, err, log.String())
		}
		if err != nil && !errors.As(err, new(config.Complaints)) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
