package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// order is what the gateway's process tells the program's.
type order struct {
	TUN       string
	MTU       int // octets
	Addresses []netip.Prefix
	Resolver  netip.Addr
	Rights    bool // there are some to give up: those over a user namespace
}

// report is what the program's process answers: that the namespaces are ready,
// with the TUN device beside it, or what went wrong.
type report struct {
	IPv6  bool // the namespace has it
	Text  string
	Errno syscall.Errno // 0 where there was another reason
}

// newReport returns the report of an error.
func newReport(err error) report {
	r := report{Text: err.Error()}
	errors.As(err, &r.Errno)
	return r
}

// err returns the error that was reported, with its errno.
func (r report) err() error {
	if r.Text == "" {
		return nil
	}
	return reported(r)
}

// reported is an error of another process.
type reported report

func (r reported) Error() string { return r.Text }

// Unwrap returns the errno, if there is one.
func (r reported) Unwrap() error {
	if r.Errno == 0 {
		return nil
	}
	return r.Errno
}

// line joins the two processes: a socket that keeps messages apart.
type line int

// maxMessage is ample for an order or a report, in octets.
const maxMessage = 1 << 16

// newLine returns both ends.
func newLine() (near, far line, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("making a socket pair: %w", err)
	}
	return line(fds[0]), line(fds[1]), nil
}

func (l line) close() { unix.Close(int(l)) }

// send sends message, with copies of descriptors.
func (l line) send(message any, fds ...int) error {
	text, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("writing a message: %w", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(int(l), text, rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("sending a message: %w", err)
	}
	return nil
}

// receive waits for a message and returns the descriptor that came with it, -1
// if none did. Its error is io.EOF when the other end is closed.
func (l line) receive(message any) (fd int, err error) {
	text, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	var n, nrights int
	for {
		n, nrights, _, _, err = unix.Recvmsg(int(l), text, rights, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case errors.Is(err, unix.ECONNRESET): // it closed with our message unread
		return -1, io.EOF
	case err != nil:
		return -1, fmt.Errorf("receiving a message: %w", err)
	case n == 0:
		return -1, io.EOF
	}
	if fd, err = descriptor(rights[:nrights]); err != nil {
		return -1, fmt.Errorf("receiving a descriptor: %w", err)
	}
	if err := json.Unmarshal(text[:n], message); err != nil {
		return fd, fmt.Errorf("reading a message: %w", err)
	}
	return fd, nil
}

// descriptor returns the one in a control message, or -1.
func descriptor(rights []byte) (int, error) {
	if len(rights) == 0 {
		return -1, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return -1, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}
