package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// socksAddr is where the SOCKS servers listen.
const socksAddr = lanAddr + ":1080"

// unprivileged runs a program as nobody, with the capabilities that sixgate needs
// for a TUN device, which some machines keep for root: the memory of pipes that
// Linux allows such a user is little.
func unprivileged() []string {
	const capabilities = "+net_admin,+dac_override"
	return []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", capabilities, "--ambient-caps", capabilities}
}

// servers are the contestants that the client knows as SOCKS servers. They are
// measured when asked for by name, beside each other.
func (b *bench) servers() []contestant {
	through := socksAddr + "/" + serverAddr
	return []contestant{{
		name:    "socks-sixgate",
		about:   "its SOCKS server",
		host:    through,
		prepare: b.findSixgate,
		start: b.startServer("sixgate.toml", `[socks]
listen = ["`+socksAddr+`"]
clients = ["`+clientAddr+`/32"]
[limits]
flows = 16384
flows-per-client = 16384
[pool]
state = ""
[control]
socket = ""
[status]
listen = ""
`, b.sixgate, "serve", "--config"),
	}, {
		name:    "socks-danted",
		about:   "Dante, as packaged, one rule",
		host:    through,
		prepare: find("danted"),
		start: b.startServer("danted.conf", `logoutput: /dev/null
internal: `+lanAddr+` port = 1080
external: wan0
clientmethod: none
socksmethod: none
user.privileged: nobody
user.unprivileged: nobody
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
`, "danted", "-f"),
	}, {
		name:    "socks-microsocks",
		about:   "microsocks, as packaged, silent",
		host:    through,
		prepare: find("microsocks"),
		start:   b.startServer("", "", "sh", "-c", "exec microsocks -i "+lanAddr+" -p 1080 2>/dev/null"),
	}}
}

func find(program string) func(context.Context) error {
	return func(context.Context) error {
		_, err := exec.LookPath(program)
		return err
	}
}

// startServer starts a program with the name of its configuration, if it has
// one, as the last argument.
func (b *bench) startServer(name, config string, argv ...string) func(context.Context, *network) (*process, error) {
	return func(ctx context.Context, n *network) (*process, error) {
		argv := append(unprivileged(), argv...)
		if name != "" {
			file := filepath.Join(n.work, name)
			if err := errors.Join(os.Chmod(n.work, 0o755), os.WriteFile(file, []byte(config), 0o644)); err != nil {
				return nil, err
			}
			argv = append(argv, file)
		}
		return n.start(ctx, "gate", argv...)
	}
}

// proxied is the key of a context whose connections go through a SOCKS server.
type proxied struct{}

// target splits what the load is to reach into the context of its connections
// and the host.
func target(ctx context.Context, text string) (context.Context, string) {
	proxy, host, ok := strings.Cut(text, "/")
	if !ok {
		return ctx, text
	}
	return context.WithValue(ctx, proxied{}, proxy), host
}

// dialSOCKS asks a server, word by word as most clients do, for a connection.
func dialSOCKS(ctx context.Context, proxy string, dest netip.AddrPort) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", proxy)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(deadline)
	}
	var reply [10]byte
	ip := dest.Addr().As4()
	request := append(append([]byte{5, 1, 0, 1}, ip[:]...), byte(dest.Port()>>8), byte(dest.Port()))
	for _, step := range []struct{ say, hear []byte }{{[]byte{5, 1, 0}, reply[:2]}, {request, reply[:]}} {
		if err == nil {
			_, err = conn.Write(step.say)
		}
		if err == nil {
			_, err = io.ReadFull(conn, step.hear)
		}
		if err == nil && reply[1] != 0 {
			err = fmt.Errorf("the server said % x", step.hear)
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connecting to %s through %s: %w", dest, proxy, err)
	}
	return conn, nil
}
