package confine

import (
	"fmt"
	"net/netip"
	"os"
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
