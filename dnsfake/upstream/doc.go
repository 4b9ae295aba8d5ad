// Package upstream asks the real DNS resolvers.
package upstream
