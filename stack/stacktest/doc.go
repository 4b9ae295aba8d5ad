// Package stacktest is a client host in memory, joined to a stack by a wire
// in memory, for tests.
package stacktest
