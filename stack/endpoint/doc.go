// Package endpoint gives a netstack endpoint the shape of a net.Conn whose
// errors are errnos.
package endpoint
