package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// WithErrno returns err in the language in which all rooms tell failures, so
// that the edges can turn any of them into an RST, an ICMP message or a reply
// code: as an error that errors.Is a syscall.Errno. An err that tells none is
// ETIMEDOUT for a deadline, ECANCELED for a cancelled context, ECONNABORTED
// for a connection that ended too early, and else EIO. A nil err stays nil.
func WithErrno(err error) error {
	if errno := syscall.Errno(0); err == nil || errors.As(err, &errno) {
		return err
	}
	return fmt.Errorf("%w: %w", err, errnoOf(err))
}

func errnoOf(err error) syscall.Errno {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	case errors.Is(err, context.Canceled):
		return syscall.ECANCELED
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return syscall.ECONNABORTED
	}
	return syscall.EIO
}
