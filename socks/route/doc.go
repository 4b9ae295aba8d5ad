// Package route picks the outlet that a flow takes.
package route
