package appliance

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sixgate/appliance/config"
)

func TestLacking(t *testing.T) {
	const two = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_BIND_SERVICE
	ordinary, finding, advertising := config.Default(), config.Default(), config.Default()
	finding.Direct.NAT64.Find = true
	advertising.Advertise.Interfaces = []string{"lan0"}
	for _, c := range []struct {
		config *config.Config
		held   uint64
		want   string
	}{
		{ordinary, 0, "CAP_NET_ADMIN and CAP_NET_BIND_SERVICE"},
		{ordinary, 1 << unix.CAP_NET_ADMIN, "CAP_NET_BIND_SERVICE"},
		{ordinary, 1 << unix.CAP_SETFCAP, "CAP_NET_ADMIN and CAP_NET_BIND_SERVICE"},
		{ordinary, two, ""},
		{finding, two, "CAP_NET_RAW"},
		{advertising, two, "CAP_NET_RAW"},
		{advertising, 1<<41 - 1, ""},
	} {
		if got := lacking(c.config, c.held); got != c.want {
			t.Errorf("with %#x: %q, want %q", c.held, got, c.want)
		}
	}
	if got := grant(finding); !strings.Contains(got, "setcap cap_net_admin,cap_net_bind_service,cap_net_raw+ep /") {
		t.Errorf("advised to %s", got)
	}
}
