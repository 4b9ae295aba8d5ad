package appliance

import (
	"strings"
	"testing"
	"time"
)

func TestStatusHTML(t *testing.T) {
	s := Status{Version: "<b>1", Started: time.Unix(1000, 0), Uplink: "IPv4 & IPv6"}
	s.Flows.Joined = map[string]uint64{"A": 0, "B": 12}
	s.Flows.Down = 1234567
	s.Resolvers = []Resolver{{Server: "udp://192.0.2.1:53", Down: true, Error: "<script>alert(1)</script>"}}
	s.Hops = []Hop{{Outlet: "far", Server: "gw2.example:1080", Asked: 7, NoUDP: true}}
	got := statusHTML(s, time.Unix(1090, 0), "")
	for _, want := range []string{
		"<span>&lt;b&gt;1</span>", "up for 1m30s", "IPv4 &amp; IPv6", `id="flows" data-count="12"`,
		"<th>type B</th> <td>12</td>", "1.2 MB", `class="down"><th>udp://192.0.2.1:53</th>`,
		"&lt;script&gt;alert(1)&lt;/script&gt;",
		"<th>far: gw2.example:1080</th> <td>up, without UDP</td> <td>7 asked, 0 failed</td>",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, never := range []string{"<script", "type A"} {
		if strings.Contains(got, never) {
			t.Errorf("%q in\n%s", never, got)
		}
	}
}
