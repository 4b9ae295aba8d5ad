package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// report is all that the runs have shown. Its exported fields are the JSON
// file.
type report struct {
	Started  time.Time
	Machine  machine
	Versions map[string]string
	LeftOut  map[string]string // contestants, and why
	Runs     []*entry

	contestants []contestant
	scenarios   []scenario
}

// machine is what it ran on.
type machine struct {
	Kernel     string
	Congestion string // of kernel TCP
	Processor  string
	CPUs       int
	MemoryMiB  uint64
}

// entry is one run.
type entry struct {
	Scenario, Contestant string
	Round                int
	Error                string             `json:",omitempty"`
	Figures              map[string]float64 `json:",omitempty"`
	Others               float64            // processors that other programs kept busy meanwhile
}

// newReport prepares the contestants. Those that cannot take part it names
// with the reason.
func (b *bench) newReport(ctx context.Context) (*report, error) {
	r := &report{Started: time.Now(), Versions: map[string]string{"go": runtime.Version()}, LeftOut: map[string]string{}, scenarios: b.scenarios}
	var err error
	if r.Machine, err = thisMachine(); err != nil {
		return nil, err
	}
	if b.congestion != "" {
		r.Machine.Congestion = b.congestion
	}
	for _, c := range b.contestants {
		if c.prepare != nil {
			fmt.Fprintf(os.Stderr, "preparing %s\n", c.name)
			if err := c.prepare(ctx); err != nil {
				r.LeftOut[c.name] = err.Error()
				fmt.Fprintf(os.Stderr, "%s is left out: %v\n", c.name, err)
				continue
			}
		}
		r.contestants = append(r.contestants, c)
		r.Versions[c.name] = c.about
	}
	if version, err := exec.CommandContext(ctx, b.sixgate, "version").Output(); err == nil {
		r.Versions["sixgate"] += "; " + strings.Join(strings.Fields(string(version)), " ")
	}
	return r, nil
}

func thisMachine() (machine, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return machine{}, fmt.Errorf("asking the kernel for its version: %w", err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return machine{}, fmt.Errorf("asking the kernel for the memory: %w", err)
	}
	m := machine{
		Kernel:    unix.ByteSliceToString(name.Release[:]),
		CPUs:      runtime.NumCPU(),
		MemoryMiB: uint64(info.Totalram) * uint64(info.Unit) >> 20,
	}
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return m, err
	}
	m.Congestion = strings.TrimSpace(string(text))
	if text, err = os.ReadFile("/proc/cpuinfo"); err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			m.Processor = strings.TrimSpace(value)
		}
	}
	return m, nil
}

// add notes a run that ended with r or err.
func (r *report) add(s scenario, c contestant, round int, got reading, err error) *entry {
	e := &entry{Scenario: s.name, Contestant: c.name, Round: round}
	r.Runs = append(r.Runs, e)
	if err != nil {
		e.Error = err.Error()
		return e
	}
	e.Others = got.others()
	e.Figures = map[string]float64{}
	for _, m := range s.table.measures {
		if x := m.of(got); !math.IsNaN(x) && !math.IsInf(x, 0) {
			e.Figures[m.name] = x
		}
	}
	return e
}

func (e *entry) String() string {
	if e.Error != "" {
		return "went wrong: " + e.Error
	}
	var parts []string
	for name, x := range e.Figures {
		parts = append(parts, name+" "+figure(x))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// write writes the JSON file.
func (r *report) write(name string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the figures as JSON: %w", err)
	}
	return os.WriteFile(name, append(text, '\n'), 0o644)
}

// print writes a Markdown table for each kind of scenario.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "%s, %d CPUs, %d MiB, Linux %s with %s; %s\n",
		r.Machine.Processor, r.Machine.CPUs, r.Machine.MemoryMiB, r.Machine.Kernel, r.Machine.Congestion, r.Started.Format(time.DateOnly))
	fmt.Fprintf(out, "Each figure: median (least-most), beside it how it stands to the splice relay or to the kernel.\n")
	var seen []*table
	for _, s := range r.scenarios {
		if !slices.Contains(seen, s.table) {
			seen = append(seen, s.table)
			fmt.Fprintf(out, "\n%s\n\n%s", s.table.title, r.markdown(s.table))
		}
	}
	fmt.Fprint(out, r.troubles())
}

