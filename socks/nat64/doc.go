// Package nat64 writes IPv4 addresses into IPv6 ones for translators, and reads
// them back (RFC 6052).
package nat64
