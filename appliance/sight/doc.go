// Package sight remembers what the clients of a gateway meet.
package sight
