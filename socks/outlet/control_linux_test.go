package outlet

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sixgate/socks"
)

func TestMarkControl(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SO_MARK needs root")
	}
	echo, _ := echoServer(t, "127.0.0.1")
	conn, err := NewDirect(DirectConfig{Resolver: &hosts{}, Control: MarkControl(0x5136, "lo")}).
		Dial(t.Context(), "tcp", socks.AddrFromAddrPort(echo))
	if errors.Is(err, syscall.EPERM) {
		t.Skip("SO_MARK needs CAP_NET_ADMIN")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		mark, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK)
		if mark != 0x5136 {
			t.Errorf("mark %#x, %v", mark, err)
		}
		device, err := unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
		if device != "lo" {
			t.Errorf("device %q, %v", device, err)
		}
		if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY); got != 1 {
			t.Errorf("TCP_NODELAY is %d, %v", got, err)
		}
	})
}

// A server that goes away without a word is noticed, as an association or a
// binding waits for its word alone.
func TestViaKeepsServerAlive(t *testing.T) {
	echo, _ := echoServer(t, "127.0.0.1")
	server := newNode(t, "127.0.0.1", nil)
	conn, err := NewVia(NewDirect(DirectConfig{Resolver: &hosts{}}), socks.Client{Server: server.addr}, nil).
		Dial(t.Context(), "tcp", socks.AddrFromAddrPort(echo))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if on, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); on != 1 {
			t.Errorf("SO_KEEPALIVE is %d, %v", on, err)
		}
		if idle, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); idle != 60 {
			t.Errorf("TCP_KEEPIDLE is %d, %v", idle, err)
		}
	})
}

func TestMarkControlTellsErrno(t *testing.T) {
	d := NewDirect(DirectConfig{Resolver: &hosts{}, Control: MarkControl(0, "no-such-device")})
	_, err := d.Dial(t.Context(), "tcp", socks.AddrFromAddrPort(listen(t, "127.0.0.1").Addr().(*net.TCPAddr).AddrPort()))
	if !errors.Is(err, syscall.ENODEV) {
		t.Errorf("got %v", err)
	}
}
