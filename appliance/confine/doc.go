// Package confine runs a program in namespaces of its own, out of which only a
// TUN device leads.
package confine
