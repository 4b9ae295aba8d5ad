package appliance

import (
	"strings"
	"unicode"
)

// Visible returns s without what would command a terminal, or show in another
// order than it is written: hosts and resolvers have a say in names and errors.
func Visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
