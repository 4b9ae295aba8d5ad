package main

import (
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
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixgate/appliance"
)

// testReload changes the configuration under a flow that lives.
func testReload(t *testing.T, n *namespaces, gate *process) {
	was, err := os.ReadFile(n.config("gate"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(old, new string) {
		text := strings.Replace(string(was), old, new, 1)
		if err := os.WriteFile(n.config("gate"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	held := n.hold(t, "lan", "v6only.test")
	rejected := netip.AddrPortFrom(n.resolve(t, "lan", "v4only.test", "A"), 7)

	logged := gate.mark()
	write("[[rule]]", "[[rule]]\nnames = ['v4only.test']\noutlet = 'reject'\n[[rule]]")
	if err := gate.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	gate.await(t, logged, "msg=reloaded", "rules=2")
	if conn, err := n.dial(t.Context(), "lan", "tcp", rejected); err == nil {
		conn.Close()
		t.Error("the new rule does not reject")
	}
	for what, c := range map[string]struct{ old, new, want string }{
		"mistakes":     {"[limits]", "[limits]\nflow = 3\ndial-timeout = 'soon'", `limits.flow: unknown key (did you mean "flows"?)`},
		"restart keys": {"[lan]", "[tun]\nname = 'other0'\n[lan]", "tun.name: is not what the gateway runs with"},
	} {
		write(c.old, c.new)
		out, code := n.try(t, "gate", n.binary, "reload", "--config", n.config("gate"))
		if code != exitUsage || !strings.Contains(out, c.want) || !strings.HasPrefix(out, n.config("gate")+":") {
			t.Errorf("%s: exit status %d and\n%s", what, code, out)
		}
		if conn, err := n.dial(t.Context(), "lan", "tcp", rejected); err == nil {
			conn.Close()
			t.Errorf("%s: the rules have changed", what)
		}
	}
	if err := os.Rename(n.config("gate"), n.config("gate")+".away"); err != nil {
		t.Fatal(err)
	}
	out, code := n.try(t, "gate", n.binary, "reload", "--socket", filepath.Join(n.dir, "gate.sock"))
	if code != exitFailed || !strings.Contains(out, "no such file") || strings.Contains(out, "Internal") {
		t.Errorf("without the file: exit status %d and\n%s", code, out)
	}
	write("", "")
	n.run(t, "gate", n.binary, "reload", "--config", n.config("gate"))
	if out, code := n.try(t, "gate", n.binary, "check", "--config", n.config("gate")); code != 0 || !strings.Contains(out, "ok    ports: the gateway runs") {
		t.Errorf("check beside the gateway: exit status %d and\n%s", code, out)
	}
	lost := n.write(t, "lost.toml", "[lan]\ninterfaces = ['lost0']\n[control]\nsocket = ''\n")
	if out, code := n.try(t, "gate", n.binary, "serve", "--config", lost); code != exitHost || !strings.Contains(out, "lost0") {
		t.Errorf("an interface that is not there: exit status %d and\n%s", code, out)
	}
	conn, err := n.dial(t.Context(), "lan", "tcp", rejected)
	if err != nil {
		t.Errorf("the old rules are not back: %v", err)
	} else {
		conn.Close()
	}
	held.check(t)
}

// testDrills has happen to one gateway what happens to boxes that are forgotten.
func testDrills(t *testing.T, n *namespaces) {
	const dead = "203.0.113.82:53"
	gate := n.serve(t, "gate", strings.Replace(settings, `["udp://`, `["udp://`+dead+`", "udp://`, 1))
	held := n.hold(t, "lan", "v6only.test")
	t.Run("DeadResolver", func(t *testing.T) {
		if status := n.run(t, "gate", n.binary, "status", "--config", n.config("gate")); !strings.Contains(status, dead) {
			t.Errorf("no %s in the status:\n%s", dead, status)
		}
	})
	t.Run("FlushedRules", func(t *testing.T) {
		n.run(t, "gate", "nft", "flush", "ruleset")
		n.await(t, "the gateway's rules", func() bool {
			return strings.Contains(n.run(t, "gate", "nft", "list", "ruleset"), "sixgate")
		})
		n.resolve(t, "lan", "@192.0.2.99 v6only.test", "A") // which is captured
		held.check(t)
	})
	t.Run("UplinkFlap", func(t *testing.T) {
		logged := gate.mark()
		n.run(t, "gate", "ip", "link", "set", "wan0", "down")
		gate.await(t, logged, `uplink="no`)
		logged = gate.mark()
		n.run(t, "gate", "ip", "link", "set", "wan0", "up")
		n.run(t, "gate", "ip", "address", "replace", "2001:db8:99::1/64", "dev", "wan0")
		n.run(t, "gate", "ip", "route", "replace", "default", "via", "203.0.113.254")
		n.run(t, "gate", "ip", "-6", "route", "replace", "default", "via", "2001:db8:99::fe")
		gate.await(t, logged, `uplink="IPv4`)
		n.run(t, "lan", "curl", "-sS", "--retry", "5", "--retry-all-errors", "http://v6only.test/page")
		held.check(t)
	})
	t.Run("ManyClients", func(t *testing.T) { testManyClients(t, n) })
	held.check(t)
	gate.stop(t)
}

// testManyClients has 200 clients at once.
func testManyClients(t *testing.T, n *namespaces) {
	const many = 200
	client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 77, byte(20 + i)}) }
	all := func(do string) {
		var lines strings.Builder
		for i := range many {
			fmt.Fprintf(&lines, "address %s %s/24 dev eth0\n", do, client(i))
		}
		batch := filepath.Join(n.dir, do)
		if err := os.WriteFile(batch, []byte(lines.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		n.run(t, "lan", "ip", "-batch", batch)
	}
	all("add")
	defer all("delete")
	fake := netip.AddrPortFrom(n.resolve(t, "lan", "v4only.test", "A"), 7)
	errs := make(chan error)
	for i := range many {
		go func() {
			conn, err := within(n, "lan", func() (net.Conn, error) {
				dialer := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client(i), 0))}
				return dialer.DialContext(t.Context(), "tcp", fake.String())
			})
			if err == nil {
				defer conn.Close()
				err = heldFlow{conn}.carries()
			}
			errs <- err
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	var clients []appliance.Client
	if err := json.Unmarshal([]byte(n.run(t, "gate", n.binary, "clients", "--json", "--config", n.config("gate"))), &clients); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, c := range clients {
		if c.Names != nil && c.Addr.Is4() && c.Addr.Compare(client(0)) >= 0 {
			seen++
		}
	}
	if seen != many {
		t.Errorf("the gateway has seen %d of %d clients", seen, many)
	}
}

// testFullDisk leaves no room for the names.
func testFullDisk(t *testing.T, n *namespaces) {
	full := *n
	full.dir = t.TempDir()
	if err := unix.Mount("tmpfs", full.dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(full.dir, 0); err != nil {
			t.Error(err)
		}
	})
	// The configuration takes the page that this one gives up.
	if err := os.WriteFile(full.config("gate"), make([]byte, os.Getpagesize()), 0o600); err != nil {
		t.Fatal(err)
	}
	filler, err := os.Create(filepath.Join(full.dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	for err == nil {
		_, err = filler.Write(make([]byte, 512))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	gate := full.serve(t, "gate", settings)
	for _, name := range []string{"v6only.test", "v4only.test", "dual.test"} {
		n.run(t, "lan", "curl", "-sS", "http://"+name+"/")
	}
	n.await(t, "a word of the full disk", func() bool { return strings.Contains(gate.tail(), "no space left on device") })
	n.run(t, "lan", "curl", "-sS", "http://v6only.test/page")
	gate.stop(t)
}

// await waits until something is so.
func (n *namespaces) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// heldFlow is a connection to an echo that is to outlive what happens.
type heldFlow struct{ net.Conn }

func (n *namespaces) hold(t *testing.T, host, name string) heldFlow {
	t.Helper()
	conn, err := n.dial(t.Context(), host, "tcp", netip.AddrPortFrom(n.resolve(t, host, name, "A"), 7))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f := heldFlow{conn}
	f.check(t)
	return f
}

// check wants the flow to carry something both ways.
func (f heldFlow) check(t *testing.T) {
	t.Helper()
	if err := f.carries(); err != nil {
		t.Errorf("the flow from before carries nothing: %v", err)
	}
}

func (f heldFlow) carries() error {
	f.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(f, "still there?"); err != nil {
		return err
	}
	_, err := io.ReadFull(f, make([]byte, len("still there?")))
	return err
}

// try returns all output of a command on a host, and its exit status.
func (n *namespaces) try(t *testing.T, host string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := n.command(ctx, host, args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("on %s, %q: %v", host, args, err)
	} else if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}
