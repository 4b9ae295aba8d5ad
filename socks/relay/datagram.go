package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"sixgate/socks/datagram"
)

// Datagrams carries datagrams between client and far, one a Read and one a
// Write, until nothing has moved for idle, one side is closed or ctx ends, and
// closes both. Silence is how UDP ends, so it is no error.
func Datagrams(ctx context.Context, client, far net.Conn, idle time.Duration, counts *Counts) error {
	p := &pair{limits: Limits{Idle: idle, HalfClosed: idle}, started: time.Now(), failed: make(chan struct{})}
	up := &direction{pair: p, src: client, dst: far, carried: &counts.Up}
	down := &direction{pair: p, src: far, dst: client, carried: &counts.Down}
	err := run(ctx, up, down, (*direction).datagrams)
	if errors.Is(err, ErrIdle) {
		err = nil
	}
	return err
}

// datagrams copies one datagram at a time. ErrIdle and io.EOF end it.
func (d *direction) datagrams() error {
	buf := datagram.Take()
	defer buf.Give()
	deadline := time.Time{}
	for {
		if wake := d.wake(); wake.Sub(deadline) > d.limits.Idle/4 {
			if err := d.src.SetReadDeadline(wake); err != nil {
				return err
			}
			deadline = wake
		}
		n, err := d.src.Read(buf[:])
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if d.idle() {
				return ErrIdle
			}
			deadline = time.Time{}
			continue
		case lostDatagram(err):
			continue
		case errors.Is(err, io.EOF):
			return ErrIdle
		default:
			return err
		}
		_, err = d.dst.Write(buf[:n])
		if lostDatagram(err) {
			// The kernel may have told of an earlier datagram instead of sending this one.
			_, err = d.dst.Write(buf[:n])
		}
		if err != nil && !lostDatagram(err) {
			return err
		}
		d.moved(int64(n))
	}
}

// lostDatagram reports whether err tells of one datagram, by ICMP or by its
// size, and not of the socket.
func lostDatagram(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
		syscall.EMSGSIZE, syscall.ENOBUFS, syscall.EACCES, syscall.EPERM,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
