package upstream

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"
)

func TestResolvConf(t *testing.T) {
	path := t.TempDir() + "/resolv.conf"
	clock := newClock()
	servers := ResolvConf(path, clock.now)
	if _, err := servers(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	for _, step := range []struct {
		text, want string
		later      time.Duration
	}{
		{"# no one\nsearch example\nnameserver\nnameserver x", "[] " + ErrNoServer.Error(), time.Second},
		{"nameserver 192.0.2.53\n  nameserver fe80::1%eth0 # router\n", "[udp://192.0.2.53:53 udp://[fe80::1%eth0]:53]", time.Second},
		{"nameserver 2001:db8::53", "[udp://192.0.2.53:53 udp://[fe80::1%eth0]:53]", time.Second / 2},
		{"nameserver 2001:db8::53", "[udp://[2001:db8::53]:53]", time.Second},
	} {
		if err := os.WriteFile(path, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		clock.add(step.later)
		list, err := servers()
		got := fmt.Sprint(list)
		if errors.Is(err, ErrNoServer) {
			got += " " + ErrNoServer.Error()
		}
		if got != step.want {
			t.Errorf("%q: %s, want %s", step.text, got, step.want)
		}
	}
}
