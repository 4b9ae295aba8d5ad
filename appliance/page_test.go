package appliance

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixgate/socks"
	"sixgate/socks/gateway"
)

func TestStatusHTML(t *testing.T) {
	s := Status{Version: "<b>1", Started: time.Unix(1000, 0), Uplink: "IPv4 & IPv6"}
	s.Flows.Joined = map[string]uint64{"A": 0, "B": 12}
	s.Flows.Down = 1234567
	s.Resolvers = []Resolver{{Server: "udp://192.0.2.1:53", Down: true, Error: "\x1b[2J<script>alert(1)</script>"}}
	s.Hops = []Hop{{Outlet: "far", Server: "gw2.example:1080", Asked: 7, NoUDP: true}}
	s.NAT64 = "64:ff9b::/96: " + byRouter
	s.Advertised = []Advertised{{Interface: "lan6", What: "DNS fd00:77::1", Sent: 3, Solicited: 4}}
	s.Dials = []DialCount{{"direct", "connected", 5}, {"direct", "connection refused", 2}, {"far", "connection refused", 1}}
	clients := []Client{{
		Addr: netip.MustParseAddr("192.168.77.20"), Seen: time.Unix(1080, 0), Failed: 2, Joined: map[string]uint64{"B": 3},
		Names:    []string{"a.example"},
		Failures: []Failure{{What: "tcp <i>:80", Why: "refused", Times: 2, Last: time.Unix(1085, 0)}},
	}}
	var live []gateway.Flow
	for i := range maxFlowsShown + 1 {
		live = append(live, gateway.Flow{
			Session: gateway.Session{Network: "tcp", Client: netip.MustParseAddrPort("[::ffff:192.168.77.20]:40000")},
			Real:    socks.Addr{Name: fmt.Sprintf("f%d.example", i), Port: 443},
			Type:    gateway.B, Up: 10, Down: 2000, Started: time.Unix(1025, int64(i)),
		})
	}
	rand.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
	clients[0].Live = len(live)
	now := time.Unix(1090, 100)
	got := statusHTML(s, clients, latest(live, clients, now), now, "")
	for _, want := range []string{
		"<span>&lt;b&gt;1</span>", "up for 1m30s", "IPv4 &amp; IPv6", `id="flows" data-count="12"`,
		"<th>type B</th> <td>12</td>", "1.2 MB", `class="server down"><b>udp://192.0.2.1:53</b>`,
		"�[2J&lt;script&gt;alert(1)&lt;/script&gt;",
		"<th>connection refused</th> <td>3</td>", "<b>192.168.77.20</b>", "3 of type B", "reached a.example",
		"tcp &lt;i&gt;:80, 2 times, last 5s ago: refused",
		"</span> 64:ff9b::/96: its router advertises it</p>", "<b>lan6</b> <span>3 advertised, 4 asked for</span> DNS fd00:77::1</p>",
		"<b>tcp f20.example:443</b> <span>type B</span> <span>10 B up, 2.0 kB down</span> <span>by direct</span> <span>for 1m5s</span>",
		"<b>tcp f1.example:443</b>", "<p>1 more: sixgate flows</p>",
		"<b>far: gw2.example:1080</b> <span>7 asked, 0 failed</span> up, without UDP",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, never := range []string{"<script", "type A", "f0.example"} {
		if strings.Contains(got, never) {
			t.Errorf("%q in\n%s", never, got)
		}
	}
}

// TestPage fetches the page, with and without a password, and as other sites'
// pages would.
func TestPage(t *testing.T) {
	b := newBox(t, newWorld(t), nil)
	a := &Appliance{parts: b.parts}
	get := func(path string, change func(*http.Request)) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "127.0.0.1:8064"
		if change != nil {
			change(r)
		}
		w := httptest.NewRecorder()
		a.statusRoutes().ServeHTTP(w, r)
		return w
	}
	w := get("/", nil)
	policy := w.Header().Get("Content-Security-Policy")
	if w.Code != 200 || !strings.Contains(policy, "script-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("status %d, policy %q", w.Code, policy)
	}
	crossSite := func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }
	if got := get("/?explain=v6only.test", crossSite).Code; got != 403 {
		t.Errorf("another site's page gets %d", got)
	}
	if got := get("/?explain=v6only.test", nil).Body.String(); !strings.Contains(got, "a connection of type") {
		t.Errorf("explained as\n%s", got)
	}
	c := *b.config
	c.Status.User = "admin"
	var err error
	if c.Status.Password, err = socks.ParsePassword("secret"); err != nil {
		t.Fatal(err)
	}
	if err := b.parts.adopt(&c); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, name, password string
		want                 int
	}{
		{"/", "", "", 401}, {"/metrics", "", "", 401}, {"/healthz", "", "", 200},
		{"/", "admin", "wrong", 401}, {"/", "nobody", "secret", 401}, {"/", "admin", "secret", 200}, {"/metrics", "admin", "secret", 200},
	} {
		w := get(tt.path, func(r *http.Request) {
			if tt.name != "" {
				r.SetBasicAuth(tt.name, tt.password)
			}
		})
		if w.Code != tt.want || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s as %q with %q: %d, want %d", tt.path, tt.name, tt.password, w.Code, tt.want)
		}
	}
}
