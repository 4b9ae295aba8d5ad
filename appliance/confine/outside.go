package confine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Program is what to run.
type Program struct {
	Args []string // the first is its name, to be found as a shell does
	Env  []string

	// Self is the command line of this binary that leads to Enter. The
	// socket's number, the path of the program's file, and Args are appended
	// to it.
	Self []string

	Signals <-chan os.Signal // passed on to it; may be nil
}

// Network is what the program finds.
type Network struct {
	TUN       string // the device's name
	MTU       int    // of it, in octets
	Addresses []netip.Prefix
	Resolver  netip.Addr // DNS server, reached through the device
}

// Exit statuses of what never ran, as shells and env(1) have them.
const (
	notExecutable = 126
	notFound      = 127
	killed        = 128 // plus the signal
)

// Run runs a program in user, mount and network namespaces of its own, and
// returns when it has ended: its exit status, or 128 and the number of the
// signal that ended it. Before it starts, serve is given the other end of the
// TUN device, and told whether the program has IPv6.
//
// An error with status 0 is of this host, or of serve; one with a status is of a
// program that cannot be executed. The program is killed when this process is.
// What it has started itself may outlive it, but its network does not.
func Run(p Program, n Network, serve func(tun int, ipv6 bool) error) (status int, err error) {
	path, err := exec.LookPath(p.Args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) { // who has "." in PATH wants that
		return notExecuted(err)
	}
	runtime.LockOSThread() // with whose end the kernel kills the program
	defer runtime.UnlockOSThread()
	l, far, err := newLine()
	if err != nil {
		return 0, err
	}
	defer l.close()
	rights := !privileged()
	child, err := start(p, path, far, rights)
	far.close()
	if err != nil {
		return 0, fmt.Errorf("making namespaces%s: %w", obstacle(err), err)
	}
	defer child.close()
	if err := child.prepare(l, order{n.TUN, n.MTU, n.Addresses, n.Resolver, rights}, serve); err != nil {
		return 0, errors.Join(err, child.end())
	}
	var r report
	_, err = l.receive(&r)
	if err == nil {
		return notExecuted(errors.Join(fmt.Errorf("executing %s: %w", path, r.err()), child.end()))
	}
	if !errors.Is(err, io.EOF) { // the socket's end closes with the execution
		return 0, errors.Join(err, child.end())
	}
	return child.wait(p.Signals)
}

func notExecuted(err error) (status int, _ error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return notFound, err
	}
	return notExecutable, err
}

// privileged reports whether namespaces need no user namespace around them. The
// program keeps all the users then that root may want to become.
func privileged() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	const wanted = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return os.Geteuid() == 0 && unix.Capget(&header, &data[0]) == nil && data[0].Effective&wanted == wanted
}
