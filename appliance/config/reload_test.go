package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestClasses has what a reload does with each key: what a new one gets is a
// decision.
func TestClasses(t *testing.T) {
	want := map[string][]string{
		"live": {
			"dns.upstreams", "dns.fake", "dns.bypass", "dns.https", "dns.hosts", "dns.leases",
			"direct.prefer", "direct.filtering", "direct.deny", "direct.allow", "socks.clients",
			"limits.flows", "limits.flows-per-client", "limits.new-names-per-second",
			"limits.dial-timeout", "limits.tcp-idle", "limits.udp-idle", "status.user", "status.password", "log.level",
		},
		"restart": {
			"lan.interfaces", "lan.families", "advertise.interfaces", "advertise.router", "advertise.prefixes",
			"tun.name", "tun.mtu", "tun.handover", "pool.ipv4", "pool.ipv6", "pool.state",
			"dns.listen", "dns.capture", "dns.refuse-dot", "direct.mark", "direct.interface", "direct.nat64", "socks.listen",
			"socks.external", "socks.ports",
			"status.listen", "control.socket", "log.format",
		},
	}
	doc := newDocument("", nil)
	Default().read(doc.open(place{}, map[string]any(nil)))
	got := map[string][]string{}
	for _, s := range doc.settings {
		class := "live"
		if s.fixed {
			class = "restart"
		}
		got[class] = append(got[class], s.place.key)
	}
	for class, keys := range want {
		if got, want := strings.Join(got[class], " "), strings.Join(keys, " "); got != want {
			t.Errorf("%s keys are\n%s\nwant\n%s", class, got, want)
		}
	}
}

// TestReload has files for a gateway that runs with one.
func TestReload(t *testing.T) {
	const first = "[lan]\ninterfaces = ['lan0']\n[tun]\nmtu = 1400\n"
	for name, c := range map[string]struct{ text, want string }{
		"the same":    {first, ""},
		"live keys":   {first + "[dns]\nbypass = ['a.example']\n[[outlet]]\nname = 'no'\ntype = 'reject'\n[[rule]]\noutlet = 'no'\n", ""},
		"written out": {first + "[dns]\nlisten = [':53']\n", ""},
		"restart keys": {"[lan]\ninterfaces = ['lan1']\n[tun]\nmtu = 1500\n",
			"F:2: lan.interfaces: is not what\nF:4: tun.mtu: is not what"},
		"a key that is gone": {"[lan]\ninterfaces = ['lan0']\n[tun]\n", "F:3: tun.mtu: is not what"},
		"all at once":        {first + "name = 'tun9'\n[dns]\nbypas = []\n", "F:5: tun.name: is not what\nF:7: dns.bypas: unknown key"},
		"syntax":             {"[", "F:1: "},
	} {
		t.Run(name, func(t *testing.T) {
			running, err := Parse("", []byte(first))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "F")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Reload(path, running)
			if c.want == "" {
				if err != nil || got == nil {
					t.Errorf("got %v", err)
				}
				return
			}
			var complaints Complaints
			if !errors.As(err, &complaints) {
				t.Fatalf("got %v", err)
			}
			lines := strings.Split(err.Error(), "\n")
			for i, want := range strings.Split(c.want, "\n") {
				if i >= len(lines) || !strings.Contains(lines[i], "/"+want) {
					t.Errorf("got\n%v\nwant\n%s", err, c.want)
				}
			}
		})
	}
}
