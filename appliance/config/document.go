package config

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// place is where in a document a value stands. The zero place is the whole.
type place struct {
	id  string // unique in the document, such as "outlet[1].server"
	key string // as complaints have it, such as "outlet.server"
}

func (p place) child(name string) place {
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" || name == "" {
		name = strconv.Quote(name)
	}
	if p.id == "" {
		return place{name, name}
	}
	return place{p.id + "." + name, p.key + "." + name}
}

// deep reports that no key of a Config is as far inside as p. Ids below would
// take quadratic memory in a file that nests without end.
func (p place) deep() bool { return len(p.id) > 1<<10 }

func (p place) element(i int) place {
	return place{fmt.Sprintf("%s[%d]", p.id, i), p.key}
}

// document is a TOML file that is being read into a Config.
type document struct {
	file   string
	lines  map[string]int       // by place id
	tables map[string]*table    // those that were opened, by place id
	wrong  map[string]Complaint // by place id

	settings []setting // what a Config is made of, in the order of reading
}

// setting is a key that works.
type setting struct {
	place place
	fixed bool // a running gateway keeps it
	value func() any
}

func newDocument(file string, lines map[string]int) *document {
	return &document{file: file, lines: lines, tables: make(map[string]*table), wrong: make(map[string]Complaint)}
}

// complain notes that err is wrong with the value at p. Only the first
// complaint about a value counts. What the document lacks is complained about
// at the line of what should hold it.
func (d *document) complain(p place, err error) {
	if _, twice := d.wrong[p.id]; twice {
		return
	}
	line, id := d.lines[p.id], p.id
	for line == 0 && id != "" {
		id = id[:max(0, strings.LastIndexAny(id, ".["))]
		line = d.lines[id]
	}
	d.wrong[p.id] = Complaint{File: d.file, Line: max(1, line), Key: p.key, Text: err.Error()}
}

// complaints returns all complaints by line, after adding those about the
// keys that nobody asked the opened tables for.
func (d *document) complaints() Complaints {
	for _, t := range d.tables {
		for name := range t.keys {
			if !slices.Contains(*t.known, name) {
				t.complain(name, "unknown key %s", didYouMean(name, *t.known))
			}
		}
	}
	var all Complaints
	for _, c := range d.wrong {
		all = append(all, c)
	}
	all.sort()
	return all
}

// liner finds the line of each value in a document.
type liner struct {
	parser   unstable.Parser
	newlines []int          // offsets, ascending
	lines    map[string]int // of the first mention, by place id
	arrays   map[string]int // number of [[headers]] so far, by place id
}

// keyLines returns the lines, from 1, of all that data mentions: tables, keys
// and, unless they are arrays themselves, elements of arrays. data is TOML
// without errors.
func keyLines(data []byte) (map[string]int, error) {
	l := &liner{lines: make(map[string]int), arrays: make(map[string]int)}
	for i := 0; ; i++ {
		n := bytes.IndexByte(data[i:], '\n')
		if n < 0 {
			break
		}
		i += n
		l.newlines = append(l.newlines, i)
	}
	l.parser.Reset(data)
	var header place
	for l.parser.NextExpression() {
		switch node := l.parser.Expression(); node.Kind {
		case unstable.Table, unstable.ArrayTable:
			header = l.keys(place{}, node)
		default:
			l.value(l.keys(header, node), node.Value())
		}
	}
	return l.lines, l.parser.Error()
}

func (l *liner) mark(p place, raw unstable.Range) {
	if _, marked := l.lines[p.id]; !marked && raw.Length > 0 {
		before, _ := slices.BinarySearch(l.newlines, int(raw.Offset))
		l.lines[p.id] = before + 1
	}
}

// keys marks the key of node, dotted or not, below p and returns its place. A
// part that names an array of tables stands for the last table of it, and an
// [[header]] adds one.
func (l *liner) keys(p place, node *unstable.Node) place {
	for parts := node.Key(); parts.Next() && !p.deep(); {
		part := parts.Node()
		p = p.child(string(part.Data))
		l.mark(p, part.Raw)
		if node.Kind == unstable.ArrayTable && parts.IsLast() {
			l.arrays[p.id]++
		}
		if n := l.arrays[p.id]; n > 0 {
			p = p.element(n - 1)
			l.mark(p, part.Raw)
		}
	}
	return p
}

// value marks what is inside the value at p.
func (l *liner) value(p place, node *unstable.Node) {
	i := 0
	for inner := node.Children(); inner.Next() && !p.deep(); {
		switch child := inner.Node(); node.Kind {
		case unstable.InlineTable:
			l.value(l.keys(p, child), child.Value())
		case unstable.Array:
			element := p.element(i)
			l.mark(element, child.Raw)
			l.value(element, child)
			i++
		}
	}
}
