package engine

import (
	"strconv"

	"fcp"
)

// chunkManifest is the payload of an object above one chunk
// (fcp.core:ChunkedObjectManifest@1.0.0). Every chunk has chunk_size bytes but the
// last, which has what remains and at least one byte.
type chunkManifest struct {
	TotalLen  uint64         `cbor:"total_len"`
	ChunkSize uint64         `cbor:"chunk_size"`
	Chunks    []fcp.ObjectID `cbor:"chunks"`
}

// MaxChunks bounds the chunks of one object, so that its manifest fits into one
// event: about 30 GiB.
const MaxChunks = 30_000

func (m *chunkManifest) check() error {
	n := uint64(len(m.Chunks))
	switch {
	case m.ChunkSize != fcp.ChunkSize:
		return fcp.Errorf(fcp.CodeMalformed, "a chunk manifest with chunks of %d bytes", m.ChunkSize)
	case n < 2 || n > MaxChunks:
		return fcp.Errorf(fcp.CodeMalformed, "a chunk manifest with %d chunks", n)
	case m.TotalLen <= (n-1)*m.ChunkSize || m.TotalLen > n*m.ChunkSize:
		return fcp.Errorf(fcp.CodeMalformed, "a chunk manifest of %d bytes in %d chunks", m.TotalLen, n)
	}
	return nil
}

// decodeManifest decodes the payload of a chunk manifest, schema hash included.
func decodeManifest(payload []byte) (*chunkManifest, error) {
	var m chunkManifest
	if len(payload) > fcp.MaxBody {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a chunk manifest of %d bytes", len(payload))
	}
	if err := fcp.UnmarshalPayload(fcp.SchemaChunkedManifest, payload, &m); err != nil {
		return nil, err
	}
	return &m, m.check()
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// chunkLen returns the length of chunk i.
func (m *chunkManifest) chunkLen(i int) int {
	return int(min(m.ChunkSize, m.TotalLen-uint64(i)*m.ChunkSize))
}
