package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// socksSettings are those of a gateway whose SOCKS server all hosts may use.
const socksSettings = `
[lan]
interfaces = ["lan0", "lan6"]
[dns]
upstreams = ["udp://203.0.113.53:53"]
[socks]
listen = ["127.0.0.1:1080", "[::1]:1080", "192.168.77.1:1080", "[fd00:77::1]:1080"]
clients = ["127.0.0.0/8", "::1/128", "192.168.77.0/24", "fd00:77::/64"]
[log]
level = "debug"
`

// passwordSettings are those of a gateway that wants passwords.
const passwordSettings = `
[dns]
upstreams = ["udp://198.51.100.53:53"]
[socks]
listen = ["192.0.2.2:1080"]
[[socks.user]]
name = "alice"
password = "secret"
[log]
level = "debug"
`

// testClients has programs of other hands use the SOCKS server. What they fetch
// greets them by the address that it sees, which is the gateway's.
func testClients(t *testing.T, n *namespaces) {
	gate, far := n.serve(t, "gate", socksSettings), n.serve(t, "far", passwordSettings)
	files := n.files(t)
	const (
		by4, by6       = "greets 203.0.113.1\n", "greets 2001:db8:99::1\n"
		far6           = "greets 2001:db8:98::1\n"
		lan4, lan6     = "192.168.77.1:1080", "[fd00:77::1]:1080"
		python         = "/usr/bin/python3 " // of the packages of the system
		refused        = "(1 1)"             // STATUS of RFC 1929
		git            = "git -c advice.detachedHead=false clone -q "
		show           = " && git -C clone log --format=%s"
		connect, ascii = "connect-proxy -S ", "printf 'hello\\n' | "
	)
	for _, c := range []struct{ what, host, command, want string }{
		{"socks4", "lan", "curl -sS --socks4 " + lan4 + " http://203.0.113.80/", by4},
		{"socks4 to an IPv6 listener", "lan6", "curl -sS --socks4 " + lan6 + " http://203.0.113.80/", by4},
		{"socks4a, IPv4 to IPv4", "lan", "curl -sS --socks4a " + lan4 + " http://v4only.test/", by4},
		{"socks4a, IPv4 to IPv6", "lan", "curl -sS --socks4a " + lan4 + " http://v6only.test/", by6},
		{"socks4a, IPv6 to IPv4", "lan6", "curl -sS --socks4a " + lan6 + " http://v4only.test/", by4},
		{"socks4a, IPv6 to IPv6", "lan6", "curl -sS --socks4a " + lan6 + " http://v6only.test/", by6},
		{"socks5, IPv4 to IPv4", "lan", "curl -sS --socks5 " + lan4 + " http://203.0.113.80/", by4},
		{"socks5, IPv4 to IPv6", "lan", "curl -sS --socks5 " + lan4 + " 'http://[2001:db8:99::80]/'", by6},
		{"socks5, IPv6 to IPv4", "lan6", "curl -sS --socks5 " + lan6 + " http://203.0.113.80/", by4},
		{"socks5, IPv6 to IPv6", "lan6", "curl -sS --socks5 " + lan6 + " 'http://[2001:db8:99::80]/'", by6},
		{"socks5h, IPv4 to IPv4", "lan", "curl -sS --socks5-hostname " + lan4 + " http://v4only.test/", by4},
		{"socks5h, IPv4 to IPv6", "lan", "curl -sS --socks5-hostname " + lan4 + " http://v6only.test/", by6},
		{"socks5h, IPv6 to IPv4", "lan6", "curl -sS --socks5-hostname " + lan6 + " http://v4only.test/", by4},
		{"socks5h, IPv6 to IPv6", "lan6", "curl -sS --socks5-hostname " + lan6 + " http://v6only.test/", by6},
		{"password", "gate", "curl -sS --socks5-hostname alice:secret@192.0.2.2:1080 http://v6only.test/", far6},
		{"wrong password", "gate", "curl -sS --socks5-hostname alice:guess@192.0.2.2:1080 http://v6only.test/", refused},
		{"no password", "gate", "curl -sS --socks5-hostname 192.0.2.2:1080 http://v6only.test/", "No authentication method was acceptable"},
		{"password, socks4", "gate", "curl -sS --socks4a alice@192.0.2.2:1080 http://v6only.test/", "(91)"},

		{"ncat, socks4", "lan", ascii + "ncat --proxy " + lan4 + " --proxy-type socks4 203.0.113.80 7", "hello\n"},
		{"ncat, socks5", "lan6", ascii + "ncat --proxy " + lan6 + " --proxy-type socks5 v4only.test 7", "hello\n"},
		{"ncat, password", "gate", ascii + "ncat --proxy 192.0.2.2:1080 --proxy-type socks5 --proxy-auth alice:secret v6only.test 7", "hello\n"},
		{"nc, socks4", "lan", ascii + "nc.openbsd -N -X 4 -x " + lan4 + " 203.0.113.80 7", "hello\n"},
		{"nc, socks5, name", "lan", ascii + "nc.openbsd -N -X 5 -x " + lan4 + " v6only.test 7", "hello\n"},
		{"nc, socks5, IPv6", "lan6", ascii + "nc.openbsd -N -X 5 -x " + lan6 + " 2001:db8:99::80 7", "hello\n"},

		{"ssh by nc", "lan", n.ssh("nc.openbsd -X 5 -x "+lan4+" %h %p") + " v6only.test echo hello", "hello\n"},
		{"ssh by connect-proxy", "lan", n.ssh(connect+lan4+" %h %p") + " v4only.test echo hello", "hello\n"},
		{"git over ssh", "lan", "cd $(mktemp -d -p " + n.dir + ") && GIT_SSH_COMMAND=" + strconv.Quote(n.ssh("nc.openbsd -X 5 -x "+lan4+" %h %p")) +
			" " + git + "v6only.test:" + n.dir + "/repository clone" + show, "a commit\n"},
		{"git over HTTP", "lan", "cd $(mktemp -d -p " + n.dir + ") && " + git + "-c http.proxy=socks5h://" + lan4 + " http://v6only.test/repository clone" + show, "a commit\n"},

		{"proxychains4, a chain of two", "gate", "proxychains4 -q -f " + files.proxychains + " curl -sS http://v6only.test/", far6},
		{"torsocks: RESOLVE and CONNECT", "gate", "torsocks -a 127.0.0.1 -P 1080 curl -sS http://v4only.test/", by4},
		{"Dante's socksify", "lan", "SOCKS_CONF=" + files.dante + " socksify curl -sS http://203.0.113.80/", by4},
		// It forgets whom it has accepted now and then.
		{"Dante's socksify: BIND", "lan", "for try in 1 2 3 4 5; do SOCKS_CONF=" + files.dante + " socksify curl -sS --disable-eprt -P - ftp://203.0.113.80:2121/file && break; done", "the file\n"},
		{"Dante's socksify: UDP ASSOCIATE", "lan", ascii + "SOCKS_CONF=" + files.dante + " socksify nc.openbsd -u -W 1 203.0.113.80 7", "hello\n"},
		{"PySocks: UDP ASSOCIATE, IPv4", "lan", python + files.datagrams + " 192.168.77.1 203.0.113.80", "hello from 203.0.113.80"},
		{"PySocks: UDP ASSOCIATE, name", "lan", python + files.datagrams + " 192.168.77.1 v6only.test", "hello from 2001:db8:99::80"},
	} {
		t.Run(c.what, func(t *testing.T) {
			for word, file := range tools {
				if _, err := exec.LookPath(file); err != nil && strings.Contains(c.command, word) {
					t.Skip("needs what scripts/setup installs: ", err)
				}
			}
			got := n.shell(t, c.host, c.command)
			if got == "no PySocks\n" {
				t.Skip("needs what scripts/setup installs: ", got)
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("%s printed %q, want %q", c.command, got, c.want)
			}
		})
	}
	gate.stop(t)
	far.stop(t)
}

