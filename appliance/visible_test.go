package appliance

import "testing"

func TestVisible(t *testing.T) {
	for s, want := range map[string]string{
		"tcp grüße.example:443, \"refused\"": "tcp grüße.example:443, \"refused\"",
		"\x1b]0;owned\a\x9b2J":               "�]0;owned��2J",
		"one\nsixgate: all is well\tnow":     "one�sixgate: all is well�now",
		"\u202eelpmaxe.moc":                  "�elpmaxe.moc",
	} {
		if got := Visible(s); got != want {
			t.Errorf("%q is shown as %q, want %q", s, got, want)
		}
	}
}
