package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// unitTrial is what an operator and accidents do to the service. It asks for a name
// that is an address, for which no resolver is needed.
const unitTrial = `
pid() { systemctl show --property MainPID --value sixgate; }
fake() { dig +short +time=20 @192.168.77.1 2001-db8--1.ipv6-literal.net A | grep -v '^;'; }
another() { # waits for a process after $1
  for _ in $(seq 600); do
    case $(pid) in 0 | "$1") sleep 0.1 ;; *) systemctl --quiet is-active sixgate && return ;; esac
  done
  return 1
}
echo begun
systemctl start sixgate && echo started
grep -E '^(CapEff|NoNewPrivs|Seccomp):' "/proc/$(pid)/status"
before=$(fake)
old=$(pid)
systemctl reload sixgate && [ "$(pid)" = "$old" ] && echo reloaded
for _ in $(seq 300); do
  grep -q 2001:db8::1 /var/lib/private/sixgate/names && break
  sleep 0.1
done
kill -KILL "$old"
another "$old" && [ -n "$before" ] && [ "$(fake)" = "$before" ] && echo "killed and back, with its names"
systemctl stop sixgate && echo stopped
nft list ruleset
ip link show sixgate0
mkdir -p /run/systemd/system/sixgate.service.d
printf '[Service]\nWatchdogSec=3s\n' >/run/systemd/system/sixgate.service.d/trial.conf
systemctl daemon-reload
systemctl start sixgate
old=$(pid)
kill -STOP "$old"
another "$old" && echo "hung and back"
systemctl stop sixgate
systemctl is-active sixgate
`

// TestUnit runs the service under a real systemd, within its sandbox.
func TestUnit(t *testing.T) {
	dir := t.TempDir()
	binary, trial := filepath.Join(dir, "sixgate"), filepath.Join(dir, "trial")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the gateway: %v\n%s", err, out)
	}
	if err := os.WriteFile(trial, []byte(unitTrial), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../../scripts/undersystemd", binary, trial)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	out, err := cmd.CombinedOutput()
	got := string(out)
	const cannot = 77
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == cannot {
		t.Skipf("needs a systemd that runs in namespaces: %v, %s", err, got)
	}
	const want = `begun
started
CapEff:	0000000000003400
NoNewPrivs:	1
Seccomp:	2
reloaded
killed and back, with its names
stopped
Device "sixgate0" does not exist.
hung and back
inactive
`
	if err != nil || got != want {
		t.Errorf("%v, the trial went\n%s\nwant\n%s", err, got, want)
	}
}
