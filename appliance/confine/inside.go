package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"sixgate/appliance/host"
	"sixgate/stack"
)

// Enter is the program's process before it is the program: it makes the network
// of the namespaces that Run has put it into, and becomes the program. socket
// is what Run has appended to the arguments of this process, and path and args
// are the program. It returns only when that fails, and then its error is one
// that Run was not told.
func Enter(socket int, path string, args, env []string) error {
	runtime.LockOSThread() // rights and the signal at the end of Run are a thread's
	l := line(socket)
	unix.CloseOnExec(socket)
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("asking to end with the gateway: %w", err)
	}
	var o order
	if _, err := l.receive(&o); err != nil {
		return fmt.Errorf("waiting for the gateway: %w", err)
	}
	tun, ipv6, err := prepare(o)
	if err != nil {
		return l.send(newReport(err))
	}
	if err := l.send(report{IPv6: ipv6}, tun); err != nil {
		return err
	}
	if _, err := l.receive(new(struct{})); err != nil { // that somebody is at the other end of the device
		return fmt.Errorf("waiting for the gateway: %w", err)
	}
	if o.Rights {
		err = renounce()
	}
	if err == nil {
		err = syscall.Exec(path, args, env)
	}
	return l.send(newReport(err))
}

// prepare makes the namespaces what o says, and returns the TUN device.
func prepare(o order) (tun int, ipv6 bool, err error) {
	// What is mounted outside later is seen inside, and nothing the other way.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return -1, false, fmt.Errorf("parting the mount namespaces: %w", err)
	}
	if tun, err = stack.MakeTUN(o.TUN); err != nil {
		return -1, false, err
	}
	if ipv6, err = host.IPv6(); err != nil {
		return -1, false, err
	}
	if !ipv6 {
		o.Addresses = slices.DeleteFunc(o.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	}
	if err := host.Furnish(o.TUN, o.MTU, o.Addresses); err != nil {
		return -1, false, err
	}
	if err := letPing(o.Rights); err != nil {
		return -1, false, err
	}
	return tun, ipv6, resolveBy(o.Resolver)
}

// letPing lets the program ping without any right: all groups may, or with a
// user namespace the one group that is in it.
func letPing(user bool) error {
	groups := "0 2147483647"
	if user {
		groups = fmt.Sprintf("%d %[1]d", os.Getegid())
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0); err != nil {
		return fmt.Errorf("allowing pings: %w", err)
	}
	return nil
}

// renounce gives up the rights over the user namespace, so that the program
// starts with those it would have outside. It needs no PR_SET_NO_NEW_PRIVS: in
// the namespace the kernel heeds no set-user-ID bit of others, and capabilities
// of a file reach no further than the namespace.
func renounce() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up ambient capabilities: %w", err)
	}
	var none [2]unix.CapUserData
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		return fmt.Errorf("giving up capabilities: %w", err)
	}
	return nil
}

const (
	resolvConfPath = "/etc/resolv.conf"
	nsswitchPath   = "/etc/nsswitch.conf"
)

// daemons are the sockets of those who answer for host names outside: the C
// library asks the first before any file, the second is systemd's resolver.
var daemons = []string{"/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"}

// resolveBy makes all that is asked for host names ask server.
func resolveBy(server netip.Addr) error {
	resolv, err := os.ReadFile(resolvConfPath)
	if err != nil {
		return fmt.Errorf("replacing what names the DNS servers: %w", err)
	}
	texts := map[string]string{resolvConfPath: resolvConf(string(resolv), server)}
	sources, err := os.ReadFile(nsswitchPath)
	switch {
	case err == nil:
		texts[nsswitchPath] = nsswitch(string(sources))
	case !errors.Is(err, fs.ErrNotExist): // as without the GNU C library
		return fmt.Errorf("replacing the sources of host names: %w", err)
	}
	for _, socket := range daemons {
		if _, err := os.Stat(socket); err == nil {
			texts[socket] = "" // connecting to a file is refused
		}
	}
	return mountTexts(texts)
}

// mountTexts mounts files with these texts over those with these paths.
func mountTexts(texts map[string]string) error {
	// A directory that is everywhere and that none of the paths leads through.
	const room = "/sys"
	if err := unix.Mount("sixgate", room, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return fmt.Errorf("mounting a file system: %w", err)
	}
	for path, text := range texts {
		file := filepath.Join(room, filepath.Base(path))
		if err := os.WriteFile(file, []byte(text), 0o444); err != nil {
			return fmt.Errorf("writing another %s: %w", path, err)
		}
		if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting another %s: %w", path, err)
		}
	}
	if err := unix.Unmount(room, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting a file system: %w", err)
	}
	return nil
}
