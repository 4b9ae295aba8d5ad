// Package scripts holds what people and CI run, and the tests of the tree's
// own rules.
package scripts
