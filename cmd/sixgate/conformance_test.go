package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// testConformance asks the gateway's SOCKS server all that scripts/conformance
// knows to ask: each answer has to be the right one, and docs/conformance.md to
// have each question.
func testConformance(t *testing.T, n *namespaces) {
	for _, tool := range []string{"python3", "openssl", "unshare", "sysctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs what Debian has: ", err)
		}
	}
	text, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "unshare", "--net", "--mount", "../../scripts/conformance", "sixgate="+n.binary).Output()
	asked, _, complete := strings.Cut(string(out), "| | **in all** |")
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && complete {
		t.Errorf("%v: %s", err, exit.Stderr)
	} else if errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(string(text), "| | **in all** |")
	rows := strings.Split(strings.TrimSpace(asked), "\n")
	if len(rows) < 3 {
		t.Fatalf("asked nothing: %q", out)
	}
	rows = rows[2:] // below the head
	for _, row := range rows {
		if strings.HasPrefix(row, "| | **") {
			continue
		}
		if !strings.HasSuffix(row, "| yes |") {
			t.Error(row)
		}
		if !strings.Contains(table, "\n"+row) {
			t.Errorf("docs/conformance.md lacks %s", row)
		}
	}
	if want := strings.Count(table, "\n| ") - 1; len(rows) != want {
		t.Errorf("%d rows, docs/conformance.md has %d: make it anew", len(rows), want)
	}
}
