package fcp

import "encoding/binary"

// This file holds the few CBOR primitives (RFC 8949 section 3) behind the event
// codec. Everything else goes through Marshal and Unmarshal; events have a codec
// of their own because replay decodes millions of them a second.

const (
	majorUint  = 0x00
	majorBytes = 0x40
	majorText  = 0x60
	majorArray = 0x80
)

var (
	errContentHead = Errorf(CodeMalformed, "an event content is a map of 1 to 8 fields")
	errTruncated   = Errorf(CodeMalformed, "the event ends early")
	errFieldOrder  = Errorf(CodeNonCanonical, "event fields are unknown or out of order")
	errTrailing    = Errorf(CodeMalformed, "bytes follow the event")
	errNoKind      = Errorf(CodeMissingField, "the event has no kind")
	errKind        = Errorf(CodeUnknownKind, "the event's kind is not in the table")
	errEmptyField  = Errorf(CodeNonCanonical, "an event field is present but empty or of the wrong size")
	errUTF8        = Errorf(CodeMalformed, "an event text is not UTF-8")
	errType        = Errorf(CodeMalformed, "an event field has the wrong type")
	errLong        = Errorf(CodeNonCanonical, "an event integer or length is not in its shortest form")
	errLimit       = Errorf(CodeTooLarge, "an event field is over its limit")
)

// appendHead appends a CBOR head in its shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= 0xff:
		return append(b, major|24, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= 0xffffffff:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// decoder reads CBOR items from b at i. The first error sticks.
type decoder struct {
	b   []byte
	i   int
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *decoder) expect(c byte) {
	switch {
	case d.err != nil:
	case d.i >= len(d.b):
		d.err = errTruncated
	case d.b[d.i] != c:
		d.err = errType
	default:
		d.i++
	}
}

// head reads a head of the given major type and returns its argument.
func (d *decoder) head(major byte) uint64 {
	if d.err != nil {
		return 0
	}
	if d.i >= len(d.b) {
		d.err = errTruncated
		return 0
	}
	c := d.b[d.i]
	if c&0xe0 != major {
		d.err = errType
		return 0
	}
	if c &= 0x1f; c < 24 {
		d.i++
		return uint64(c)
	}
	return d.longHead(c)
}

func (d *decoder) longHead(info byte) uint64 {
	if info > 27 {
		d.err = errType
		return 0
	}
	width := 1 << (info - 24)
	rest := d.b[d.i+1:]
	if len(rest) < width {
		d.err = errTruncated
		return 0
	}
	var n, least uint64
	switch width {
	case 1:
		n, least = uint64(rest[0]), 24
	case 2:
		n, least = uint64(binary.BigEndian.Uint16(rest)), 1<<8
	case 4:
		n, least = uint64(binary.BigEndian.Uint32(rest)), 1<<16
	default:
		n, least = binary.BigEndian.Uint64(rest), 1<<32
	}
	if n < least {
		d.err = errLong
		return 0
	}
	d.i += 1 + width
	return n
}

func (d *decoder) uint() uint64 { return d.head(majorUint) }

func (d *decoder) small(limit uint64) uint64 {
	n := d.uint()
	if n > limit {
		d.fail(errLimit)
		return 0
	}
	return n
}

func (d *decoder) text(limit int) []byte  { return d.run(majorText, limit) }
func (d *decoder) bytes(limit int) []byte { return d.run(majorBytes, limit) }

// run reads a definite-length string and returns a slice of the input.
func (d *decoder) run(major byte, limit int) []byte {
	n := d.head(major)
	switch {
	case d.err != nil:
		return nil
	case n > uint64(limit):
		d.err = errLimit
		return nil
	case n > uint64(len(d.b)-d.i):
		d.err = errTruncated
		return nil
	}
	out := d.b[d.i : d.i+int(n) : d.i+int(n)]
	d.i += int(n)
	return out
}

func (d *decoder) hash(h *Hash) {
	if d.err != nil {
		return
	}
	rest := d.b[d.i:]
	if len(rest) < hashItem {
		d.err = errTruncated
		return
	}
	if rest[0] != 0x58 || rest[1] != HashSize {
		d.err = errType
		return
	}
	*h = Hash(rest[2:hashItem])
	d.i += hashItem
}

// hashList reads an array of 32-byte strings, strictly ascending.
func (d *decoder) hashList() HashList {
	n := d.head(majorArray)
	switch {
	case d.err != nil:
		return nil
	case n == 0:
		d.err = errEmptyField
		return nil
	case n > MaxReplaces:
		d.err = errLimit
		return nil
	case len(d.b)-d.i < int(n)*hashItem:
		d.err = errTruncated
		return nil
	}
	raw := d.b[d.i : d.i+int(n)*hashItem : d.i+int(n)*hashItem]
	for i := 0; i < len(raw); i += hashItem {
		if raw[i] != 0x58 || raw[i+1] != HashSize {
			d.err = errType
			return nil
		}
		if i > 0 && string(raw[i-HashSize:i]) >= string(raw[i+2:i+hashItem]) {
			d.err = errFieldOrder
			return nil
		}
	}
	d.i += len(raw)
	return HashList(raw)
}
