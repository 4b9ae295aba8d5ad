package host

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// namespace is a network namespace of the test's own.
type namespace int

// enter moves the test into a new network namespace, and into a mount
// namespace so that it may hide files. The thread ends with the test.
func enter(t *testing.T) namespace {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	if _, err := os.Stat(netlink.TUN); err != nil {
		t.Skip("needs a TUN device:", err)
	}
	runtime.LockOSThread()
	must(t, unix.Unshare(unix.CLONE_NEWNS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	return another(t)
}

// another moves the test into one more network namespace.
func another(t *testing.T) namespace {
	t.Helper()
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	sh(t, "ip link set lo up")
	sh(t, "sysctl -q net.ipv6.conf.default.accept_dad=0")
	return namespace(fd)
}

// back moves the test into ns.
func (ns namespace) back(t *testing.T) {
	t.Helper()
	must(t, unix.Setns(int(ns), unix.CLONE_NEWNET))
}

// String is a path by which other processes find ns.
func (ns namespace) String() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns)) }

// tun opens a TUN device; closing the file is what a kill -9 does to it. The
// device was up once, for the kernel gives it a queue and a mode then, which
// it keeps.
func tun(t *testing.T, name string) *os.File {
	t.Helper()
	device := &netlink.Tuntap{
		LinkAttrs:  netlink.LinkAttrs{Name: name},
		Mode:       netlink.TUNTAP_MODE_TUN,
		Flags:      netlink.TUNTAP_NO_PI,
		NonPersist: true,
		Queues:     1,
	}
	must(t, netlink.LinkAdd(device))
	t.Cleanup(func() { device.Fds[0].Close() })
	sh(t, "ip link set "+name+" up")
	sh(t, "ip link set "+name+" down")
	return device.Fds[0]
}

// sh runs a command line, its words split at spaces, and returns its output.
func sh(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// snapshot returns all of the network's state that a gateway could change, when
// the kernel is done with the addresses that it makes itself.
func snapshot(t *testing.T) string {
	t.Helper()
	for range 1000 {
		if sh(t, "ip -6 addr show tentative") == "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	var b strings.Builder
	for _, line := range []string{
		"ip -d addr",
		"ip -d route show table all",
		"ip -6 -d route show table all",
		"ip rule",
		"ip -6 rule",
		"nft list ruleset",
	} {
		fmt.Fprintf(&b, "# %s\n%s", line, sh(t, line))
	}
	for _, dir := range []string{"ipv4/conf", "ipv6/conf"} {
		must(t, filepath.WalkDir(filepath.Join(sysctls, "net", dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			value, _ := os.ReadFile(path) // stable_secret is unreadable until set
			fmt.Fprintf(&b, "%s = %s\n", path, strings.TrimSpace(string(value)))
			return nil
		}))
	}
	return b.String()
}

// same fails the test with the lines in which two snapshots differ.
func same(t *testing.T, when, want, got string) {
	t.Helper()
	if want == got {
		return
	}
	count := map[string]int{}
	for line := range strings.SplitSeq(want, "\n") {
		count[line]--
	}
	for line := range strings.SplitSeq(got, "\n") {
		count[line]++
	}
	for line, n := range count {
		if n != 0 {
			t.Errorf("%s: %+d %q", when, n, line)
		}
	}
	t.Errorf("%s: the network differs", when)
}
