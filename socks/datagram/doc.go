// Package datagram is the form that datagrams have on their way through a
// gateway.
package datagram
