package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixgate/appliance"
)

// namespaces are the hosts of scripts/topology: lan, lan6, gate, far, world.
type namespaces struct {
	prefix string
	binary string // of the gateway; with the race detector if the test has it
	dir    string
}

// newNamespaces brings the topology up until the test ends, and skips the test
// where that cannot be. The script removes it also if this process dies.
func newNamespaces(t *testing.T) *namespaces {
	t.Helper()
	skipWithoutNamespaces(t)
	n := &namespaces{prefix: fmt.Sprintf("test%d", os.Getpid()), dir: t.TempDir()}
	var race []string
	info, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		race = []string{"-race"}
	}
	n.binary = n.build(t, "sixgate", race...)
	hold := exec.Command("../../scripts/topology", "hold", n.prefix)
	var complaints bytes.Buffer
	hold.Stderr = &complaints
	stdin, err := hold.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := hold.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := hold.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := hold.Wait(); err != nil {
			t.Errorf("removing the topology: %v\n%s", err, &complaints)
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the topology did not come up: %v\n%s", err, &complaints)
	}
	return n
}

func skipWithoutNamespaces(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces and a TUN device")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("needs a TUN device: ", err)
	}
	for _, tool := range []string{"ip", "nft", "ss", "sysctl", "nginx", "nsd", "socat", "curl", "dig"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs what scripts/setup installs: ", err)
		}
	}
	namespaced := exec.Command("true")
	namespaced.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if err := namespaced.Run(); err != nil {
		t.Skip("needs the right to make network namespaces: ", err)
	}
}

// build builds the gateway, and returns the binary's path.
func (n *namespaces) build(t *testing.T, name string, flags ...string) string {
	t.Helper()
	binary := filepath.Join(n.dir, name)
	args := slices.Concat([]string{"build", "-buildvcs=false", "-o", binary}, flags, []string{"."})
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("building the gateway: %v\n%s", err, out)
	}
	return binary
}

// command returns a command on a host. `ip` becomes the command, so that the
// process is the command's.
func (n *namespaces) command(ctx context.Context, host string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.prefix + "-" + host}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

// run returns the output of a command on a host, which must succeed.
func (n *namespaces) run(t *testing.T, host string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := n.command(ctx, host, args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Fatalf("on %s, %q: %v\n%s%s", host, args, err, out, exit.Stderr)
	}
	if err != nil {
		t.Fatalf("on %s, %q: %v", host, args, err)
	}
	return string(out)
}

// status returns what the gateway says of itself.
func (n *namespaces) status(t *testing.T) (s appliance.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(n.run(t, "gate", n.binary, "status", "--json", "--config", n.config("gate"))), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// dig returns the reply to a query that is written as dig's arguments.
func (n *namespaces) dig(t *testing.T, host, query string) string {
	t.Helper()
	return n.run(t, host, append([]string{"dig"}, strings.Fields(query)...)...)
}

// resolve returns the one address that a host gets for a name.
func (n *namespaces) resolve(t *testing.T, host, name, qtype string) netip.Addr {
	t.Helper()
	reply := n.dig(t, host, "+short "+name+" "+qtype)
	addr, err := netip.ParseAddr(strings.TrimSpace(reply))
	if err != nil {
		t.Fatalf("%s has no one address of %s %s: %q", host, name, qtype, reply)
	}
	return addr
}

// within returns what f, which opens sockets, returns on a host. They stay
// there; the thread comes back.
func within[T any](n *namespaces, host string, f func() (T, error)) (result T, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var home, away *os.File
		if home, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return
		}
		defer home.Close()
		if away, err = os.Open("/run/netns/" + n.prefix + "-" + host); err != nil {
			return
		}
		defer away.Close()
		if err = unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		result, err = f()
		// A thread that cannot come back stays locked, and ends here.
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return result, err
}

// dial connects from a host.
func (n *namespaces) dial(ctx context.Context, host, network string, dest netip.AddrPort) (net.Conn, error) {
	return within(n, host, func() (net.Conn, error) {
		dialer := net.Dialer{Timeout: patience}
		return dialer.DialContext(ctx, network, dest.String())
	})
}

// snapshot returns the network state of the gateway's box.
func (n *namespaces) snapshot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("../../scripts/topology", "snapshot", n.prefix).Output()
	if err != nil {
		t.Fatalf("taking a snapshot of the box: %v", err)
	}
	return string(out)
}

