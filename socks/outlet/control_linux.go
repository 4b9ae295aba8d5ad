package outlet

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// MarkControl returns a net.Dialer.Control that sets SO_MARK to mark, so that
// routing can tell the gateway's own packets from its clients', and
// SO_BINDTODEVICE to device. 0 and "" leave them alone. Linux wants
// CAP_NET_ADMIN for the mark.
func MarkControl(mark uint32, device string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = setOptions(int(fd), mark, device) })
		if err != nil {
			return err
		}
		return failed
	}
}

func setOptions(fd int, mark uint32, device string) error {
	if mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return fmt.Errorf("marking a socket %#x: %w", mark, err)
		}
	}
	if device != "" {
		if err := unix.BindToDevice(fd, device); err != nil {
			return fmt.Errorf("binding a socket to %s: %w", device, err)
		}
	}
	return nil
}
