package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
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
	write("", "")
	n.run(t, "gate", n.binary, "reload", "--config", n.config("gate"))
	conn, err := n.dial(t.Context(), "lan", "tcp", rejected)
	if err != nil {
		t.Errorf("the old rules are not back: %v", err)
	} else {
		conn.Close()
	}
	held.check(t)
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
	f.SetDeadline(time.Now().Add(patience))
	_, err := io.WriteString(f, "still there?")
	if err == nil {
		_, err = io.ReadFull(f, make([]byte, len("still there?")))
	}
	if err != nil {
		t.Errorf("the flow from before carries nothing: %v", err)
	}
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
