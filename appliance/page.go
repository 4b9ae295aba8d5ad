package appliance

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sixgate/appliance/sight"
	"sixgate/socks/gateway"
)

// pageHTML is the frame of the status page; BODY is where writePage's part goes.
//
//go:embed page.html
var pageHTML string

// servePage shows how the gateway is, to people: plain HTML that a text
// browser can read, which a script keeps fresh. ?explain=NAME explains.
func (a *Appliance) servePage(w http.ResponseWriter, r *http.Request) {
	var explained string
	if target := strings.TrimSpace(r.FormValue("explain")); target != "" {
		// To explain is to ask DNS: no page of another site makes us do it.
		if from := r.Header.Get("Sec-Fetch-Site"); from != "" && from != "same-origin" && from != "none" {
			http.Error(w, "ask from the page itself", http.StatusForbidden)
			return
		}
		explained = a.explainedHTML(r, target)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", contentPolicy(pageHTML))
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	head, tail, _ := strings.Cut(pageHTML, "BODY\n")
	now, live := time.Now(), a.parts.gateway.Flows()
	clients := a.parts.sight.Clients(live)
	shown := latest(live, clients[:min(len(clients), maxClientsShown)], now)
	_, err := fmt.Fprint(w, head, statusHTML(a.Status(), clients, shown, now, explained), tail)
	a.logWriting(err)
}

// contentPolicy lets a browser take from the page its own style and script, and
// nothing that a name in it could smuggle in.
func contentPolicy(page string) string {
	hash := func(tag string) string {
		_, inside, _ := strings.Cut(page, "<"+tag+">")
		inside, _, _ = strings.Cut(inside, "</"+tag+">")
		sum := sha256.Sum256([]byte(inside))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; style-src " + hash("style") + "; script-src " + hash("script") +
		"; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}

func (a *Appliance) explainedHTML(r *http.Request, target string) string {
	client, err := a.asClient(r.FormValue("client"))
	var e *Explanation
	if err == nil {
		e, err = a.Explain(r.Context(), target, client)
	}
	p := &page{}
	p.printf("<section><h2>%s</h2>\n", target)
	if err != nil {
		p.printf("<p class=\"down\">%s</p>\n", err)
	} else {
		p.WriteString("<ol>\n")
		for _, step := range e.Steps {
			p.printf("<li>%s</li>\n", step)
		}
		p.WriteString("</ol>\n")
	}
	p.WriteString("</section>\n")
	return p.String()
}

// statusHTML is s as it is at now, with the clients and their latest flows, and an
// answer to the form.
func statusHTML(s Status, clients []Client, flows map[netip.Addr][]Flow, now time.Time, explained string) string {
	p := &page{}
	p.printf("<header><h1>sixgate</h1> <span>%s</span> <span>up for %v</span> <span>uplink %s</span> <span>%s</span></header>\n",
		s.Version, age(now, s.Started), s.Uplink, s.LAN)
	p.WriteString("<form><input name=\"explain\" placeholder=\"a name or an address\" aria-label=\"a name or an address\" required>\n" +
		"<input name=\"client\" placeholder=\"for the client (its address)\" aria-label=\"for the client\"> <button>Explain</button></form>\n")
	p.WriteString(explained)
	p.WriteString("<main>\n")
	p.section("Flows", "flows", sum(s.Flows.Joined), fmt.Sprintf("%d live", s.Flows.Live), counted(s.Flows.Joined, "type "))
	p.section("Traffic", "bytes", s.Flows.Up+s.Flows.Down, octets(s.Flows.Up+s.Flows.Down), []row{
		{"up, from clients", octets(s.Flows.Up)}, {"down, to clients", octets(s.Flows.Down)},
	})
	p.section("DNS answers", "dns", sum(s.DNS), fmt.Sprint(sum(s.DNS)), append(dnsKinds(s.DNS), quantiles("answered", s.Answers)...))
	p.section("Dials that failed", "refused", sum(failures(s.Dials)), fmt.Sprint(sum(failures(s.Dials))),
		append(counted(failures(s.Dials), ""), quantiles("connected", s.Connects)...))
	p.section("Dropped", "drops", sum(s.Drops), fmt.Sprint(sum(s.Drops)), counted(s.Drops, ""))
	p.names(s.Names)
	p.resolvers(s.Resolvers)
	p.hops(s.Hops)
	p.translated(s)
	p.clients(clients, flows, now)
	p.section("Machine", "", 0, "", []row{
		{"configuration", cmp.Or(s.Config, "none: the defaults")}, {"in force for", age(now, s.Loaded).String()},
		{"handover to the kernel", s.Handover}, {"open files", fmt.Sprintf("%d of %d", s.Files.Open, s.Files.Limit)},
	})
	p.WriteString("</main>\n")
	return p.String()
}

func age(now, then time.Time) time.Duration { return now.Sub(then).Round(time.Second) }

// failures returns how often dials failed, by reason.
func failures(dials []DialCount) map[string]uint64 {
	failed := map[string]uint64{}
	for _, d := range dials {
		if d.Result != sight.Connected {
			failed[d.Result] += d.Count
		}
	}
	return failed
}

// dnsKinds lists the answers of the DNS server in words for people.
func dnsKinds(counts map[string]uint64) (rows []row) {
	words := map[string]string{"no_data": "no such address", "nx_domain": "no such name", "serv_fail": "no answer", "real": "the real address"}
	for _, r := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[r]; n > 0 {
			rows = append(rows, row{cmp.Or(words[r], strings.ReplaceAll(r, "_", " ")), fmt.Sprint(n)})
		}
	}
	return rows
}

// quantiles tells how long half of all took until done, and nearly all.
func quantiles(done string, d sight.Distribution) (rows []row) {
	for _, q := range []struct {
		label string
		part  float64
	}{{"half " + done + " within", 0.5}, {"99 of 100 within", 0.99}} {
		if seconds, ok := d.Quantile(q.part); ok {
			rows = append(rows, row{q.label, time.Duration(seconds * float64(time.Second)).String()})
		}
	}
	return rows
}

// page is HTML that grows; what printf puts in is visible, and escaped.
type page struct{ strings.Builder }

func (p *page) printf(format string, args ...any) {
	for i, arg := range args {
		args[i] = html.EscapeString(Visible(fmt.Sprint(arg)))
	}
	fmt.Fprintf(p, strings.ReplaceAll(format, "%v", "%s"), args...)
}

// row is a line of a section's table.
type row struct{ label, value string }

// section appends a box; one with an id has a line drawn of its count's rate.
func (p *page) section(title, id string, count uint64, big string, rows []row) {
	p.printf("<section><h2>%s</h2>\n", title)
	if big != "" {
		p.printf("<div class=\"big\">%s</div>\n", big)
	}
	if id != "" {
		p.printf("<div id=\"%s\" data-count=\"%s\"></div>\n", id, count)
	}
	p.WriteString("<table>\n")
	for _, r := range rows {
		p.printf("<tr><th>%s</th> <td>%s</td></tr>\n", r.label, r.value)
	}
	p.WriteString("</table></section>\n")
}

// names tells how full the pool is.
func (p *page) names(n Names) {
	used := 100 * float64(n.Mapped) / float64(max(1, n.Room))
	p.printf("<section><h2>Names</h2>\n<div class=\"big\">%s mapped</div>\n", n.Mapped)
	p.printf("<meter min=\"0\" max=\"100\" high=\"80\" value=\"%s\">%s %%</meter>\n", fmt.Sprintf("%.2f", used), fmt.Sprintf("%.2f", used))
	p.printf("<table>\n<tr><th>of the pool</th> <td>%s %%</td></tr>\n<tr><th>room</th> <td>%s</td></tr>\n</table></section>\n",
		fmt.Sprintf("%.2f", used), n.Room)
}

// maxClientsShown is as much as people scroll through; `sixgate clients` has all.
const maxClientsShown = 50

// maxFlowsShown of each; `sixgate flows` has all.
const maxFlowsShown = 20

// latest returns the flows of these clients that are shown, the latest first. Of
// very many others it makes nothing.
func latest(live []gateway.Flow, clients []Client, now time.Time) map[netip.Addr][]Flow {
	found := map[netip.Addr][]gateway.Flow{}
	for _, c := range clients {
		found[c.Addr] = make([]gateway.Flow, 0, maxFlowsShown+1)
	}
	for _, f := range live {
		addr := f.Client.Addr().Unmap().WithZone("")
		of, ok := found[addr]
		if !ok || len(of) == maxFlowsShown && earlier(f, of[len(of)-1]) < 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(of, f, func(a, b gateway.Flow) int { return earlier(b, a) })
		of = slices.Insert(of, at, f)
		found[addr] = of[:min(len(of), maxFlowsShown)]
	}
	shown := map[netip.Addr][]Flow{}
	for addr, of := range found {
		for _, f := range of {
			shown[addr] = append(shown[addr], newFlow(f, now))
		}
	}
	return shown
}

// clients lists what the clients met, the last to be seen first, and their latest
// flows.
func (p *page) clients(all []Client, flows map[netip.Addr][]Flow, now time.Time) {
	p.printf("<section class=\"wide\"><h2>Clients</h2>\n")
	for _, c := range all[:min(len(all), maxClientsShown)] {
		class := ""
		if len(c.Failures) > 0 {
			class = "down"
		}
		p.printf("<details id=\"c%s\"><summary><b>%s</b> <span>%s live</span> <span>%s</span> <span class=\"%s\">%s failed</span> <span>%s ago</span></summary>\n",
			c.Addr, c.Addr, c.Live, octets(c.Up+c.Down), class, c.Failed, age(now, c.Seen))
		p.printf("<p>%s up, %s down; flows ever: %s</p>\n", octets(c.Up), octets(c.Down), types(c.Joined))
		if len(c.Names) > 0 {
			p.printf("<p>reached %s</p>\n", strings.Join(c.Names, ", "))
		}
		for _, f := range c.Failures {
			p.printf("<p class=\"down\">%s</p>\n", f.Tell(now))
		}
		p.flows(flows[c.Addr], c.Live)
		p.WriteString("</details>\n")
	}
	if more := len(all) - maxClientsShown; more > 0 {
		p.printf("<p>%s more: sixgate clients</p>\n", more)
	}
	p.WriteString("</section>\n")
}

// flows lists those of a client's flows that are shown of so many.
func (p *page) flows(shown []Flow, live int) {
	for _, f := range shown {
		state := "connecting"
		if f.Type != "" {
			state = "type " + f.Type
		}
		p.printf("<p><b>%s %s</b> <span>%s</span> <span>%s up, %s down</span> <span>by %s</span> <span>for %s</span></p>\n",
			f.Network, cmp.Or(f.Real, f.Asked), state, octets(uint64(f.Up)), octets(uint64(f.Down)),
			outletName(f.Outlet), (time.Duration(f.Age) * time.Second).String())
	}
	if more := live - len(shown); more > 0 {
		p.printf("<p>%s more: sixgate flows</p>\n", more)
	}
}

// types lists counts by type.
func types(joined map[string]uint64) string {
	var parts []string
	for _, t := range slices.Sorted(maps.Keys(joined)) {
		parts = append(parts, fmt.Sprintf("%d of type %s", joined[t], t))
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

func (p *page) resolvers(all []Resolver) {
	p.WriteString("<section class=\"wide\"><h2>Resolvers</h2>\n")
	for _, r := range all {
		state := fmt.Sprintf("%.1f ms", r.RTT*1000)
		switch {
		case r.Down:
			state = "down"
		case r.RTT == 0:
			state = "not heard yet"
		}
		if r.Error != "" {
			state += ", " + r.Error
		}
		p.server(r.Down, r.Server, state, r.Asked, r.Failed)
	}
	p.WriteString("</section>\n")
}

// hops appends nothing where there is no outlet with a server.
func (p *page) hops(all []Hop) {
	if len(all) == 0 {
		return
	}
	p.WriteString("<section class=\"wide\"><h2>Outlets</h2>\n")
	for _, h := range all {
		p.server(h.Down, h.Outlet+": "+h.Server, h.State(), h.Asked, h.Failed)
	}
	p.WriteString("</section>\n")
}

// translated appends what IPv6 does for IPv4, on either side, if anything.
func (p *page) translated(s Status) {
	if s.NAT64 == "" && len(s.Advertised) == 0 {
		return
	}
	p.WriteString("<section class=\"wide\"><h2>IPv6 alone</h2>\n")
	if s.NAT64 != "" {
		p.printf("<p class=\"server\"><b>uplink</b> <span>IPv4 through the NAT64</span> %s</p>\n", s.NAT64)
	}
	for _, a := range s.Advertised {
		p.printf("<p class=\"server\"><b>%s</b> <span>%s advertised, %s asked for</span> %s</p>\n", a.Interface, a.Sent, a.Solicited, a.What)
	}
	p.WriteString("</section>\n")
}

// server appends how a server does, as a line that may be long.
func (p *page) server(down bool, name, state string, asked, failed uint64) {
	class := ""
	if down {
		class = " down"
	}
	p.printf("<p class=\"server%s\"><b>%s</b> <span>%s asked, %s failed</span> %s</p>\n", class, name, asked, failed, state)
}

// counted lists what is not zero, by the words of its key.
func counted(counts map[string]uint64, prefix string) []row {
	var rows []row
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[key]; n > 0 {
			rows = append(rows, row{prefix + strings.ReplaceAll(key, "_", " "), fmt.Sprint(n)})
		}
	}
	return rows
}

func sum(counts map[string]uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// octets is n in a unit of the size that people read.
func octets(n uint64) string {
	const units = "kMGTPE"
	f, unit := float64(n), ""
	for i := 0; f >= 1000 && i < len(units); i++ {
		f, unit = f/1000, units[i:i+1]
	}
	if unit == "" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %sB", f, unit)
}
