package confine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// child is the program's process.
type child struct{ pid, fd int }

// start starts it. In a user namespace it is the user that it is outside, and
// has rights over its namespaces alone.
func start(p Program, path string, socket line, user bool) (*child, error) {
	c := &child{}
	sys := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
		PidFD:      &c.fd,
	}
	if user {
		sys.Cloneflags |= syscall.CLONE_NEWUSER
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN}
	}
	args := slices.Concat(p.Self, []string{strconv.Itoa(int(socket)), path}, p.Args)
	// The socket keeps its number, as the program may have been given
	// descriptors of any.
	if _, err := unix.FcntlInt(uintptr(socket), unix.F_SETFD, 0); err != nil {
		return nil, err
	}
	var err error
	c.pid, err = syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{Env: p.Env, Files: []uintptr{0, 1, 2}, Sys: sys})
	return c, err
}

func (c *child) close() { unix.Close(c.fd) }

// prepare has the child make its network, and has serve serve it.
func (c *child) prepare(l line, o order, serve func(tun int, ipv6 bool) error) error {
	if err := l.send(o); err != nil {
		return err
	}
	var r report
	tun, err := l.receive(&r)
	if errors.Is(err, io.EOF) {
		err = errors.New("the process ended")
	}
	if err == nil {
		err = r.err()
	}
	if err != nil {
		return fmt.Errorf("making a network for the program%s: %w", obstacle(err), err)
	}
	if err := serve(tun, r.IPv6); err != nil {
		return err
	}
	return l.send(struct{}{})
}

// end kills the child.
func (c *child) end() error {
	err := unix.PidfdSendSignal(c.fd, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		err = nil
	}
	return errors.Join(err, c.await(new(unix.WaitStatus), 0))
}

// wait passes signals on until the child ends, and returns its status.
func (c *child) wait(signals <-chan os.Signal) (int, error) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				c.pass(s)
			case <-done:
				return
			}
		}
	}()
	for {
		var status unix.WaitStatus
		if err := c.await(&status, unix.WUNTRACED); err != nil {
			return 0, err
		}
		switch {
		case status.Exited():
			return status.ExitStatus(), nil
		case status.Signaled():
			return killed + int(status.Signal()), nil
		}
		switch s := status.StopSignal(); s {
		case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
			// A shell is told by this process that its job has stopped.
			if err := unix.Kill(os.Getpid(), s); err != nil {
				return 0, fmt.Errorf("stopping with the program: %w", err)
			}
		}
	}
}

func (c *child) await(status *unix.WaitStatus, options int) error {
	for {
		_, err := unix.Wait4(c.pid, status, options, nil)
		if !errors.Is(err, unix.EINTR) {
			if err != nil {
				return fmt.Errorf("waiting for the program: %w", err)
			}
			return nil
		}
	}
}

// pass passes a signal on, unless it is one that the terminal sends, and has
// sent to the program, too. It has ended where that fails.
func (c *child) pass(s os.Signal) {
	fromTerminal := s == unix.SIGINT || s == unix.SIGQUIT
	if n, ok := s.(syscall.Signal); ok && !(fromTerminal && foreground()) {
		_ = unix.PidfdSendSignal(c.fd, n, nil, 0)
	}
}

// foreground reports whether this process is in the group to which its terminal
// sends signals.
func foreground() bool {
	terminal, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer unix.Close(terminal)
	group, err := unix.IoctlGetUint32(terminal, unix.TIOCGPGRP) // a pid_t, narrower than Go's int
	return err == nil && int(group) == unix.Getpgrp()
}
