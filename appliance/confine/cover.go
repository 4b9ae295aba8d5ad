package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	resolvConfPath = "/etc/resolv.conf"
	nsswitchPath   = "/etc/nsswitch.conf"
)

// daemons are where the sockets are of those who answer for host names outside:
// the C library's nscd, systemd's resolver, the bus by which it is asked, too,
// and the one of multicast DNS.
func daemons() []string {
	return []string{"/var/run/nscd", "/run/systemd/resolve", "/run/dbus", "/run/avahi-daemon"}
}

// resolveBy makes all that is asked for host names ask server.
func resolveBy(server netip.Addr) error {
	resolv, servers, err := read(resolvConfPath)
	if err != nil {
		return fmt.Errorf("replacing what names the DNS servers: %w", err)
	}
	texts := map[string]string{resolv: resolvConf(servers, server)}
	switches, sources, err := read(nsswitchPath)
	switch {
	case err == nil:
		texts[switches] = nsswitch(sources)
	case !errors.Is(err, fs.ErrNotExist): // as without the GNU C library
		return fmt.Errorf("replacing the sources of host names: %w", err)
	}
	for _, path := range daemons() {
		if dir, err := filepath.EvalSymlinks(path); err == nil {
			if err := empty(dir); err != nil {
				return err
			}
		}
	}
	for path, text := range texts {
		if err := replace(path, text); err != nil {
			return err
		}
	}
	return nil
}

// read returns where the file is to which path leads, and its text.
func read(path string) (target, text string, err error) {
	if target, err = filepath.EvalSymlinks(path); err != nil {
		return "", "", err
	}
	octets, err := os.ReadFile(target)
	return target, string(octets), err
}

// replace makes text that of the file path. A daemon's file in /run is replaced
// with its directory: a mount over the file alone would end when the daemon
// puts another in its place, as it does when the network changes.
func replace(path, text string) error {
	if dir := filepath.Dir(path); strings.HasPrefix(dir, "/run/") {
		if err := empty(dir); err != nil {
			return err
		}
		return write(path, text)
	}
	// A directory that is everywhere and that no such path leads through.
	const room = "/sys"
	if err := empty(room); err != nil {
		return err
	}
	file := filepath.Join(room, filepath.Base(path))
	if err := write(file, text); err != nil {
		return err
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting another %s: %w", path, err)
	}
	if err := unix.Unmount(room, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting a file system: %w", err)
	}
	return nil
}

// write makes a file that whomever the program becomes can read, whatever the
// umask is.
func write(path, text string) error {
	const all = 0o444
	err := os.WriteFile(path, []byte(text), all)
	if err == nil {
		err = os.Chmod(path, all)
	}
	if err != nil {
		return fmt.Errorf("writing another %s: %w", path, err)
	}
	return nil
}

// empty mounts an empty directory over that with this path.
func empty(path string) error {
	if err := unix.Mount("sixgate", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return fmt.Errorf("mounting an empty directory over %s: %w", path, err)
	}
	return nil
}
