package engine

import (
	"encoding/binary"

	"fcp"
)

// packed reads the store's own records: varints in their shortest form, fixed
// fields and hashes. The first fault sticks; done reports a clean end.
type packed struct {
	b   []byte
	bad bool
}

func (p *packed) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 || n > 1 && p.b[n-1] == 0 {
		p.bad = true
		p.b = nil
		return 0
	}
	p.b = p.b[n:]
	return v
}

// take returns the next n bytes, which alias the input; nil on a fault.
func (p *packed) take(n int) []byte {
	if n < 0 || n > len(p.b) {
		p.bad = true
		p.b = nil
		return nil
	}
	out := p.b[:n:n]
	p.b = p.b[n:]
	return out
}

func (p *packed) hash() (h fcp.Hash) {
	if b := p.take(fcp.HashSize); b != nil {
		h = fcp.Hash(b)
	}
	return h
}

func (p *packed) byte() byte {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *packed) uint64() uint64 {
	if b := p.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (p *packed) done() bool { return !p.bad && len(p.b) == 0 }

// appendByteString appends the head of a canonical CBOR byte string of n bytes
// (RFC 8949 section 3); the caller appends the bytes.
func appendByteStringHead(b []byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, 0x40|byte(n))
	case n <= 0xff:
		return append(b, 0x58, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, 0x59), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0x5a), uint32(n))
}

// byteStringHeadSize returns the bytes appendByteStringHead appends.
func byteStringHeadSize(n int) int {
	switch {
	case n < 24:
		return 1
	case n <= 0xff:
		return 2
	case n <= 0xffff:
		return 3
	}
	return 5
}

// blobPayload returns the bytes inside the one canonical byte string that body
// must be. The result aliases body.
func blobPayload(body []byte) ([]byte, error) {
	if len(body) == 0 || body[0]&0xe0 != 0x40 {
		return nil, errBlob
	}
	n, head := uint64(body[0]&0x1f), 1
	switch width := int(n) - 24; {
	case n < 24:
	case width > 2 || len(body) < 1+1<<width:
		return nil, errBlob
	default:
		head = 1 + 1<<width
		n = 0
		for _, c := range body[1:head] {
			n = n<<8 | uint64(c)
		}
	}
	if n != uint64(len(body)-head) || byteStringHeadSize(int(n)) != head {
		return nil, errBlob
	}
	return body[head:], nil
}

var errBlob = fcp.Errorf(fcp.CodeNonCanonical, "a blob's payload is not one canonical byte string")
