package config

import (
	"errors"
	"fmt"
	"slices"
)

// table is a table of a document that remembers which keys it was asked for.
type table struct {
	doc   *document
	place place
	keys  map[string]any // as the TOML decoder has them; nil when the document has no such table
	known *[]string

	fixed bool // its keys are of those that a running gateway keeps
}

// atStart returns t, to name keys in that take a restart: what has been made of
// them cannot become another without dropping flows. All other keys are live.
func (t *table) atStart() *table {
	fixed := *t
	fixed.fixed = true
	return &fixed
}

// scalar is what TOML values become before they are parsed.
type scalar interface{ string | int64 | bool }

// key parses the value of a key into dst, which keeps its value when the key
// is not given or wrong.
func key[R scalar, T any](t *table, name string, dst *T, parse func(R) (T, error)) {
	t.note(name, func() any { return *dst })
	if raw, given := t.take(name); given {
		value, err := convert(raw, parse)
		if err != nil {
			t.doc.complain(t.place.child(name), err)
			return
		}
		*dst = value
	}
}

// list is key for an array. The elements of dst and of the array have the same
// indexes; wrong ones are zero.
func list[R scalar, T comparable](t *table, name string, dst *[]T, parse func(R) (T, error)) {
	t.note(name, func() any { return *dst })
	raw, given := t.take(name)
	if !given {
		return
	}
	array, ok := raw.([]any)
	if !ok {
		t.complain(name, "want an array, got %s", kind(raw))
		return
	}
	*dst = nil
	seen := make(map[T]bool)
	for i, raw := range array {
		value, err := convert(raw, parse)
		if err == nil && seen[value] {
			err = fmt.Errorf("%#v is given twice (delete one)", raw)
		}
		if err != nil {
			t.doc.complain(t.place.child(name).element(i), err)
		}
		*dst = append(*dst, value)
		seen[value] = err == nil
	}
}

// refuse knows a key without function: any value but those that ask for
// nothing is wrong.
func refuse[R scalar](t *table, name string, nothing ...R) {
	key(t, name, new(R), func(value R) (R, error) {
		if !slices.Contains(nothing, value) {
			return value, errNotYet
		}
		return value, nil
	})
}

func convert[R scalar, T any](raw any, parse func(R) (T, error)) (value T, err error) {
	typed, ok := raw.(R)
	if !ok {
		return value, fmt.Errorf("want %s, got %s", kind(typed), kind(raw))
	}
	return parse(typed)
}

// kind names the TOML type of a decoded value.
func kind(raw any) string {
	switch raw.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case []any:
		return "an array"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}

// take returns the value of a key and makes the key known.
func (t *table) take(name string) (raw any, given bool) {
	if !slices.Contains(*t.known, name) {
		*t.known = append(*t.known, name)
	}
	raw, given = t.keys[name]
	return raw, given
}

// note notes where the value of a key is when all is read.
func (t *table) note(name string, value func() any) {
	t.doc.settings = append(t.doc.settings, setting{t.place.child(name), t.fixed, value})
}

// require complains when a key is not given.
func (t *table) require(name, hint string) {
	if _, given := t.take(name); !given {
		t.complain(name, "missing (%s)", hint)
	}
}

// sound reports whether nothing was wrong with a key so far.
func (t *table) sound(name string) bool {
	_, wrong := t.doc.wrong[t.place.child(name).id]
	return !wrong
}

func (t *table) complain(name, format string, args ...any) {
	t.doc.complain(t.place.child(name), fmt.Errorf(format, args...))
}

func (t *table) complainElement(name string, i int, format string, args ...any) {
	t.doc.complain(t.place.child(name).element(i), fmt.Errorf(format, args...))
}

// table opens the table of a key: an empty one when the key is not given.
func (t *table) table(name string) *table {
	raw, given := t.take(name)
	if !given {
		raw = map[string]any(nil)
	}
	return t.doc.open(t.place.child(name), raw)
}

// tables opens the array of tables of a key, without elements that are none.
func (t *table) tables(name string) []*table {
	raw, given := t.take(name)
	if !given {
		return nil
	}
	p := t.place.child(name)
	array, ok := raw.([]any)
	if !ok {
		t.complain(name, "want an array of tables, got %s (write [[%s]])", kind(raw), p.key)
		return nil
	}
	var all []*table
	for i, raw := range array {
		if element := t.doc.open(p.element(i), raw); element.keys != nil {
			all = append(all, element)
		}
	}
	return all
}

// open returns the table at p, the same one each time.
func (d *document) open(p place, raw any) *table {
	if t, ok := d.tables[p.id]; ok {
		return t
	}
	keys, ok := raw.(map[string]any)
	if !ok {
		d.complain(p, errors.New("want a table, got "+kind(raw)))
	}
	t := &table{doc: d, place: p, keys: keys, known: new([]string)}
	d.tables[p.id] = t
	return t
}
