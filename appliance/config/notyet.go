package config

import "errors"

// errNotYet is what is wrong with asking for a function that this version
// does not have. Keys are refused, not ignored: a gateway that looks
// configured and is not would leak.
var errNotYet = errors.New("not yet supported (leave it out)")

// notYet knows the keys without function and refuses all their values but
// those that ask for nothing. The function that gives a key its meaning
// deletes its line.
func notYet(root *table) {
	refuse(root.table("tun"), "queues", int64(0))
}
