package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programSettings are for `sixgate run`.
const programSettings = `
[dns]
upstreams = ["udp://203.0.113.53:53"]
[log]
level = "debug"
`

// ordinary is an ordinary user's number.
const ordinary = "4321"

// testRun runs programs behind gateways of their own, on the box, as root and as
// an ordinary user.
func testRun(t *testing.T, n *namespaces) {
	if err := os.WriteFile(n.config("run"), []byte(programSettings), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{n.dir, filepath.Dir(n.dir)} { // for the user
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	plain := *n // the race detector makes a start take seconds
	plain.binary = n.build(t, "plain")
	static := n.buildStatic(t)
	for user, n := range map[string]*namespaces{"root": n, ordinary: &plain} {
		t.Run("as "+user, func(t *testing.T) {
			t.Run("Families", func(t *testing.T) { testRunFamilies(t, n, user, static) })
			t.Run("Status", func(t *testing.T) { testRunStatus(t, n, user) })
			t.Run("Identity", func(t *testing.T) { testRunIdentity(t, n, user) })
			t.Run("Terminal", func(t *testing.T) { testRunTerminal(t, n, user) })
			t.Run("Signal", func(t *testing.T) { testRunSignal(t, n, user) })
			t.Run("Killed", func(t *testing.T) { testRunKilled(t, n, user) })
			t.Run("Uplink", func(t *testing.T) { testRunUplink(t, n, user, static) })
			t.Run("Resolver", func(t *testing.T) { testRunResolver(t, n, user) })
		})
	}
	t.Run("Ping", func(t *testing.T) { testRunPing(t, &plain) })
	t.Run("Via", func(t *testing.T) { testRunVia(t, n) })
	t.Run("Forbidden", func(t *testing.T) { testRunForbidden(t, n) })
	t.Run("Granted", func(t *testing.T) { testGranted(t, n) })
}

// asUser returns a command line as a user's. The machine may let none but root
// open its TUN device, so there is another one, of the same numbers.
func asUser(user string, args ...string) []string {
	if user == "root" {
		return args
	}
	const device = `mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec "$@"`
	as := []string{"unshare", "--mount", "sh", "-c", device, "sh", "setpriv", "--reuid", user, "--regid", user, "--groups", user + ",1"}
	return append(as, args...)
}

// program returns a command that runs a program behind a gateway.
func (n *namespaces) program(t *testing.T, user string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	line := append([]string{n.binary, "run", "--config", n.config("run"), "--"}, args...)
	return n.command(ctx, "gate", asUser(user, line...)...)
}

func testRunFamilies(t *testing.T, n *namespaces, user, static string) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"curl", "-sS", "-4", "http://v6only.test/"}, "v6only.test (IPv6 only) greets 2001:db8:99::1\n"},
		{[]string{"curl", "-sS", "-6", "http://v4only.test/"}, "v4only.test (IPv4 only) greets 203.0.113.1\n"},
		{[]string{"curl", "-sS", "http://203.0.113.80/"}, "203.0.113.80 (IPv4 only) greets 203.0.113.1\n"},
		{[]string{"curl", "-sS", "http://[2001:db8:99::80]/"}, "[2001:db8:99::80] (IPv6 only) greets 2001:db8:99::1\n"},
		{[]string{"sh", "-c", "sh -c 'curl -sS http://dual.test/' | cut -d ' ' -f 1"}, "dual.test\n"},
		{[]string{"sh", "-c", "echo by UDP | socat -t 20 - UDP4:v6only.test:7,readbytes=7"}, "by UDP\n"},
		{[]string{"dig", "+short", "@192.0.2.99", "nowhere.test", "A"}, ""},
		{[]string{static, "v6only.test:7"}, "static, and IPv4 only\n"},
	} {
		out, err := n.program(t, user, c.args...).Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		if err != nil || string(out) != c.want {
			t.Errorf("%q: %q, %v, want %q", c.args, out, err, c.want)
		}
	}
}

// buildStatic builds a program without C library that knows IPv4 only.
func (n *namespaces) buildStatic(t *testing.T) string {
	t.Helper()
	const source = `package main

import (
	"io"
	"net"
	"os"
)

func main() {
	conn, err := net.Dial("tcp4", os.Args[1])
	if err != nil {
		panic(err)
	}
	io.WriteString(conn, "static, and IPv4 only\n")
	conn.(*net.TCPConn).CloseWrite()
	io.Copy(os.Stdout, conn)
}
`
	file, binary := filepath.Join(n.dir, "static.go"), filepath.Join(n.dir, "static")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", binary, file)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building a static program: %v\n%s", err, out)
	}
	return binary
}

