// Package host holds the machine's network state to a declared one.
package host
