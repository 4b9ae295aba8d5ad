package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testHTTP3 has a client of HTTP/3 reach a server of the other family, over a
// path that takes less than the client's own network: QUIC lets nobody cut its
// packets, and is told what fits.
func testHTTP3(t *testing.T, n *namespaces) {
	program := filepath.Join(n.dir, "http3")
	const source = "../../scripts/http3"
	if out, err := exec.Command("go", "-C", source, "list", "-deps", ".").CombinedOutput(); err != nil {
		t.Skipf("needs the modules of scripts/http3: %v\n%s", err, out)
	}
	if out, err := exec.Command("go", "build", "-C", source, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	for _, at := range []string{"203.0.113.80:443", "[2001:db8:99::80]:443"} {
		if err := n.background(t, "world", at, program, "serve", at); err != nil {
			t.Fatal(err)
		}
	}
	n.run(t, "gate", "ip", "link", "set", "wan0", "mtu", "1400")
	defer n.run(t, "gate", "ip", "link", "set", "wan0", "mtu", "1500")
	cut := "awk '/^Ip6FragCreates|^Ip6ReasmReqds/ {print}' /proc/net/snmp6; awk '/^Ip:/ {print $14, $17, $19}' /proc/net/snmp"
	before := n.shell(t, "gate", cut) + n.shell(t, "world", cut)
	for _, c := range []struct{ typ, client, qtype, name, mtu string }{
		{"B", "lan", "A", "v6only.test", "mtu 1380"}, // an IPv6 header is 20 bytes longer
		{"C", "lan6", "AAAA", "v4only.test", "mtu 1420"},
	} {
		t.Run(c.typ, func(t *testing.T) {
			fake := n.resolve(t, c.client, c.name, c.qtype).String()
			for deadline := time.Now().Add(patience); ; {
				if got := n.run(t, c.client, program, "post", "https://"+c.name+"/"); got != "HTTP/3.0 brought them back\n" {
					t.Errorf("the client said %q", got)
				}
				route := n.run(t, c.client, "ip", "route", "get", fake)
				if strings.Contains(route, c.mtu) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("the client was not told of the path: %s", route)
				}
			}
		})
	}
	if after := n.shell(t, "gate", cut) + n.shell(t, "world", cut); after != before {
		t.Errorf("packets were cut: before\n%safter\n%s", before, after)
	}
}
