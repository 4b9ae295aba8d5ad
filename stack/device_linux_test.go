package stack_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixgate/stack"
)

// enterNamespace puts the rest of the test into a network namespace that ends
// with it, or skips.
func enterNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("needs a TUN driver: %v", err)
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs a network namespace: %v", err)
	}
}

// ip runs ip(8) in the namespace of the thread.
func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func TestOpenTUN(t *testing.T) {
	enterNamespace(t)
	device, err := stack.OpenTUN("sixtest0", 1400)
	if err != nil {
		t.Fatal(err)
	}
	name, _ := device.Name()
	mtu, _ := device.MTU()
	if name != "sixtest0" || mtu != 1400 {
		t.Errorf("device %q with MTU %d", name, mtu)
	}
	if _, err := stack.OpenTUN("sixtest0", 1400); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a second time: %v", err)
	}
	// What watches the link may have ended before it was told to.
	if err := device.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	for range device.Events() { // until its goroutines have ended
	}
	if _, err := net.InterfaceByName("sixtest0"); err == nil {
		t.Error("the device outlives Close")
	}
	if _, err := stack.OpenTUN("a-name-that-is-too-long", 1400); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a long name: %v", err)
	}
}

// plain is a device that is reached by its Read and Write only.
type plain struct{ stack.Device }

func (plain) File() *os.File { return nil }

// The kernel as a client: what it makes of our answers.
func TestKernelClient(t *testing.T) {
	for name, reach := range map[string]func(stack.Device) stack.Device{
		"virtio":   func(d stack.Device) stack.Device { return d },
		"portable": func(d stack.Device) stack.Device { return plain{d} },
	} {
		t.Run(name, func(t *testing.T) { testKernelClient(t, reach) })
	}
}

func testKernelClient(t *testing.T, reach func(stack.Device) stack.Device) {
	enterNamespace(t)
	device, err := stack.OpenTUN("sixtest0", 1500)
	if err != nil {
		t.Fatal(err)
	}
	ip(t, "link set sixtest0 up")
	ip(t, "addr add 192.0.2.2/32 dev sixtest0")
	ip(t, "addr add 2001:db8::2/128 dev sixtest0 nodad")
	ip(t, "route add 198.18.0.0/15 dev sixtest0 src 192.0.2.2")
	ip(t, "route add 2001:2::/48 dev sixtest0 src 2001:db8::2")
	answers := map[uint16]error{1: syscall.ECONNREFUSED, 2: syscall.EHOSTUNREACH, 3: syscall.ENETUNREACH, 4: syscall.EACCES}
	_, stop := start(t, stack.Config{Device: reach(device), Handler: handler{
		tcp: func(ctx context.Context, r *stack.TCPRequest) {
			if err := answers[r.Dest().Port()]; err != nil {
				r.Refuse(err)
				return
			}
			echo(t)(ctx, r)
		},
		udp: func(_ context.Context, f *stack.DatagramFlow) { f.Refuse(syscall.ECONNREFUSED) },
	}})
	defer stop()
	for _, fake := range fakes {
		echoFromKernel(t, fake)
		for port, want := range answers {
			// What Linux makes of "administratively prohibited" is by family.
			if want == syscall.EACCES && fake.Addr().Is4() {
				want = syscall.EHOSTUNREACH
			}
			c, err := net.DialTimeout("tcp", netip.AddrPortFrom(fake.Addr(), port).String(), patience)
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, want) {
				t.Errorf("%s, to be refused with %v: %v", fake.Addr(), answers[port], err)
			}
		}
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(fake))
		if err != nil {
			t.Error(err)
			continue
		}
		c.SetDeadline(time.Now().Add(patience))
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("UDP to %s: %v", fake, err)
		}
		c.Close()
	}
}

// echoFromKernel sends data there and back over a kernel connection.
func echoFromKernel(t *testing.T, to netip.AddrPort) {
	c, err := net.DialTimeout("tcp", to.String(), patience)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	data := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, strings.NewReader(data))
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != data {
		t.Errorf("%s: %d bytes of %d came back: %v", to, len(got), len(data), err)
	}
	if err := <-sent; err != nil {
		t.Errorf("%s: sending: %v", to, err)
	}
}
