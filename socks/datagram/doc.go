// Package datagram is what a gateway sends and receives datagrams by: many of
// them at a time.
package datagram
