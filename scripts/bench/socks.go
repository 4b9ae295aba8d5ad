package main

import (
	"context"
	"encoding/binary"
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
	conn, _, err := askSOCKS(ctx, proxy, 1, dest)
	return conn, err
}

// associateSOCKS asks a server for a relay of datagrams, which lasts until ctx
// ends.
func associateSOCKS(ctx context.Context, proxy string) (relay netip.AddrPort, err error) {
	conn, relay, err := askSOCKS(ctx, proxy, 3, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err == nil {
		context.AfterFunc(ctx, func() { conn.Close() })
	}
	return relay, err
}

// addressSOCKS returns how SOCKS writes an address of IPv4.
func addressSOCKS(a netip.AddrPort) []byte {
	ip := a.Addr().As4()
	return binary.BigEndian.AppendUint16(append([]byte{1}, ip[:]...), a.Port())
}

// askSOCKS sends a server a request, and returns the address of the answer.
func askSOCKS(ctx context.Context, proxy string, command byte, dest netip.AddrPort) (net.Conn, netip.AddrPort, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", proxy)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(deadline)
	}
	var reply [10]byte
	request := append([]byte{5, command, 0}, addressSOCKS(dest)...)
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
		return nil, netip.AddrPort{}, fmt.Errorf("asking %s for %s: %w", proxy, dest, err)
	}
	return conn, netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[4:])), binary.BigEndian.Uint16(reply[8:])), nil
}
