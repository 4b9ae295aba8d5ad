package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Complaint is one thing that is wrong in a configuration file.
type Complaint struct {
	File string
	Line int    // from 1
	Key  string // such as "outlet.server"; empty for an error of syntax
	Text string // what is wrong and, in parentheses, what to do about it
}

// String returns "file:line: key: text".
func (c Complaint) String() string {
	if c.Key == "" {
		return fmt.Sprintf("%s:%d: %s", c.File, c.Line, c.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", c.File, c.Line, c.Key, c.Text)
}

// Complaints is the error of a bad configuration file: all that is wrong with
// it, by line. It is not empty.
type Complaints []Complaint

// Error returns one complaint a line.
func (cs Complaints) Error() string {
	lines := make([]string, len(cs))
	for i, c := range cs {
		lines[i] = c.String()
	}
	return strings.Join(lines, "\n")
}

func (cs Complaints) sort() {
	slices.SortFunc(cs, func(a, b Complaint) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), strings.Compare(a.Key, b.Key), strings.Compare(a.Text, b.Text))
	})
}

// didYouMean ends a complaint about an unknown word: with the nearest known
// one, or with all of them when none is near.
func didYouMean(word string, known []string) string {
	nearest, distance := "", 2+len(word)/5 // farther is no slip of the fingers
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), k); d < distance {
			nearest, distance = k, d
		}
	}
	if nearest == "" {
		return fmt.Sprintf("(known: %s)", strings.Join(known, ", "))
	}
	return fmt.Sprintf("(did you mean %q?)", nearest)
}

// editDistance counts the octets to insert, delete, replace or swap with their
// neighbour to turn a into b (optimal string alignment).
func editDistance(a, b string) int {
	var before, above []int // the rows of a[:i-1] and a[:i]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, above, row = above, row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replaced := above[j]
			if a[i] != b[j] {
				replaced++
			}
			row[j+1] = min(replaced, row[j]+1, above[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
