package engine

import (
	"bytes"
	"encoding/binary"
	"slices"

	"fcp"
)

// The index of a backup lists its segments (docs/format.md "Backup index"):
//
//	"FCPIDX01" | for each segment, strictly ascending by id:
//	  segment id[32] | u32be ciphertext bytes | first 16 bytes of BLAKE3 of the card file
//
// Its hash is its name and stands in the signed manifest.
const (
	indexMagic = "FCPIDX01"
	indexEntry = fcp.HashSize + 4 + 16
)

func indexSize(segments uint64) uint64 { return uint64(len(indexMagic)) + segments*indexEntry }

type indexed struct {
	id   fcp.SegmentID
	size uint32
	card [16]byte
}

func cardSum(card []byte) [16]byte {
	h := fileHash(card)
	return [16]byte(h[:16])
}

func encodeIndex(list []indexed) []byte {
	b := make([]byte, 0, indexSize(uint64(len(list))))
	b = append(b, indexMagic...)
	for i := range list {
		e := &list[i]
		b = append(b, e.id[:]...)
		b = binary.BigEndian.AppendUint32(b, e.size)
		b = append(b, e.card[:]...)
	}
	return b
}

func decodeIndex(b []byte) ([]indexed, error) {
	rest, ok := bytes.CutPrefix(b, []byte(indexMagic))
	if !ok || len(rest)%indexEntry != 0 || len(rest)/indexEntry > maxBackupSegments {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a backup index does not decode")
	}
	list := make([]indexed, len(rest)/indexEntry)
	for i := range list {
		e, r := &list[i], rest[i*indexEntry:]
		copy(e.id[:], r)
		e.size = binary.BigEndian.Uint32(r[fcp.HashSize:])
		copy(e.card[:], r[fcp.HashSize+4:indexEntry])
		if e.size == 0 || e.size > fcp.MaxSegment || i > 0 && bytes.Compare(list[i-1].id[:], e.id[:]) >= 0 {
			return nil, fcp.Errorf(fcp.CodeMalformed, "entry %d of a backup index", i)
		}
	}
	return list, nil
}

func findIndexed(list []indexed, id fcp.SegmentID) (*indexed, bool) {
	i, ok := slices.BinarySearchFunc(list, id, func(e indexed, id fcp.SegmentID) int { return bytes.Compare(e.id[:], id[:]) })
	if !ok {
		return nil, false
	}
	return &list[i], true
}
