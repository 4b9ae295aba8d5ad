package stack

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

const tunPath = "/dev/net/tun"

// OpenTUN makes the TUN device name, which lives until it is closed, with an
// MTU in bytes. The caller closes it, or hands it to a Stack that runs. Errors
// say what the host lacks and wrap the errno.
func OpenTUN(name string, mtu int) (Device, error) {
	fd, err := MakeTUN(name)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), tunPath)
	device, err := tun.CreateTUNFromFile(file, mtu)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("setting up TUN device %q with MTU %d: %w", name, mtu, err)
	}
	return device, nil
}

// MakeTUN makes the TUN device name, and returns its descriptor: for another
// process, whose TakeTUN makes a Device of it.
func MakeTUN(name string) (fd int, err error) {
	fd, err = unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("opening %s%s: %w", tunPath, openHint(err), err)
	}
	if err := attach(fd, name); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("making TUN device %q%s: %w", name, attachHint(err), err)
	}
	return fd, nil
}

// TakeTUN returns the Device of a descriptor that MakeTUN made, maybe in another
// network namespace. The descriptor is the Device's from then on.
func TakeTUN(fd int) (Device, error) {
	device, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("taking over a TUN device: %w", err)
	}
	return device, nil
}

// attach makes fd the device name: IP packets without a link header, several
// of one flow in one read or write (IFF_VNET_HDR).
func attach(fd int, name string) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
}

func openHint(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return " (the kernel has no TUN driver, or the container was not given the device)"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return " (the container or the file's mode forbids it)"
	}
	return ""
}

func attachHint(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return " (CAP_NET_ADMIN is missing)"
	case errors.Is(err, unix.EBUSY):
		return " (another process holds it)"
	case errors.Is(err, unix.EINVAL):
		return " (the name is too long, or belongs to a device of another kind)"
	}
	return ""
}
