package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
)

// Reload is Load for a gateway that runs: it complains, too, about each key that
// has another value than in running and takes a restart. So a file is taken as
// a whole, or not at all.
func Reload(path string, running *Config) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	return parse(path, data, running)
}

// fixed returns the values of the keys that take a restart, by place id.
func (c Config) fixed() map[string]any {
	doc := newDocument("", nil)
	c.read(doc.open(place{}, map[string]any(nil)))
	values := map[string]any{}
	for _, s := range doc.settings {
		if s.fixed {
			values[s.place.id] = s.value()
		}
	}
	return values
}

var errRestart = errors.New("is not what the gateway runs with, which takes a restart (restart it, or put the old value back)")

// keep complains about settings that are others than those of running.
func (d *document) keep(running map[string]any) {
	for _, s := range d.settings {
		if old, fixed := running[s.place.id]; fixed && !reflect.DeepEqual(old, s.value()) {
			d.complain(s.place, errRestart)
		}
	}
}
