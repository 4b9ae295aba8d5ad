package appliance

import (
	_ "embed"
	"fmt"
	"html"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
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
		explained = a.explainedHTML(r, target)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "+
		"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	head, tail, _ := strings.Cut(pageHTML, "BODY\n")
	_, err := fmt.Fprint(w, head, statusHTML(a.Status(), time.Now(), explained), tail)
	a.logWriting(err)
}

func (a *Appliance) explainedHTML(r *http.Request, target string) string {
	client, err := a.asClient(r.FormValue("client"))
	var e *Explanation
	if err == nil {
		e, err = a.Explain(r.Context(), target, client)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<section><h2>%s</h2>\n", html.EscapeString(target))
	if err != nil {
		fmt.Fprintf(&b, "<p class=\"down\">%s</p>\n", html.EscapeString(err.Error()))
	} else {
		b.WriteString("<ol>\n")
		for _, step := range e.Steps {
			fmt.Fprintf(&b, "<li>%s</li>\n", html.EscapeString(step))
		}
		b.WriteString("</ol>\n")
	}
	b.WriteString("</section>\n")
	return b.String()
}

// statusHTML is s as it is at now, with an answer to the form.
func statusHTML(s Status, now time.Time, explained string) string {
	p := &page{}
	p.printf("<header><h1>sixgate</h1><span>%s</span><span>up for %v</span></header>\n",
		s.Version, now.Sub(s.Started).Round(time.Second))
	p.WriteString("<form><input name=\"explain\" placeholder=\"a name or an address\" aria-label=\"a name or an address\" required> <button>Explain</button></form>\n")
	p.WriteString(explained)
	p.WriteString("<main>\n")
	p.section("Flows", "flows", sum(s.Flows.Joined), fmt.Sprintf("%d live", s.Flows.Live), counted(s.Flows.Joined, "type "))
	p.section("Refused", "refused", sum(s.Flows.Refused), fmt.Sprintf("%d ever", sum(s.Flows.Refused)), counted(s.Flows.Refused, ""))
	p.section("Traffic", "bytes", s.Flows.Up+s.Flows.Down, "", []row{
		{"up, from clients", octets(s.Flows.Up)}, {"down, to clients", octets(s.Flows.Down)},
	})
	p.section("DNS answers", "dns", sum(s.DNS), fmt.Sprintf("%d ever", sum(s.DNS)), counted(s.DNS, ""))
	p.section("Names", "", 0, fmt.Sprintf("%d mapped", s.Names.Mapped), []row{
		{"room", fmt.Sprint(s.Names.Room)}, {"used", fmt.Sprintf("%.1f %%", 100*float64(s.Names.Mapped)/float64(max(1, s.Names.Room)))},
	})
	p.section("Network", "", 0, "", []row{{"uplink", s.Uplink}, {"lan", s.LAN}, {"handover", s.Handover}})
	p.resolvers(s.Resolvers)
	p.hops(s.Hops)
	p.WriteString("</main>\n")
	return p.String()
}

// page is HTML that grows; what printf puts in is escaped.
type page struct{ strings.Builder }

func (p *page) printf(format string, args ...any) {
	for i, arg := range args {
		args[i] = html.EscapeString(fmt.Sprint(arg))
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

func (p *page) resolvers(all []Resolver) {
	p.WriteString("<section class=\"wide\"><h2>Resolvers</h2>\n<table>\n")
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
	p.WriteString("</table></section>\n")
}

// hops appends nothing where there is no outlet with a server.
func (p *page) hops(all []Hop) {
	if len(all) == 0 {
		return
	}
	p.WriteString("<section class=\"wide\"><h2>Outlets</h2>\n<table>\n")
	for _, h := range all {
		p.server(h.Down, h.Outlet+": "+h.Server, h.State(), h.Asked, h.Failed)
	}
	p.WriteString("</table></section>\n")
}

// server appends how a server does, as a row of a table.
func (p *page) server(down bool, name, state string, asked, failed uint64) {
	class := ""
	if down {
		class = "down"
	}
	p.printf("<tr class=\"%s\"><th>%s</th> <td>%s</td> <td>%s asked, %s failed</td></tr>\n", class, name, state, asked, failed)
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
