package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serverSettings send each user through another server.
const serverSettings = `
[lan]
interfaces = ["lan0"]
[dns]
upstreams = ["udp://203.0.113.53:53"]
[socks]
listen = ["192.168.77.1:1080"]
user = [{name = "danted", password = "x"}, {name = "microsocks", password = "x"}, {name = "ssh", password = "x"}]
[[outlet]]
name = "danted"
type = "socks5"
server = "192.0.2.2:1081"
pipeline = true
[[outlet]]
name = "microsocks"
type = "socks5"
server = "192.0.2.2:1082"
[[outlet]]
name = "ssh"
type = "socks5"
server = "127.0.0.1:1083"
[[rule]]
users = ["danted"]
outlet = "danted"
[[rule]]
users = ["microsocks"]
outlet = "microsocks"
[[rule]]
users = ["ssh"]
outlet = "ssh"
[log]
level = "debug"
`

const dantedSettings = `
logoutput: stderr
internal: 192.0.2.2 port = 1081
external: wan0
clientmethod: none
socksmethod: none
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: ::/0 }
socks pass { from: ::/0 to: 0.0.0.0/0 }
`

// testServers has the gateway use SOCKS servers of other hands, which stand
// where the second gateway of a chain would.
func testServers(t *testing.T, n *namespaces) {
	settings := filepath.Join(n.dir, "danted.conf")
	if err := os.WriteFile(settings, []byte(dantedSettings), 0o600); err != nil {
		t.Fatal(err)
	}
	n.serveSSH(t, "far")
	tunnel := strings.Replace(n.ssh("none"), "ssh ", "ssh -N -D 127.0.0.1:1083 ", 1) + " 192.0.2.2"
	missing := map[string]error{
		"danted":     n.background(t, "far", "192.0.2.2:1081", "danted", "-f", settings),
		"microsocks": n.background(t, "far", "192.0.2.2:1082", "microsocks", "-i", "192.0.2.2", "-p", "1082"),
		"ssh":        n.background(t, "gate", "127.0.0.1:1083", "sh", "-c", "exec "+tunnel),
	}
	gate := n.serve(t, "gate", serverSettings)
	const python = "/usr/bin/python3 "
	datagrams := python + n.write(t, "datagrams.py", datagramsPy) + " 192.168.77.1 "
	for _, c := range []struct{ server, command, want string }{
		{"danted", "v4only.test", "greets 198.51.100.1\n"},
		{"danted", "v6only.test", "greets 2001:db8:98::1\n"},
		{"danted", "closed.test", "(5)"},
		{"danted", "nowhere.test", "(4)"},
		{"microsocks", "v4only.test", "greets 198.51.100.1\n"},
		{"microsocks", "v6only.test", "greets 2001:db8:98::1\n"},
		{"microsocks", "closed.test", "(5)"},
		{"ssh", "v4only.test", "greets 198.51.100.1\n"},
		{"ssh", "v6only.test", "greets 2001:db8:98::1\n"},
		{"danted", datagrams + "203.0.113.80 danted x", "hello from 203.0.113.80"},
		{"danted", datagrams + "v6only.test danted x", "hello from 2001:db8:99::80"},
		{"microsocks", datagrams + "203.0.113.80 microsocks x", "Command not supported"},
	} {
		t.Run(c.server+" "+c.want, func(t *testing.T) {
			if err := missing[c.server]; err != nil {
				t.Skip("needs what scripts/setup installs: ", err)
			}
			command := c.command
			if !strings.HasPrefix(command, python) {
				command = "curl -sS --socks5-hostname " + c.server + ":x@192.168.77.1:1080 http://" + command + "/"
			}
			got := n.shell(t, "lan", command)
			if got == "no PySocks\n" {
				t.Skip("needs what scripts/setup installs: ", got)
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("%s printed %q, want %q", command, got, c.want)
			}
		})
	}
	gate.stop(t)
}

