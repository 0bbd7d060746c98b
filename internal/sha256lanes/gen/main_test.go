package main

import (
	"bytes"
	"os"
	"testing"
)

// TestTheFileIsGenerated: what is in the tree is what the generator writes, byte for byte.
func TestTheFileIsGenerated(t *testing.T) {
	got, err := os.ReadFile("../compress_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, source()) {
		t.Fatal("compress_amd64.s differs from what the generator writes: run go generate ./internal/sha256lanes")
	}
}
