// Package conformance holds the tests that tie this product to what it publishes:
// the CDDL, the golden vectors, the runner's protocol, the mandatory and interop
// tests of the founding text, and the profiles. README.md says where what is.
package conformance

//go:generate go run ./cmd/fcp-conformance generate -dir .