// checkSnapshot wants the box as it was before.
func (n *namespaces) checkSnapshot(t *testing.T, before string) {
	t.Helper()
	was, is := strings.Split(before, "\n"), strings.Split(n.snapshot(t), "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			t.Errorf("gone from the box: %s", line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			t.Errorf("left on the box: %s", line)
		}
	}
}

// config is where the settings of a host's gateway are.
func (n *namespaces) config(host string) string { return filepath.Join(n.dir, host+".toml") }

// names is where a host's gateway keeps its names.
func (n *namespaces) names(host string) string { return filepath.Join(n.dir, host+".names") }

// awaitSaved waits until a host's gateway has saved a name.
func (n *namespaces) awaitSaved(t *testing.T, host, name string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		saved, err := os.ReadFile(n.names(host))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(saved, []byte(name)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not saved", name)
		}
	}
}

// process is a running gateway.
type process struct {
	host  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when the log has ended

	mu      sync.Mutex
	lines   []string      // of the log; guarded by mu
	another chan struct{} // closed and replaced at each line; guarded by mu
}

// newProcess returns the gateway that cmd will be, whose log is on stderr.
func newProcess(t *testing.T, host string, cmd *exec.Cmd) *process {
	t.Helper()
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{host: host, cmd: cmd, ended: make(chan struct{}), another: make(chan struct{})}
	go p.read(log)
	return p
}

// serve runs a gateway on a host until it is stopped, or the test ends.
func (n *namespaces) serve(t *testing.T, host, settings string) *process {
	t.Helper()
	settings += fmt.Sprintf("[control]\nsocket = %q\n", filepath.Join(n.dir, host+".sock")) // the hosts share one file system
	settings += fmt.Sprintf("[pool]\nstate = %q\n", n.names(host))
	if err := os.WriteFile(n.config(host), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProcess(t, host, n.command(context.Background(), host, n.binary, "serve", "--config", n.config(host)))
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.kill(t)
		}
		if t.Failed() {
			t.Logf("the gateway on %s said:\n%s", host, p.tail())
		}
	})
	p.await(t, 0, "msg=ready")
	return p
}

func (p *process) read(log io.Reader) {
	defer close(p.ended)
	for scanner := bufio.NewScanner(log); scanner.Scan(); {
		p.mu.Lock()
		p.lines = append(p.lines, scanner.Text())
		close(p.another)
		p.another = make(chan struct{})
		p.mu.Unlock()
	}
}

// tail returns the end of the log.
func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines[max(0, len(p.lines)-100):], "\n")
}

// mark returns where the log ends now.
func (p *process) mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// await waits for a line of the log, from a mark on, that has all words.
func (p *process) await(t *testing.T, mark int, words ...string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		lines, another := p.lines[mark:], p.another
		p.mu.Unlock()
		for _, line := range lines {
			fields := strings.Fields(line)
			if !slices.ContainsFunc(words, func(word string) bool { return !slices.Contains(fields, word) }) {
				return
			}
		}
		select {
		case <-another:
		case <-p.ended:
			t.Fatalf("the gateway on %s ended before it logged %q; it said:\n%s", p.host, words, p.tail())
		case <-deadline:
			t.Fatalf("the gateway on %s did not log %q", p.host, words)
		}
	}
}

// stop asks the gateway to end, and wants it to do so without complaint. The
// race detector's findings make its exit status another than 0.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	late := time.AfterFunc(patience, func() {
		t.Errorf("the gateway on %s did not stop", p.host)
		p.cmd.Process.Kill()
	})
	defer late.Stop()
	<-p.ended
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the gateway on %s stopped: %v; it said:\n%s", p.host, err, p.tail())
	}
}

// kill ends the gateway as kill -9 does.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.die(t, syscall.SIGKILL)
}

// die ends the gateway by a signal that it cannot withstand.
func (p *process) die(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Error(err)
	}
	<-p.ended
	const dumped = 2 // the exit code of Go's programs after SIGABRT
	if err := p.cmd.Wait(); err != nil && p.cmd.ProcessState.ExitCode() != -1 && p.cmd.ProcessState.ExitCode() != dumped {
		t.Errorf("the gateway on %s, ended by %v: %v", p.host, signal, err)
	}
}
