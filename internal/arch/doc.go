// Package arch holds the tests that keep the shape of the house: which package
// may import which (the dependency law), where the clock, sockets and the store
// may be touched, and that every decoder is fuzzed. It has no code of its own.
package arch
