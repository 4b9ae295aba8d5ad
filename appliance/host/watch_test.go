package host

import (
	"context"
	"os/exec"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	ns := enter(t)
	sh(t, "ip link add lan0 type veth peer name far0")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	told := make(chan struct{})
	wait := func(what string) {
		select {
		case <-told:
		case <-ctx.Done():
			t.Errorf("nothing was told of %s", what)
		}
		for quiet := false; !quiet; { // the rest of a burst is nothing of the next
			select {
			case <-told:
			case <-time.After(4 * settle):
				quiet = true
			}
		}
	}
	go func() {
		defer cancel()
		wait("the beginning")
		for _, change := range []string{
			"ip link set lan0 up",
			"ip address add 192.168.77.1/24 dev lan0",
			"ip route add default via 192.168.77.254",
			"ip rule add from 192.0.2.9 lookup 77",
			"nft add table inet other",
			"nft flush ruleset",
		} {
			in := exec.Command("nsenter", "--net="+ns.String(), "sh", "-c", change)
			if out, err := in.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", change, err, out)
			}
			wait(change)
		}
	}()
	// Watch listens where its thread is, and this one is in the namespace.
	err := Watch(ctx, func() {
		select {
		case told <- struct{}{}:
		case <-ctx.Done():
		}
	})
	if err != nil {
		t.Error(err)
	}
}
