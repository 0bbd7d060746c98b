//go:build !linux

package node

import "testing"

// pinHalf cannot share out the processors here.
func pinHalf(testing.TB, int) bool { return false }