// testRunStatus wants the exit status of env(1), and all that was sent to
// arrive.
func testRunStatus(t *testing.T, n *namespaces, user string) {
	for _, c := range []struct {
		args   []string
		status int
	}{
		{[]string{"true"}, 0},
		{[]string{"sh", "-c", "exit 42"}, 42},
		{[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9},
		{[]string{"sh", "-c", "cat <&3"}, 0},
		{[]string{"nosuchprogram"}, 127},
		{[]string{"/etc/passwd"}, 126},
		{[]string{"curl", "-sS", "http://closed.test/"}, 7},
	} {
		cmd := n.program(t, user, c.args...)
		cmd.ExtraFiles = []*os.File{os.Stdin} // the program's own descriptors are its own
		var complaint strings.Builder
		cmd.Stderr = &complaint
		if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != c.status {
			t.Errorf("%q: %v, want exit status %d\n%s", c.args, err, c.status, &complaint)
		}
	}
	cmd := n.program(t, user, "sh", "-c", "cat; echo also >&2")
	cmd.Stdin = strings.NewReader("by stdin\n")
	if out, err := cmd.Output(); err != nil || string(out) != "by stdin\n" {
		t.Errorf("stdin came back as %q, %v", out, err)
	}
}

// testRunIdentity wants a program to be who it would be outside, with no rights
// beside.
func testRunIdentity(t *testing.T, n *namespaces, user string) {
	const script = `id -u; grep CapEff /proc/self/status; ls /sys/class/net >/dev/null && cat /proc/net/dev | grep -c :`
	out, err := n.program(t, user, "sh", "-c", script).Output()
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(out))
	if user == "root" {
		if len(fields) != 4 || fields[0] != "0" {
			t.Errorf("root became %q", fields)
		}
		return
	}
	if want := []string{user, "CapEff:", "0000000000000000", "2"}; strings.Join(fields, " ") != strings.Join(want, " ") {
		t.Errorf("got %q, want %q", fields, want)
	}
}

// testRunTerminal wants ^C to come once, and the terminal's size to be known.
func testRunTerminal(t *testing.T, n *namespaces, user string) {
	const script = `n=0; trap 'n=$((n+1))' INT; echo ready; until read x; do :; done; echo $n interrupts; stty size`
	controller, terminal := openTerminal(t)
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		t.Fatal(err)
	}
	cmd := n.program(t, user, "sh", "-c", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	shown := bufio.NewReader(controller)
	await := func(want string) {
		t.Helper()
		var text strings.Builder
		for !strings.HasSuffix(text.String(), want) {
			b, err := shown.ReadByte()
			if err != nil {
				t.Fatalf("the terminal did not show %q but %q: %v", want, &text, err)
			}
			text.WriteByte(b)
		}
	}
	await("ready")
	if _, err := controller.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	await("^C") // echoed, by when the signal is sent
	if _, err := controller.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	await("1 interrupts")
	await("33 77")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// openTerminal returns both ends of a new pseudoterminal.
func openTerminal(t *testing.T) (controller, terminal *os.File) {
	t.Helper()
	controller, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs a pseudoterminal: ", err)
	}
	t.Cleanup(func() { controller.Close() })
	number, err := unix.IoctlGetInt(int(controller.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(controller.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return controller, terminal
}

// testRunSignal wants a signal to the gateway to reach the program, which ends
// as it likes.
func testRunSignal(t *testing.T, n *namespaces, user string) {
	cmd := n.program(t, user, "sh", "-c", "trap 'exit 42' TERM; echo ready; read x")
	stop, out := startPiped(t, cmd)
	defer stop.Close()
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 42 {
		t.Errorf("got %v, want exit status 42", err)
	}
}

// testRunKilled wants the program to end with a gateway that had no time to end
// it.
func testRunKilled(t *testing.T, n *namespaces, user string) {
	cmd := n.program(t, user, "sh", "-c", "echo $$; read x")
	stdin, out := startPiped(t, cmd)
	defer stdin.Close()
	pid, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
		t.Errorf("the killed gateway: %v", err)
	}
	// The program held the pipe's other end.
	if _, err := out.ReadString('\n'); err != io.EOF {
		t.Errorf("reading from the program: %v", err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(pid)); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the program %s outlives its gateway", pid)
		}
	}
}

func startPiped(t *testing.T, cmd *exec.Cmd) (io.WriteCloser, *bufio.Reader) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe() // Wait would close a StdoutPipe
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return stdin, bufio.NewReader(r)
}