// tools are the programs that testClients uses where they are, by the words of
// its commands that need them.
var tools = map[string]string{
	"ncat ": "ncat", "nc.openbsd ": "nc.openbsd", "ssh ": "ssh", "2222": sshd, "repository": sshd, "connect-proxy ": "connect-proxy",
	"git ": "git", "proxychains4 ": "proxychains4", "torsocks ": "torsocks", "socksify ": "socksify", "python3 ": "python3",
}

// sshd wants to be called by its whole path.
const sshd = "/usr/sbin/sshd"

// shell returns what a shell's command on a host prints, which may fail.
func (n *namespaces) shell(t *testing.T, host, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := n.command(ctx, host, "sh", "-c", command).CombinedOutput()
	if ctx.Err() != nil {
		t.Errorf("on %s, %q: %v", host, command, err)
	}
	return string(out)
}

// ssh returns the start of a command line to the world's sshd.
func (n *namespaces) ssh(proxy string) string {
	return fmt.Sprintf("ssh -F none -p 2222 -i %s/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ProxyCommand='%s'", n.dir, proxy)
}

// clientFiles are what some clients are configured by.
type clientFiles struct{ proxychains, dante, datagrams string }

// files writes them, and starts what the topology does not have: an sshd, a
// repository and an FTP server.
func (n *namespaces) files(t *testing.T) clientFiles {
	t.Helper()
	n.serveFTP(t, netip.MustParseAddrPort("203.0.113.80:2121"))
	if n.serveSSH(t, "world") {
		n.run(t, "world", "sh", "-e", "-c", `cd "$1"
git init -q --bare repository; git clone -q repository work 2>/dev/null
git -C work -c user.name=x -c user.email=x@x.test commit -q --allow-empty -m 'a commit'
git -C work push -q origin HEAD; git -C repository update-server-info
cp -r repository "/run/sixgate-topology/$2/www/"`, "sh", n.dir, n.prefix)
	}
	return clientFiles{
		proxychains: n.write(t, "proxychains.conf", "strict_chain\nproxy_dns\n[ProxyList]\nsocks5 127.0.0.1 1080\nsocks5 192.0.2.2 1080 alice secret\n"),
		dante: n.write(t, "dante.conf", `route {
	from: 0.0.0.0/0 to: 203.0.113.0/24 via: 192.168.77.1 port = 1080
	proxyprotocol: socks_v5
	command: bind connect udpassociate
}
`),
		datagrams: n.write(t, "datagrams.py", datagramsPy),
	}
}

