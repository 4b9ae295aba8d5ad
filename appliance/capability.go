package appliance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"sixgate/appliance/config"
)

// capability is one of capabilities(7).
type capability struct {
	name string
	bit  int
}

// admin is what no gateway can do without.
func admin() capability { return capability{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN} }

// needed returns those that a gateway of c needs for all that c asks of it.
func needed(c *config.Config) []capability {
	all := []capability{admin(), {"CAP_NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE}}
	if c.Direct.NAT64.Find || len(c.Advertise.Interfaces) > 0 { // router advertisements
		all = append(all, capability{"CAP_NET_RAW", unix.CAP_NET_RAW})
	}
	return all
}

// held returns the effective capabilities of this process, a bit each.
func held() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("reading capabilities: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

// lacking names those that a gateway of c needs and that are not among held; "" is
// none.
func lacking(c *config.Config, held uint64) string {
	var names []string
	for _, c := range needed(c) {
		if held&(1<<c.bit) == 0 {
			names = append(names, c.name)
		}
	}
	return strings.Join(names, " and ")
}

// grant tells how to give the program what a gateway of c needs.
func grant(c *config.Config) string {
	program, err := os.Executable()
	if err != nil {
		program = "sixgate"
	}
	var names []string
	for _, c := range needed(c) {
		names = append(names, strings.ToLower(c.name))
	}
	return "run as root, or once: setcap " + strings.Join(names, ",") + "+ep " + program
}

// rightsError adds to err which rights the process lacks, and how to get them,
// where that may be behind it.
func rightsError(c *config.Config, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	have, unknown := held()
	if unknown != nil || lacking(c, have) == "" {
		return err
	}
	return fmt.Errorf("%w; the process lacks %s: %s", err, lacking(c, have), grant(c))
}

// hostError marks err as ErrHost where the machine lacks a device, a right or a program.
func hostError(c *config.Config, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrHost, rightsError(c, err))
	}
	return err
}

// check finds out whether the process has it.
func (c capability) check(advice string) Finding {
	have, err := held()
	if err == nil && have&(1<<c.bit) == 0 {
		err = errors.New("not held")
	}
	return finding("capability "+c.name, "held", err, advice)
}

// checkCapabilities looks for all that are needed. Ports below 1024, where there
// are any, are tried.
func checkCapabilities(c *config.Config) (findings []Finding) {
	for _, need := range needed(c) {
		if need.bit != unix.CAP_NET_BIND_SERVICE {
			findings = append(findings, need.check(grant(c)))
		}
	}
	return findings
}
