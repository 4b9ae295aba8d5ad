package datagram

import (
	"fmt"
	"net/netip"
	"syscall"
)

// PathError is what the network has told of a datagram. It is an errno, by
// errors.Is.
type PathError struct {
	dest     netip.AddrPort
	errno    syscall.Errno
	offender netip.Addr
	hops     bool
	room     int
	quoted   []byte
}

func (e *PathError) Error() string {
	return fmt.Sprintf("sending a datagram to %s: %s, says %s", e.dest, e.errno, e.offender)
}

func (e *PathError) Unwrap() error { return e.errno }

// Offender returns who told it, invalid if that is the destination or this
// host.
func (e *PathError) Offender() netip.Addr { return e.offender }

// HopLimitExceeded reports whether the datagram had gone too many hops.
func (e *PathError) HopLimitExceeded() bool { return e.hops }

// Room returns how many bytes of payload after an UDP header fit, of a
// datagram that was too big, or 0.
func (e *PathError) Room() int { return e.room }

// Quoted returns the start of the payload, as far as it is known.
func (e *PathError) Quoted() []byte { return e.quoted }

// Of returns what e tells, of a datagram to dest that began after the first
// skip bytes of what e quotes.
func (e *PathError) Of(dest netip.AddrPort, skip int) *PathError {
	of := *e
	of.dest, of.quoted = dest, e.quoted[min(skip, len(e.quoted)):]
	return &of
}

// Refused returns that nothing answers at dest any more.
func Refused(dest netip.AddrPort) *PathError {
	return &PathError{dest: dest, errno: syscall.ECONNREFUSED}
}

// Dest returns where the datagram was to go.
func (e *PathError) Dest() netip.AddrPort { return e.dest }
