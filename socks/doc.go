// Package socks speaks the SOCKS protocol (RFC 1928) on both sides of the wire.
package socks
