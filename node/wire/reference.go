package wire

import "time"

// The defaults of the published reference for coded objects (spec/wire.md section
// 11). Segments have their own: fcp.SegmentTransmission. These serve interchange.
const (
	ReferenceRepairBps      = 500 // repair symbols per 10,000 source symbols
	ReferenceMaxObject      = 64 << 20
	ReferenceDecodeTimeout  = 30 * time.Second
	ReferenceChunkThreshold = 256 << 10 // above this an object is cut into chunks
	ReferenceChunk          = 64 << 10
)

// Pieces returns how many pieces of size bytes n bytes make: source symbols of an
// object, or its chunks. size is positive.
func Pieces(n, size int) int { return (n + size - 1) / size }

// RepairSymbols returns the reference's number of repair symbols for k source
// symbols: k*bps/10000, rounded down.
func RepairSymbols(k, bps int) int { return k * bps / 10000 }
