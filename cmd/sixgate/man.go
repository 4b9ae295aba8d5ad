//go:build man

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra/doc"
)

// main writes the manual pages into the directory that is its argument.
func main() {
	root := rootCommand()
	root.DisableAutoGenTag = true // the same definitions, the same pages
	header := &doc.GenManHeader{Section: "8", Source: "sixgate", Manual: "System administration"}
	if err := doc.GenManTree(root, header, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "writing manual pages:", err)
		os.Exit(exitFailed)
	}
}
