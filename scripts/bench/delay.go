package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// queued is how many frames may be on their way in one direction, as much as
// 7 Gbit/s in 25 ms. Those beyond are lost.
const queued = 16 << 10

// delay is a long cable: two TAP devices whose frames come out of the other
// one later. It takes the delay of one direction, then namespace and device of
// each end, and prints a line when both are there. It works on kernels that
// lack netem.
func delay(ctx context.Context, args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("making a long cable: got arguments %q", args)
	}
	late, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	one, err := openTAP(args[1], args[2])
	if err != nil {
		return err
	}
	other, err := openTAP(args[3], args[4])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	both, ends := errgroup.WithContext(ctx) // with the first direction that fails
	context.AfterFunc(ends, func() { one.Close(); other.Close() })
	both.Go(func() error { return carry(other, one, late) })
	both.Go(func() error { return carry(one, other, late) })
	if err := both.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

// frame is one on its way.
type frame struct {
	due  time.Time
	data []byte
}

func carry(to, from *os.File, late time.Duration) error {
	way := make(chan frame, queued)
	defer close(way)
	go func() {
		for f := range way {
			time.Sleep(time.Until(f.due))
			to.Write(f.data) // the device is down until the hosts are complete
		}
	}()
	buf := make([]byte, 2048)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		select {
		case way <- frame{time.Now().Add(late), append([]byte(nil), buf[:n]...)}:
		default:
		}
	}
}

// openTAP makes a TAP device in a network namespace.
func openTAP(namespace, device string) (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result)
	go func() {
		// The thread is never unlocked, so that it ends with this function
		// and nothing else runs in the namespace.
		runtime.LockOSThread()
		file, err := openTAPHere(namespace, device)
		made <- result{file, err}
	}()
	r := <-made
	if r.err != nil {
		return nil, fmt.Errorf("making the device %s in %s: %w", device, namespace, r.err)
	}
	return r.file, nil
}

func openTAPHere(namespace, device string) (*os.File, error) {
	ns, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(device)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), device), nil
}