// background runs a server on a host until the test ends, and returns once it
// listens, or why it cannot.
func (n *namespaces) background(t *testing.T, host, at string, args ...string) error {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		return err
	}
	cmd := n.command(context.Background(), host, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	for deadline := time.Now().Add(patience); !strings.Contains(n.run(t, host, "ss", "-Hnltu"), " "+at+" "); time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			return errors.Join(errors.New(args[0]+" has ended"), err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen", args[0])
		}
	}
	return nil
}

// Settings of three gateways in a row, each of which knows but the next. The
// names below far.test are known to the last one alone, and its link to the
// one before it has IPv6 only.
const (
	firstSettings = `
[lan]
interfaces = ["lan0", "lan6"]
[dns]
upstreams = ["udp://203.0.113.53:53"]
[socks]
listen = ["192.168.77.1:1080"]
clients = ["192.168.77.0/24"]
[[outlet]]
name = "next"
type = "socks5"
server = "192.0.2.2:1080"
[[rule]]
names = ["*.far.test"]
outlet = "next"
[log]
level = "debug"
`
	secondSettings = `
[dns]
upstreams = ["udp://203.0.113.53:53"]
[socks]
listen = ["192.0.2.2:1080"]
clients = ["192.0.2.1/32"]
[[outlet]]
name = "next"
type = "socks5"
server = "[2001:db8:98::fe]:1080"
[[rule]]
names = ["*.far.test"]
outlet = "next"
[log]
level = "debug"
`
	thirdSettings = `
[dns]
upstreams = ["udp://198.51.100.53:53"]
[direct]
allow = ["203.0.113.80/32", "2001:db8:99::80/128"] # the world's own addresses
[socks]
listen = ["[2001:db8:98::fe]:1080"]
clients = ["2001:db8:98::1/128"]
[log]
level = "debug"
`
)

// testThreeGateways goes through all of them to hosts of both families (RFC
// 3089, section 4), by TCP and by UDP; and hears at the first what the last
// has to say of a name that does not exist.
func testThreeGateways(t *testing.T, n *namespaces) {
	gates := []*process{n.serve(t, "world", thirdSettings), n.serve(t, "far", secondSettings), n.serve(t, "gate", firstSettings)}
	for _, c := range []struct{ client, qtype, name string }{
		{"lan", "A", "only4.far.test"}, {"lan", "A", "only.far.test"},
		{"lan6", "AAAA", "only4.far.test"}, {"lan6", "AAAA", "only.far.test"},
	} {
		fake := n.resolve(t, c.client, c.name, c.qtype)
		for network, echo := range map[string]func(net.Conn) error{"tcp": echoStream, "udp": echoDatagrams} {
			t.Run(c.client+" "+c.name+" "+network, func(t *testing.T) {
				var marks []int
				for _, gate := range gates {
					marks = append(marks, gate.mark())
				}
				conn, err := n.dial(t.Context(), c.client, network, netip.AddrPortFrom(fake, 7))
				if err != nil {
					t.Fatal(err)
				}
				if err := echo(conn); err != nil {
					t.Error(err)
				}
				conn.Close()
				if network == "tcp" {
					for i, gate := range gates {
						gate.await(t, marks[i], "msg=flow", "network=tcp", "name="+c.name)
					}
				}
			})
		}
	}
	t.Run("no such name, SOCKS", func(t *testing.T) {
		got := n.shell(t, "lan", "curl -sS --socks5-hostname 192.168.77.1:1080 http://nowhere.far.test/")
		if !strings.Contains(got, "(4)") {
			t.Errorf("got %q, want reply 4", got)
		}
	})
	t.Run("no such name, TUN", func(t *testing.T) {
		fake := n.resolve(t, "lan", "nowhere.far.test", "A")
		conn, err := n.dial(t.Context(), "lan", "tcp", netip.AddrPortFrom(fake, 80))
		if !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("got %v", err)
		}
		if err == nil {
			conn.Close()
		}
	})
	for _, gate := range gates {
		gate.stop(t)
	}
}
