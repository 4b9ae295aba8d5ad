package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"sixgate/appliance/config"
	"sixgate/appliance/host"
	"sixgate/dnsfake"
	"sixgate/dnsfake/upstream"
	"sixgate/socks/outlet"
)

// Finding is what a check of the host found.
type Finding struct {
	OK     bool
	What   string // what was looked at
	Result string // how it is
	Advice string // what to do about it; empty when OK
}

func (f Finding) String() string {
	if f.OK {
		return fmt.Sprintf("ok    %s: %s", f.What, f.Result)
	}
	return fmt.Sprintf("FAIL  %s: %s; %s", f.What, f.Result, f.Advice)
}

// finding returns a Finding by whether err is nil.
func finding(what, good string, err error, advice string) Finding {
	if err != nil {
		return Finding{What: what, Result: err.Error(), Advice: advice}
	}
	return Finding{OK: true, What: what, Result: good}
}

// Check tests whether the host can run a gateway with this configuration, and
// changes nothing.
func Check(ctx context.Context, c *config.Config) []Finding {
	findings := append([]Finding{checkTUN()}, checkCapabilities(c)...)
	m, err := survey(c)
	if len(c.LAN.Interfaces) > 0 {
		findings = append(findings, checkNftables(c, m))
	}
	findings = append(findings, finding("interfaces", m.String(), err, "correct [lan] interfaces, or bring them up"))
	if err == nil {
		findings = append(findings, checkUplink(m), checkPorts(ctx, c, m, runs(ctx, c)), checkHandover(c, m))
		findings = append(findings, checkAdvertised(c, m)...)
	}
	return append(findings, checkResolvers(ctx, c))
}

func checkTUN() Finding {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return finding("TUN device", "/dev/net/tun opens", err, "run as root, and modprobe tun")
}

// checkNftables tries the ruleset of a gateway; m is nil where the machine could
// not be surveyed.
func checkNftables(c *config.Config, m *machine) Finding {
	const what = "nftables"
	path, err := exec.LookPath("nft")
	if err != nil || m == nil {
		return finding(what, path, err, "apt-get install nftables")
	}
	err = host.CheckTable(m.state(c))
	advice := "a kernel of Linux 5.9 or later with what the line asks for, such as nft_fib (on OpenWrt: kmod-nft-fib)"
	if errors.Is(err, fs.ErrPermission) {
		advice = grant(c)
	}
	return finding(what, path+" takes the gateway's ruleset", err, advice)
}

func checkUplink(m *machine) Finding {
	if m.uplink == (dnsfake.Families{}) {
		return Finding{What: "uplink", Result: "no default route of either family", Advice: "connect the uplink"}
	}
	return Finding{OK: true, What: "uplink", Result: "default route for " + familyNames(m.uplink)}
}

// runs reports whether a gateway of this file does so now.
func runs(ctx context.Context, c *config.Config) bool {
	if c.Control.Socket == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var s Status
	return Ask(ctx, c.Control.Socket, "/status", &s) == nil && s.Config == c.File
}

// checkPorts opens what the gateway would listen on, and closes it again. A
// gateway of the same file that runs holds its ports.
func checkPorts(ctx context.Context, c *config.Config, m *machine, runs bool) Finding {
	var names []string
	for _, l := range []struct {
		what      string
		datagrams bool
		addrs     []netip.AddrPort
	}{{"SOCKS", false, m.listenSOCKS(c)}, {"DNS", true, m.listenDNS(c)}} {
		opened, err := listen(ctx, l.what, l.datagrams, l.addrs)
		if runs && errors.Is(err, syscall.EADDRINUSE) {
			return Finding{OK: true, What: "ports", Result: "the gateway runs, and holds them"}
		}
		if err != nil {
			advice := "stop what holds the port (ss -lntup), or choose another"
			if errors.Is(err, fs.ErrPermission) {
				advice = grant(c)
			}
			return finding("ports", "", err, advice)
		}
		for i, s := range opened {
			s.Close()
			names = append(names, l.what+" "+l.addrs[i].String())
		}
	}
	return Finding{OK: true, What: "ports", Result: "free: " + strings.Join(names, ", ")}
}

// checkResolvers asks for the root, which every resolver knows.
func checkResolvers(ctx context.Context, c *config.Config) Finding {
	const what = "upstream resolvers"
	advice := "set [dns] upstreams to resolvers that answer"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	control := outlet.MarkControl(c.Direct.Mark, c.Direct.Interface)
	r, err := upstream.New(upstream.Config{Servers: servers(c), Control: control})
	if err != nil {
		return finding(what, "", err, advice)
	}
	// The root has no address, so the truth is "not found".
	_, err = r.LookupNetIP(ctx, "ip", ".")
	var answer *net.DNSError
	if errors.As(err, &answer) && answer.IsNotFound {
		err = nil
	}
	if errors.Is(err, fs.ErrPermission) { // to mark its sockets
		advice = grant(c)
	}
	return finding(what, "answer", errors.Join(err, r.Close()), advice)
}