// troubles says which runs went wrong, and how disturbed the others were.
func (r *report) troubles() string {
	var out strings.Builder
	for name, why := range r.LeftOut {
		fmt.Fprintf(&out, "\n%s was left out: %s\n", name, why)
	}
	for _, s := range r.scenarios {
		for _, c := range r.contestants {
			var wrong []string
			for _, e := range r.Runs {
				if e.Error != "" && e.Scenario == s.name && e.Contestant == c.name {
					wrong = append(wrong, e.Error)
				}
			}
			if len(wrong) > 0 {
				fmt.Fprintf(&out, "\n%s, %s: %d runs went wrong, the last by %s\n", s.name, c.name, len(wrong), wrong[len(wrong)-1])
			}
		}
	}
	var worst float64
	for _, e := range r.Runs {
		worst = max(worst, e.Others)
	}
	fmt.Fprintf(&out, "\nOther programs kept up to %.1f processors busy during a run.\n", worst)
	return out.String()
}

// markdown is one of the tables.
func (r *report) markdown(t *table) string {
	head := []string{"scenario", "contestant"}
	for _, m := range t.measures {
		head = append(head, m.name)
		if m.beside != nothing {
			head = append(head, string(m.beside))
		}
	}
	rows := [][]string{head}
	for _, s := range r.scenarios {
		if s.table != t {
			continue
		}
		for _, c := range r.contestants {
			row := []string{s.name, c.name}
			for _, m := range t.measures {
				row = append(row, r.cells(s, c, m)...)
			}
			rows = append(rows, row)
		}
	}
	return align(rows)
}

// cells is what a table says about one measure of one contestant.
func (r *report) cells(s scenario, c contestant, m measure) []string {
	mine, ok := r.spread(s.name, c.name, m.name)
	cells := []string{"-"}
	if ok {
		cells[0] = mine.String()
	}
	base, other := "-", map[beside]string{timesSplice: "splice", overKernel: "kernel"}[m.beside]
	if theirs, found := r.spread(s.name, other, m.name); ok && found {
		switch {
		case m.beside == overKernel:
			base = figure(mine.Median - theirs.Median)
		case theirs.Median > 0:
			base = figure(mine.Median / theirs.Median)
		}
	}
	if m.beside != nothing {
		cells = append(cells, base)
	}
	return cells
}

func (r *report) spread(scenario, contestant, measure string) (spread, bool) {
	var values []float64
	for _, e := range r.Runs {
		if x, ok := e.Figures[measure]; ok && e.Scenario == scenario && e.Contestant == contestant {
			values = append(values, x)
		}
	}
	return spreadOf(values)
}

func (s spread) String() string {
	if s.Min == s.Max {
		return figure(s.Median)
	}
	return fmt.Sprintf("%s (%s-%s)", figure(s.Median), figure(s.Min), figure(s.Max))
}

// figure writes a number with the digits that mean something.
func figure(x float64) string {
	switch size := math.Abs(x); {
	case size >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case size >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case size == 0:
		return "0"
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}

// align writes rows, the first of which is the head, as Markdown in even
// columns.
func align(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for i, row := range rows {
		for j, cell := range row {
			fmt.Fprintf(&out, "| %-*s ", widths[j], cell)
		}
		out.WriteString("|\n")
		if i == 0 {
			for _, width := range widths {
				out.WriteString("|" + strings.Repeat("-", width+2))
			}
			out.WriteString("|\n")
		}
	}
	return out.String()
}
