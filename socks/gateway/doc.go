// Package gateway joins a pending connection from any inlet to a way out
// (RFC 3089, section 3, steps 6 to 8).
package gateway
