package fcp

import (
	"crypto/ed25519"
	"testing"

	"github.com/zeebo/blake3"
)

func TestKidAndWriterAreTaggedHashes(t *testing.T) {
	pub := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	sum := blake3.Sum256(append([]byte("fcp.kid.v2"), pub...))
	if got := KidOf(pub); got != Kid(sum[:8]) || len(got.String()) != 16 {
		t.Errorf("kid %s, want %x", got, sum[:8])
	}
	if got := WriterOf(pub); got != WriterID(blake3.Sum256(append([]byte("FCP2-WRITER-V1"), pub...))) {
		t.Errorf("writer %s", got)
	}
}
