package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// What happens to the machine while a program runs behind a gateway of its own.

// testRunUplink takes IPv4 away from the uplink of a gateway whose network has
// a NAT64.
func testRunUplink(t *testing.T, n *namespaces, user, static string) {
	for _, ip := range []string{"64:ff9b::203.0.113.80/128", "64:ff9b::192.0.2.200/128"} { // behind the NAT64
		n.run(t, "world", "ip", "address", "replace", ip, "dev", "gate0", "nodad")
	}
	settings := filepath.Join(n.dir, "translated.toml")
	if err := os.WriteFile(settings, []byte(programSettings+"[direct]\nnat64 = '64:ff9b::/96'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const script = `while read dest; do "$0" "$dest" || echo nothing; done`
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := n.command(ctx, "gate", asUser(user, n.binary, "run", "--config", settings, "--", "sh", "-c", script, static)...)
	gate := newProcess(t, "gate", cmd)
	stdin, out := startPiped(t, cmd)
	defer stdin.Close()
	reach := func(dest string) {
		t.Helper()
		if _, err := io.WriteString(stdin, dest+"\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := out.ReadString('\n'); line != "static, and IPv4 only\n" {
			t.Errorf("%s: %q, %v\n%s", dest, line, err, gate.tail())
		}
	}
	reach("v4only.test:7")
	logged := gate.mark()
	n.run(t, "gate", "ip", "-4", "route", "del", "default")
	defer n.run(t, "gate", "ip", "-4", "route", "add", "default", "via", "203.0.113.254")
	gate.await(t, logged, "uplink=IPv6")
	reach("192.0.2.200:7")
	stdin.Close()
	<-gate.ended
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// testRunResolver has a program's names come from its gateway alone, also after
// systemd's resolver has put a new file in the place of its own.
func testRunResolver(t *testing.T, n *namespaces, user string) {
	const host = `set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/resolve /run/dbus /run/nscd
touch /run/systemd/resolve/io.systemd.Resolve /run/dbus/system_bus_socket /run/nscd/socket
echo nameserver 127.0.0.53 >/run/systemd/resolve/stub-resolv.conf
umount /etc/resolv.conf /etc/nsswitch.conf
mkdir /run/etc
cp -a /etc/passwd /etc/group /run/etc
mount --bind /run/etc /etc
ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
echo hosts: resolve files dns >/etc/nsswitch.conf
exec "$@"`
	const script = `echo ready; read x
ls -A /run/systemd/resolve /run/dbus /run/nscd
cat /etc/resolv.conf
getent ahostsv4 v6only.test | grep -c STREAM`
	line := append([]string{"unshare", "--mount", "sh", "-c", host, "sh"},
		asUser(user, n.binary, "run", "--config", n.config("run"), "--", "sh", "-c", script)...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := n.command(ctx, "gate", line...)
	stdin, out := startPiped(t, cmd)
	defer stdin.Close()
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	const another = `cd /run/systemd/resolve && echo nameserver 127.0.0.53 >new && mv new stub-resolv.conf`
	n.run(t, "gate", "nsenter", "--mount", "--target", strconv.Itoa(cmd.Process.Pid), "sh", "-c", another)
	stdin.Close()
	got, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	const want = `/run/dbus:

/run/nscd:

/run/systemd/resolve:
stub-resolv.conf
nameserver 198.18.0.2
1
`
	if string(got) != want {
		t.Errorf("the program finds\n%s\nwant\n%s", got, want)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