// testRunVia goes through another gateway, to a name that only that one knows.
func testRunVia(t *testing.T, n *namespaces) {
	far := n.serve(t, "far", farSettings)
	logged := far.mark()
	out := n.run(t, "gate", n.binary, "run", "--via", "socks5://192.0.2.2", "--", "curl", "-sS", "-4", "http://only.far.test/")
	if want := "only.far.test (IPv6 only) greets 2001:db8:98::1\n"; out != want {
		t.Errorf("the server said %q, want %q", out, want)
	}
	far.await(t, logged, "msg=flow", "inlet=socks", "name=only.far.test", "type=B")
	if reply := n.run(t, "gate", n.binary, "run", "--via", "socks5://192.0.2.2", "--", "dig", "mail.example", "MX"); !strings.Contains(reply, "status: REFUSED") || !strings.Contains(reply, "EDE: 21") {
		t.Errorf("without a resolver beyond the chain, the mail servers of a name are\n%s", reply)
	}
	reply := n.run(t, "gate", n.binary, "run", "--config", n.config("run"), "--via", "socks5://192.0.2.2", "--", "dig", "+short", "mail.test", "MX")
	if reply != "10 dual.test.\n20 v6only.test.\n" {
		t.Errorf("the mail servers of a name are %q", reply)
	}
	far.await(t, logged, "msg=flow", "inlet=socks", "dest=203.0.113.53:53")
	far.stop(t)
}

// testRunPing has a user ping by a program that has no rights, on a box that
// lets users ping.
func testRunPing(t *testing.T, n *namespaces) {
	const groups = "net.ipv4.ping_group_range"
	before := n.run(t, "gate", "sysctl", "-n", groups)
	n.run(t, "gate", "sysctl", "-qw", groups+"=0 2147483647")
	defer n.run(t, "gate", "sysctl", "-qw", groups+"="+strings.TrimSpace(before))
	plain := filepath.Join(n.dir, "ping")
	if err := exec.Command("sh", "-c", `cp "$(command -v ping)" "$0"`, plain).Run(); err != nil { // without its capability
		t.Skip("needs ping: ", err)
	}
	for _, args := range [][]string{{"-4", "v6only.test"}, {"-6", "v4only.test"}, {"203.0.113.80"}} {
		line := append([]string{plain, "-n", "-c", "1", "-W", "20"}, args...)
		if out, err := n.program(t, ordinary, line...).CombinedOutput(); err != nil || !strings.Contains(string(out), " 0% packet loss") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}

// testRunForbidden wants a word why where a user may have no namespaces or no
// TUN device, and the exit status for that.
func testRunForbidden(t *testing.T, n *namespaces) {
	line := []string{n.binary, "run", "--", "true"}
	const closed = `mount -t tmpfs none /dev/net && mknod -m 600 /dev/net/tun c 10 200 && exec "$@"`
	const none = `unshare --user --map-root-user sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"' sh "$@"`
	for want, args := range map[string][]string{
		"opening /dev/net/tun":          {"unshare", "--mount", "sh", "-c", closed, "sh", "setpriv", "--reuid", ordinary, "--regid", ordinary, "--clear-groups"},
		"user.max_user_namespaces is 0": {"sh", "-c", none, "sh", "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"},
	} {
		cmd := n.command(t.Context(), "gate", append(args, line...)...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitHost || !strings.Contains(string(out), want) {
			t.Errorf("%v, want exit status %d and something about %q:\n%s", err, exitHost, want, out)
		}
	}
}

// testGranted has an ordinary user do what a gateway that lacks rights tells him
// to, and then have one.
func testGranted(t *testing.T, n *namespaces) {
	settings := filepath.Join(n.dir, "granted.toml")
	text := programSettings + "[lan]\ninterfaces = ['lan0', 'lan6']\n[advertise]\ninterfaces = ['lan6']\n[pool]\nstate = ''\n[control]\nsocket = ''\n"
	if err := os.WriteFile(settings, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	line := asUser(ordinary, n.build(t, "granted"), "serve", "--config", settings)
	cmd := n.command(ctx, "gate", line...)
	complaint, err := cmd.CombinedOutput()
	advised := regexp.MustCompile(`setcap \S+ \S+`).FindString(string(complaint))
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitHost || advised == "" {
		t.Fatalf("%v, want exit status %d and what to do:\n%s", err, exitHost, complaint)
	}
	if out, err := exec.Command("sh", "-c", advised).CombinedOutput(); err != nil {
		t.Skipf("%s: %v: %s", advised, err, out)
	}
	gate := newProcess(t, "gate", n.command(ctx, "gate", line...))
	if err := gate.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gate.await(t, 0, "msg=ready")
	if greeting := n.run(t, "lan", "curl", "-sS", "http://v6only.test/"); !strings.HasPrefix(greeting, "v6only.test (IPv6 only) greets ") {
		t.Errorf("the server said %q", greeting)
	}
	gate.stop(t)
}
