package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// The addresses of the network, which are the same in each run:
//
//	client 192.168.88.2 -- lan0 gate wan0 203.0.113.1 -- 203.0.113.80 server
//	         fd00:88::2                 2001:db8::1      2001:db8::80
const (
	clientAddr  = "192.168.88.2"
	lanAddr     = "192.168.88.1"
	wanAddr     = "203.0.113.1"
	serverAddr  = "203.0.113.80"
	serverName  = "server.test"
	clientAddr6 = "fd00:88::2"
	lanAddr6    = "fd00:88::1"
	wanAddr6    = "2001:db8::1"
	serverAddr6 = "2001:db8::80"
	serverName6 = "server6.test"
)

// links is how the two cables of a network are.
type links struct {
	offload offload
	lan     cable // between client and gate
	wan     cable // between gate and server
}

// cable is what is wrong with one cable, in both directions.
type cable struct {
	loss  int           // percent of packets
	delay time.Duration // one way
}

// offload is what the interfaces leave to each other: the arguments of
// `ethtool -K`, none to leave all as a veth pair has it.
type offload struct{ hosts, gate string }

// offloads are the modes by name.
func offloads() map[string]offload {
	const none = "tso off gso off gro off sg off tx off rx off"
	return map[string]offload{
		"on":    {},                                         // packets of up to 64 KiB go from host to host
		"nogro": {hosts: "tso off gro off", gate: "gro on"}, // hosts send packets of the MTU, the gate's NICs join them
		"off":   {hosts: none, gate: none},                  // each packet, each checksum
	}
}

// network is three hosts, each a network namespace, made for one run, so that
// no run meets the TIME_WAITs, neighbours and conntrack entries of another.
type network struct {
	prefix     string
	work       string     // a directory for configuration and logs
	self       string     // this program, of which parts run on the hosts
	congestion string     // how kernel TCP controls congestion; "": as on the machine
	cables     []*process // those that are a program
}

func hosts() []string { return []string{"client", "gate", "server"} }

// host is the namespace of one of client, gate, server.
func (n *network) host(name string) string { return n.prefix + "-" + name }

// build makes the network. What is there after an error is removed by remove.
func (n *network) build(ctx context.Context, l links) error {
	for _, host := range hosts() {
		if err := n.addHost(ctx, host); err != nil {
			return err
		}
	}
	if err := n.wire(ctx, l.lan, "client", "eth0", "gate", "lan0"); err != nil {
		return err
	}
	if err := n.wire(ctx, l.wan, "server", "eth0", "gate", "wan0"); err != nil {
		return err
	}
	for host, addresses := range map[string]string{
		"client": `address add ` + clientAddr + `/24 dev eth0
address add ` + clientAddr6 + `/64 dev eth0
route add default via ` + lanAddr + `
route add default via ` + lanAddr6,
		"gate": `address add ` + lanAddr + `/24 dev lan0
address add ` + lanAddr6 + `/64 dev lan0
address add ` + wanAddr + `/24 dev wan0
address add ` + wanAddr6 + `/64 dev wan0`,
		"server": `address add ` + serverAddr + `/24 dev eth0
address add ` + serverAddr6 + `/64 dev eth0
route add default via ` + wanAddr + `
route add default via ` + wanAddr6,
	} {
		if err := execute(ctx, addresses, "ip", "-n", n.host(host), "-batch", "-"); err != nil {
			return err
		}
	}
	return errors.Join(
		n.offload(ctx, "client", "eth0", l.offload.hosts), n.offload(ctx, "gate", "lan0", l.offload.gate),
		n.offload(ctx, "server", "eth0", l.offload.hosts), n.offload(ctx, "gate", "wan0", l.offload.gate),
	)
}

func (n *network) offload(ctx context.Context, host, link, features string) error {
	if features == "" {
		return nil
	}
	return n.execute(ctx, host, "", append([]string{"ethtool", "-K", link}, strings.Fields(features)...)...)
}

func (n *network) addHost(ctx context.Context, name string) error {
	if err := execute(ctx, "", "ip", "netns", "add", n.host(name)); err != nil {
		return err
	}
	forward := 0
	if name == "gate" {
		forward = 1
	}
	// Ports for all short connections of a run.
	settings := fmt.Sprintf(`net.ipv4.ip_forward=%d
net.ipv4.conf.all.rp_filter=0
net.ipv4.conf.default.rp_filter=0
net.ipv6.conf.all.accept_dad=0
net.ipv6.conf.default.accept_dad=0
net.ipv4.ip_local_port_range=1024 65535
`, forward)
	if n.congestion != "" {
		settings += "net.ipv4.tcp_congestion_control=" + n.congestion + "\n"
	}
	if err := n.execute(ctx, name, settings, "sysctl", "-qp", "-"); err != nil {
		return err
	}
	return execute(ctx, "", "ip", "-n", n.host(name), "link", "set", "lo", "up")
}

// wire joins two hosts by a cable.
func (n *network) wire(ctx context.Context, c cable, host, link, peer, peerLink string) error {
	if c.delay > 0 {
		long, err := n.part(ctx, "", "delay", c.delay.String(), n.host(host), link, n.host(peer), peerLink)
		if err != nil {
			return err
		}
		n.cables = append(n.cables, long)
		if _, err := long.line(); err != nil {
			return err
		}
	} else if err := execute(ctx, "", "ip", "link", "add", link, "netns", n.host(host),
		"type", "veth", "peer", "name", peerLink, "netns", n.host(peer)); err != nil {
		return err
	}
	for _, end := range [][2]string{{host, link}, {peer, peerLink}} {
		if err := execute(ctx, "", "ip", "-n", n.host(end[0]), "link", "set", end[1], "up"); err != nil {
			return err
		}
		if c.loss == 0 {
			continue
		}
		lose := fmt.Sprintf("table netdev bench { chain loss { type filter hook ingress device %s priority 0; numgen random mod 100 < %d drop; }; }", end[1], c.loss)
		if err := n.execute(ctx, end[0], lose, "nft", "-f", "-"); err != nil {
			return err
		}
	}
	return nil
}

// remove removes the network, or what there is of it.
func (n *network) remove() error {
	for _, cable := range n.cables {
		cable.stop()
	}
	var errs []error
	for _, host := range hosts() {
		if _, err := os.Stat("/run/netns/" + n.host(host)); err == nil {
			errs = append(errs, execute(context.Background(), "", "ip", "netns", "delete", n.host(host)))
		}
	}
	return errors.Join(errs...)
}

// execute runs a command on a host to its end.
func (n *network) execute(ctx context.Context, host, input string, argv ...string) error {
	return execute(ctx, input, n.on(host, argv)...)
}

// execute runs a command to its end. Its output is only for the error.
func execute(ctx context.Context, input string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	// Ctrl-C is for the bench, which still has to clean up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("running %s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
