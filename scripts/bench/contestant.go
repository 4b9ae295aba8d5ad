package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// tun is the device that programs other than sixgate are given their packets by.
const tun = "tun0"

// singbox is the version of sing-box that is measured.
const singbox = "v1.14.1"

// contestant is one way from the client's cable to the server's.
type contestant struct {
	name    string
	about   string                                                  // how it is set up
	host    string                                                  // what the client connects to
	host6   string                                                  // likewise by IPv6; "": nothing
	prepare func(ctx context.Context) error                         // its error is why the contestant stays out; may be nil
	start   func(ctx context.Context, n *network) (*process, error) // the process may be nil
	ask     func(ctx context.Context, n *network) (held, error)     // what it holds; may be nil
}

// builtin is who is measured without being asked for. All have the same route
// back, and none translates what the server sees more than it must.
func (b *bench) builtin() []contestant {
	return []contestant{{
		name:  "kernel",
		about: "IP forwarding",
		host:  serverAddr,
		start: func(context.Context, *network) (*process, error) { return nil, nil },
	}, {
		name:  "splice",
		about: "nft redirect to a relay of io.Copy between kernel sockets",
		host:  serverAddr,
		start: b.startSplice,
	}, {
		name:    "sixgate",
		about:   "as shipped, every name has a fake address",
		host:    serverName,
		host6:   serverName6,
		prepare: b.findSixgate,
		start:   b.startSixgate("off"),
		ask:     b.askSixgate,
	}, {
		name:    "sixgate-handover",
		about:   "the same, leaving dialled connections to the kernel",
		host:    serverName,
		host6:   serverName6,
		prepare: b.findSixgate,
		start:   b.startSixgate("on"),
		ask:     b.askSixgate,
	}, {
		name:    "singbox-gvisor",
		about:   "sing-box " + singbox + ", TUN inbound with its gvisor stack, direct outbound",
		host:    serverAddr,
		prepare: b.buildSingbox,
		start:   b.startSingbox("gvisor"),
	}, {
		name:    "singbox-system",
		about:   "sing-box " + singbox + ", TUN inbound with its system stack (kernel TCP), direct outbound",
		host:    serverAddr,
		prepare: b.buildSingbox,
		start:   b.startSingbox("system"),
	}}
}

func (b *bench) startSplice(ctx context.Context, n *network) (*process, error) {
	redirect := fmt.Sprintf("table ip bench { chain in { type nat hook prerouting priority dstnat; iifname lan0 meta l4proto tcp redirect to :%d; }; }", splicePort)
	if err := n.execute(ctx, "gate", redirect, "nft", "-f", "-"); err != nil {
		return nil, err
	}
	return n.part(ctx, "gate", "splice")
}

func (b *bench) findSixgate(context.Context) error {
	_, err := os.Stat(b.sixgate)
	return err
}

func (b *bench) startSixgate(handover string) func(context.Context, *network) (*process, error) {
	return func(ctx context.Context, n *network) (*process, error) {
		config := filepath.Join(n.work, "sixgate.toml")
		text := `[lan]
interfaces = ["lan0"]
[tun]
handover = "` + handover + `"
[pool]
state = ""
[dns]
upstreams = ["udp://` + serverAddr + `:53"]
fake = "always"
[control]
socket = "` + n.control() + `"
[status]
listen = ""
[limits] # the one client stands for many
flows-per-client = ` + strconv.Itoa(descriptors) + `
flows = ` + strconv.Itoa(descriptors) + `
`
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, err
		}
		return n.start(ctx, "gate", b.sixgate, "serve", "--config", config)
	}
}

// buildSingbox builds sing-box once, outside the tree.
func (b *bench) buildSingbox(ctx context.Context) error {
	dir, err := filepath.Abs(filepath.Join(b.cache, "sing-box-"+singbox))
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "sing-box")); err == nil {
		return nil
	}
	build := exec.CommandContext(ctx, "go", "install", "-tags", "with_gvisor", "github.com/sagernet/sing-box/cmd/sing-box@"+singbox)
	build.Dir = os.TempDir()
	build.Env = append(build.Environ(), "GOBIN="+dir)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building sing-box %s: %w: %s", singbox, err, out[max(0, len(out)-500):])
	}
	return nil
}

func (b *bench) startSingbox(stack string) func(context.Context, *network) (*process, error) {
	return func(ctx context.Context, n *network) (*process, error) {
		config := filepath.Join(n.work, "sing-box.json")
		text := `{
  "log": {"level": "error"},
  "inbounds": [{"type": "tun", "interface_name": "` + tun + `", "address": ["172.19.0.1/30"], "stack": "` + stack + `"}],
  "outbounds": [{"type": "direct"}]
}`
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, err
		}
		return n.startOnTUN(ctx, filepath.Join(b.cache, "sing-box-"+singbox, "sing-box"), "--disable-color", "run", "-c", config)
	}
}

// parsePeer reads a contestant from the command line.
func parsePeer(text string) (contestant, error) {
	name, command, _ := strings.Cut(text, "=")
	if !regexp.MustCompile(`^[a-zA-Z0-9._-]+$`).MatchString(name) || strings.TrimSpace(command) == "" {
		return contestant{}, fmt.Errorf("want name=command, got %q", text)
	}
	command = strings.NewReplacer("{tun}", tun, "{wan}", "wan0").Replace(command)
	return contestant{
		name:  name,
		about: command,
		host:  serverAddr,
		start: func(ctx context.Context, n *network) (*process, error) {
			return n.startOnTUN(ctx, "sh", "-c", "exec "+command)
		},
	}, nil
}

// startOnTUN starts a program that makes a TUN device, and sends to it what
// comes from the client.
func (n *network) startOnTUN(ctx context.Context, argv ...string) (*process, error) {
	p, err := n.start(ctx, "gate", argv...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, begin)
	defer cancel()
	for {
		if err = execute(ctx, "", "ip", "-n", n.host("gate"), "link", "set", tun, "up"); err == nil {
			break
		}
		select {
		case <-time.After(tally):
		case <-ctx.Done():
			p.stop()
			return nil, fmt.Errorf("waiting for the device of %s: %w%s", argv[0], err, p.lastWords())
		}
	}
	err = execute(ctx, "rule add iif lan0 lookup 100\nroute add default dev "+tun+" table 100",
		"ip", "-n", n.host("gate"), "-batch", "-")
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}