// write writes a file that goes with the test, and returns its path.
func (n *namespaces) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// datagramsPy sends a datagram through the SOCKS server at its first argument to
// its second, and prints the answer. The others are name and password.
const datagramsPy = `import sys
try: import socks
except ImportError: sys.exit("no PySocks")
s = socks.socksocket(socks.socket.AF_INET, socks.socket.SOCK_DGRAM)
s.set_proxy(socks.SOCKS5, sys.argv[1], 1080, True, *sys.argv[3:])
s.settimeout(10)
s.sendto(b"hello", (sys.argv[2], 7))
b, peer = s.recvfrom(100)
print(b.decode(), "from", peer[0])
`

// serveSSH runs an sshd with keys of its own on a host, and returns whether
// there is one.
func (n *namespaces) serveSSH(t *testing.T, host string) bool {
	t.Helper()
	for _, tool := range []string{sshd, "ssh-keygen", "git"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Log("without ssh: ", err)
			return false
		}
	}
	const separation = "/run/sshd" // without which it does not start
	if err := os.Mkdir(separation, 0o755); err == nil {
		t.Cleanup(func() { os.Remove(separation) })
	}
	n.run(t, host, "sh", "-e", "-c", `cd "$1"; [ -e host ] && exit
ssh-keygen -q -t ed25519 -N '' -f key; ssh-keygen -q -t ed25519 -N '' -f host; cp key.pub authorized`, "sh", n.dir)
	err := n.background(t, host, "0.0.0.0:2222", sshd, "-D", "-e", "-f", "/dev/null", "-h", n.dir+"/host", "-p", "2222",
		"-o", "PidFile=none", "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "AuthorizedKeysFile="+n.dir+"/authorized")
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// serveFTP answers what an FTP client asks in active mode, on the world: the
// data of a file come by a connection of the server's (RFC 959).
func (n *namespaces) serveFTP(t *testing.T, at netip.AddrPort) {
	t.Helper()
	ln, err := within(n, "world", func() (net.Listener, error) { return net.Listen("tcp", at.String()) })
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			clients.Go(func() {
				defer conn.Close()
				n.talkFTP(conn)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); clients.Wait() })
}

func (n *namespaces) talkFTP(conn net.Conn) {
	var data netip.AddrPort
	answers := map[string]string{"USER": "230 in", "PWD": `257 "/"`, "TYPE": "200 yes", "PORT": "200 yes", "RETR": "150 coming", "QUIT": "221 bye"}
	fmt.Fprint(conn, "220 here\r\n")
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		answer, known := answers[command]
		if !known {
			answer = "502 no"
		}
		fmt.Fprintf(conn, "%s\r\n", answer)
		switch command {
		case "PORT":
			var b [6]int
			fmt.Sscanf(argument, "%d,%d,%d,%d,%d,%d", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5])
			data = netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(b[0]), byte(b[1]), byte(b[2]), byte(b[3])}), uint16(b[4]<<8+b[5]))
		case "RETR":
			far, err := within(n, "world", func() (net.Conn, error) {
				from := net.TCPAddr{IP: conn.LocalAddr().(*net.TCPAddr).IP}
				return (&net.Dialer{Timeout: patience, LocalAddr: &from}).Dial("tcp", data.String())
			})
			if err != nil {
				fmt.Fprintf(conn, "425 %v\r\n", err)
				continue
			}
			fmt.Fprint(far, "the file\n")
			far.Close()
			fmt.Fprint(conn, "226 done\r\n")
		}
	}
}
