package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/iotest"
)

func TestReplyOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want Reply
	}{
		{nil, Succeeded},
		{errors.New("anything"), GeneralFailure},
		{syscall.EMFILE, GeneralFailure},
		{syscall.EIO, GeneralFailure},
		{syscall.EACCES, NotAllowed},
		{syscall.EPERM, NotAllowed},
		{syscall.ENETUNREACH, NetworkUnreachable},
		{syscall.ENETDOWN, NetworkUnreachable},
		{syscall.EHOSTUNREACH, HostUnreachable},
		{syscall.EHOSTDOWN, HostUnreachable},
		{&net.DNSError{IsNotFound: true}, HostUnreachable},
		{&net.DNSError{IsTimeout: true}, HostUnreachable},
		{syscall.ECONNREFUSED, ConnectionRefused},
		{syscall.ECONNRESET, ConnectionRefused},
		{syscall.ETIMEDOUT, TTLExpired},
		{context.DeadlineExceeded, TTLExpired},
		{os.ErrDeadlineExceeded, TTLExpired},
		{syscall.EOPNOTSUPP, CommandUnsupported},
		{syscall.EAFNOSUPPORT, AddressUnsupported},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, ConnectionRefused},
		{fmt.Errorf("over: %w", &ReplyError{Code: TTLExpired}), TTLExpired},
		{&ReplyError{Code: GeneralFailure}, GeneralFailure},
		{&ReplyError{Code: 9}, GeneralFailure},
		{&ReplyError{Code: 255}, GeneralFailure},
	} {
		if got := ReplyOf(tt.err); got != tt.want {
			t.Errorf("ReplyOf(%v) = %s, want %s", tt.err, got, tt.want)
		}
	}
}

// A reply code survives a chain: what one server says is what the one before
// it says.
func TestReplyErrorKeepsCode(t *testing.T) {
	for code := GeneralFailure; code <= AddressUnsupported; code++ {
		err := &ReplyError{Hop: Addr{Name: "hop.test", Port: 1080}, Code: code}
		if got := ReplyOf(err); got != code {
			t.Errorf("%v becomes %s", err, got)
		}
		if got := ReplyOf(err.Unwrap()); got != code {
			t.Errorf("%v becomes %s by its errno", err, got)
		}
	}
}

func TestWithErrno(t *testing.T) {
	if WithErrno(nil) != nil {
		t.Error("nil became an error")
	}
	for _, tt := range []struct {
		err  error
		want syscall.Errno
	}{
		{syscall.ECONNREFUSED, syscall.ECONNREFUSED},
		{&ReplyError{Code: 77}, syscall.EIO},
		{os.ErrDeadlineExceeded, syscall.ETIMEDOUT},
		{context.DeadlineExceeded, syscall.ETIMEDOUT},
		{context.Canceled, syscall.ECANCELED},
		{io.ErrUnexpectedEOF, syscall.ECONNABORTED},
		{io.EOF, syscall.ECONNABORTED},
		{errGone, syscall.ECONNABORTED},
		{io.ErrClosedPipe, syscall.EIO},
	} {
		if got := WithErrno(tt.err); !errors.Is(got, tt.want) || !errors.Is(got, tt.err) {
			t.Errorf("WithErrno(%v) = %v, want one of %v", tt.err, got, tt.want)
		}
	}
}

func TestReplyWire(t *testing.T) {
	for _, tt := range []struct {
		code  Reply
		bound string
		wire  string
	}{
		{Succeeded, "192.0.2.1:80", "05 00 00 01 c0000201 0050"},
		{Succeeded, "[2001:db8::1]:80", "05 00 00 04 20010db8000000000000000000000001 0050"},
		{ConnectionRefused, "", "05 05 00 01 00000000 0000"},
	} {
		var bound Addr
		if tt.bound != "" {
			bound = AddrFromAddrPort(netip.MustParseAddrPort(tt.bound))
		}
		if got := appendReply(nil, tt.code, bound); !bytes.Equal(got, unhex(t, tt.wire)) {
			t.Errorf("%s %s goes as % x, want %s", tt.code, tt.bound, got, tt.wire)
		}
	}
}

func TestParseReply(t *testing.T) {
	for _, tt := range []struct {
		wire  string
		left  int // octets after those read
		code  Reply
		bound Addr
		fails bool
	}{
		{"05 00 00 01 c0000201 0050", 0, Succeeded, AddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:80")), false},
		{"05 00 07 01 c0000201 0050 68656c6c6f", 5, Succeeded, AddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:80")), false},
		{"05 00 00 01 00000000 0000", 0, Succeeded, Addr{IP: netip.IPv4Unspecified()}, false},
		{"05 00 00 03 03 686f70 0050 ff", 1, Succeeded, Addr{Name: "hop", Port: 80}, false},
		{"05 00 00 03 00 0000 ff", 1, Succeeded, Addr{}, false},
		{"05 00 00 03 01 00 0050 ff", 1, Succeeded, Addr{}, false},
		{"05 05", 0, ConnectionRefused, Addr{}, false},
		{"05 05 00 01 00000000 0000", 8, ConnectionRefused, Addr{}, false},
		{"05 7f", 0, 0x7f, Addr{}, false},
		{"04 00 00 01 00000000 0000", 8, 0, Addr{}, true},
		{"05 00 00 09 00000000 0000", 6, 0, Addr{}, true},
		{"05 00 00 01 000000", 0, 0, Addr{}, true},
		{"05", 0, 0, Addr{}, true},
		{"", 0, 0, Addr{}, true},
	} {
		r := bytes.NewReader(unhex(t, tt.wire))
		msg, err := readReply(iotest.OneByteReader(r))
		var code Reply
		var bound Addr
		if err == nil {
			code, bound, err = parseReply(msg)
		}
		if (err != nil) != tt.fails || r.Len() != tt.left || err == nil && (code != tt.code || bound != tt.bound) {
			t.Errorf("%s: %s, %v, %v, %d left", tt.wire, code, bound, err, r.Len())
		}
	}
}
