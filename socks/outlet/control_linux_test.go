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
		for opt, want := range map[int]int{unix.TCP_NODELAY: 1, unix.TCP_KEEPIDLE: 60} {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, opt); got != want {
				t.Errorf("TCP option %d is %d, %v", opt, got, err)
			}
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
