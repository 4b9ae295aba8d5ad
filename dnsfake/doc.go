// Package dnsfake is the DNS server that answers names with fake addresses it
// can map back (RFC 3089, section 3, steps 1 and 2).
package dnsfake
