package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// sysctls is where the kernel shows its settings; those of the network are
// the caller's network namespace's.
const sysctls = "/proc/sys"

// setting is a sysctl in the notation of sysctl.d(5), where a dot separates
// and a slash stands for a dot in an interface's name.
type setting struct{ key, value string }

func (s setting) path() string {
	return filepath.Join(sysctls, strings.NewReplacer(".", "/", "/", ".").Replace(s.key))
}

// conf returns the key of an interface's variable; family is "ipv4" or
// "ipv6".
func conf(family, iface, variable string) string {
	return "net." + family + ".conf." + strings.ReplaceAll(iface, ".", "/") + "." + variable
}

func readSysctl(key string) (string, error) {
	value, err := os.ReadFile(setting{key: key}.path())
	if err != nil {
		return "", fmt.Errorf("reading sysctl %s: %w", key, err)
	}
	return strings.Join(strings.Fields(string(value)), " "), nil
}

// write makes the kernel's value that of s. A read-only /proc/sys, as in a
// container or a hardened unit, is no obstacle when the value already is.
func (s setting) write() error {
	value, err := readSysctl(s.key)
	if err != nil || value == s.value {
		return err
	}
	err = os.WriteFile(s.path(), []byte(s.value), 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("setting sysctl %s, which belongs as \"%s = %s\" into /etc/sysctl.d/60-sixgate.conf: %w",
			s.key, s.key, s.value, err)
	}
	if err != nil {
		return fmt.Errorf("setting sysctl %s to %s: %w", s.key, s.value, err)
	}
	return nil
}

// interfaces lists those of a family that the kernel has settings for, also
// "default", which is a template.
func interfaces(family string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(sysctls, "net", family, "conf"))
	if err != nil {
		return nil, fmt.Errorf("listing interfaces of %s: %w", family, err)
	}
	var found []string
	for _, e := range entries {
		if e.Name() != "all" && quotable(e.Name()) {
			found = append(found, e.Name())
		}
	}
	return found, nil
}

// journal holds settings as they were before the gateway, in the order in
// which to write them back. It lives in our nft table, as a chain that nobody
// jumps to: the kernel keeps it over a kill -9, drops it with the namespace,
// and shows it to the operator.
type journal []setting

func (j journal) value(key string) (string, bool) {
	for _, s := range j {
		if s.key == key {
			return s.value, true
		}
	}
	return "", false
}

// without returns what of j is not in other.
func (j journal) without(other journal) journal {
	return slices.DeleteFunc(slices.Clone(j), func(s setting) bool { return slices.Contains(other, s) })
}

// rules returns the journal as nft rules.
func (j journal) rules() []string {
	var rules []string
	for _, s := range j {
		rules = append(rules, fmt.Sprintf("return comment \"%s=%s\"", s.key, s.value))
	}
	return rules
}

// restore writes all of j back; interfaces that are gone do not matter.
func (j journal) restore() error {
	var failed []error
	for _, s := range j {
		if err := s.write(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
