// Command http3 is a server and a client of HTTP/3 by quic-go, for the tests of
// the gateway, whose module does not need quic-go.
package main
