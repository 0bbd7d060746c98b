// Package cddl checks CBOR data items against the Concise Data Definition
// Language (RFC 8610). It is for tests: conformance and node hold real encodings
// against conformance/cddl with it.
//
// It implements what those files use and refuses the rest with a message: rules
// (=, /=, //=), type and group choices, ranges, maps and arrays with occurrence
// indicators, cuts, group references, literals, the standard prelude but floats
// and tags (no object of ours has any), and the controls .size, .cbor, .regexp, .lt, .le, .gt, .ge, .eq, .ne
// and .within. Not there: tags, generics, sockets, unwrapping, .bits, .default.
//
// Matching is that of RFC 8610 appendix A: choices in order, occurrences greedy,
// nothing tried twice.
package cddl
