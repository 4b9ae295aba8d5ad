package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"sixgate/appliance"
)

// table writes columns for people, and of what others have had a say in only
// what is visible.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (t table) printf(format string, args ...any) {
	for i, arg := range args {
		if s, ok := arg.(string); ok {
			args[i] = appliance.Visible(s)
		}
	}
	fmt.Fprintf(t, format, args...) // its error comes back from Flush
}
