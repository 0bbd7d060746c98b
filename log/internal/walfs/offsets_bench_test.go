package walfs

import (
	"bytes"
	"testing"
)

// BenchmarkRaiseSyncOffsets is what exact offsets cost per full block.
func BenchmarkRaiseSyncOffsets(b *testing.B) {
	block := chunk(string(bytes.Repeat([]byte("x"), blockSize-chunkHeaderSize)), 0)
	b.SetBytes(blockSize)
	for i := int64(1); b.Loop(); i++ {
		raiseSyncOffsets(block, 0, i)
	}
}
