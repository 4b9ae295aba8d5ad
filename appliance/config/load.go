package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Load reads and parses the configuration file at path. Its error is a
// Complaints, or that of reading the file: fs.ErrNotExist when there is none.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse returns the configuration that data, TOML, holds; keys that it lacks
// have the values of Default. file names data in complaints. The error is a
// Complaints with everything that is wrong, except that after an error of
// syntax only that is told.
func Parse(file string, data []byte) (*Config, error) { return parse(file, data, nil) }

// parse is Parse for a gateway that runs with the configuration running, which
// may be nil.
func parse(file string, data []byte, running *Config) (*Config, error) {
	var keys map[string]any
	if err := toml.Unmarshal(data, &keys); err != nil {
		return nil, syntaxComplaint(file, err)
	}
	lines, err := keyLines(data)
	if err != nil {
		return nil, syntaxComplaint(file, err)
	}
	doc := newDocument(file, lines)
	root := doc.open(place{}, keys)
	c := Default()
	c.File = file
	c.read(root)
	c.complete(root)
	c.check(root)
	notYet(root)
	if running != nil {
		doc.keep(running.fixed())
	}
	if complaints := doc.complaints(); len(complaints) > 0 {
		return nil, complaints
	}
	return c, nil
}

func syntaxComplaint(file string, err error) Complaints {
	c := Complaint{File: file, Line: 1, Text: err.Error()}
	if at, ok := errors.AsType[*toml.DecodeError](err); ok {
		c.Line, _ = at.Position()
		c.Text = strings.TrimPrefix(c.Text, "toml: ")
	}
	return Complaints{c}
}
