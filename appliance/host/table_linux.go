package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// nft runs the nft program. Its text form is what an operator reads, and what
// a test can check without a kernel.
func nft(stdin string, args ...string) ([]byte, error) {
	cmd := exec.Command("nft", args...)
	cmd.SysProcAttr = inheritance()
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("running nft: %w: install the package nftables", err)
	}
	if err != nil {
		err = fmt.Errorf("running nft %s: %w", strings.Join(args, " "), err)
		if said := bytes.TrimSpace(stderr.Bytes()); len(said) > 0 {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return nil, err
	}
	return stdout.Bytes(), nil
}

// inheritance has a child hold the right to change the network, too, which it does
// not from an ordinary user whose rights are those of the gateway's file. The
// service manager's are passed on without, and its sandbox forbids to do more.
func inheritance() *syscall.SysProcAttr {
	passed, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, unix.CAP_NET_ADMIN, 0, 0)
	if os.Geteuid() == 0 || err == nil && passed == 1 {
		return nil
	}
	return &syscall.SysProcAttr{AmbientCaps: []uintptr{unix.CAP_NET_ADMIN}}
}

// listing is the part of libnftables-json(5) that matters here.
type listing struct {
	Objects []struct {
		Table *struct{ Family, Name string }
		Rule  *struct{ Chain, Comment string }
	} `json:"nftables"`
}

func list(args ...string) (listing, error) {
	var found listing
	out, err := nft("", append([]string{"-j", "list"}, args...)...)
	if err != nil {
		return found, err
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return found, fmt.Errorf("reading nft's list of %s: %w", strings.Join(args, " "), err)
	}
	return found, nil
}

// CheckTable returns why the kernel would not take the table of s. It changes
// nothing.
func CheckTable(s State) error {
	_, err := nft(s.table(nil), "-c", "-f", "-")
	return err
}

// tableStands reports whether our table does.
func tableStands() (bool, error) {
	tables, err := list("tables")
	for _, o := range tables.Objects {
		if o.Table != nil && o.Table.Family == "inet" && o.Table.Name == "sixgate" {
			return true, nil
		}
	}
	return false, err
}

// readTable reports whether our table stands, and the journal in it.
func readTable() (before journal, stands bool, err error) {
	if stands, err = tableStands(); !stands {
		return nil, false, err
	}
	ours, err := list("table", "inet", "sixgate")
	if err != nil {
		if stands, unknown := tableStands(); unknown == nil && !stands {
			return nil, false, nil // somebody has removed it meanwhile
		}
		return nil, false, err
	}
	for _, o := range ours.Objects {
		if o.Rule == nil || o.Rule.Chain != "restore" {
			continue
		}
		if key, value, ok := strings.Cut(o.Rule.Comment, "="); ok {
			before = append(before, setting{key, value})
		}
	}
	return before, true, nil
}

// standing returns the journal, from memory when we wrote the table, since
// someone may have flushed the ruleset, and else from a killed gateway's
// table. Without the nft program there is no table.
func (n *Network) standing() (before journal, stands bool, err error) {
	before, stands, err = readTable()
	if n.text != "" {
		before = n.before
	}
	return before, stands, err
}

// setTable makes our nft table and the sysctls those of s. The
// table is written first: from then on the old values outlive us.
func (n *Network) setTable(s State) error {
	if len(s.LAN) == 0 {
		return n.removeTable()
	}
	before, stands, err := n.standing()
	if err != nil {
		return err
	}
	want, after, err := s.forwarding(before)
	if err != nil {
		return err
	}
	pings, pingsAfter, err := pinging(before)
	if err != nil {
		return err
	}
	deaf, deafAfter, err := s.deafening(before)
	if err != nil {
		return err
	}
	after = slices.Concat(after, pingsAfter, deafAfter)
	if err := before.without(after).restore(); err != nil {
		return err
	}
	if !stands && n.text != "" {
		n.log.Warn("putting back the nft table, which somebody has removed")
	}
	if text := s.table(after); !stands || text != n.text {
		if _, err := nft(text, "-f", "-"); err != nil {
			return err
		}
		n.text, n.before = text, after
	}
	for _, w := range want {
		if err := w.write(); err != nil {
			return err
		}
	}
	for _, w := range pings {
		if err := w.write(); err != nil {
			n.log.Warn("pings are refused", "err", err)
		}
	}
	for _, w := range deaf {
		if err := w.write(); err != nil {
			n.log.Warn("hosts of the LAN can make themselves the router of this machine", "err", err)
		}
	}
	return nil
}

// removeTable restores the sysctls, then deletes the table.
func (n *Network) removeTable() error {
	before, stands, err := n.standing()
	if errors.Is(err, exec.ErrNotFound) && n.text == "" {
		return nil // whoever wrote a table had nft
	}
	if err != nil {
		return errors.Join(err, before.restore())
	}
	err = before.restore()
	if stands {
		// In one transaction, which bears that somebody has removed it.
		_, failed := nft("add table inet sixgate\ndelete table inet sixgate\n", "-f", "-")
		err = errors.Join(err, failed)
	}
	n.text, n.before = "", nil
	return err
}
