// Package outlet dials destinations: directly, through a SOCKS server, or not
// at all.
package outlet
