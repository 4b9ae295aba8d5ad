// Package relay carries bytes or datagrams between two connections until both
// sides are done.
package relay
