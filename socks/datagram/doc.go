// Package datagram lends buffers that hold any datagram.
package datagram
