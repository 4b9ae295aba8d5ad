// Package stack terminates the TCP, UDP and ICMP that arrive on a TUN device
// (RFC 3089, section 3, steps 3 to 5).
package stack
