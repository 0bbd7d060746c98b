package fcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// Deterministic CBOR (spec/wire.md section 1, docs/format.md "Canonical CBOR"):
// RFC 8949 with definite lengths, shortest heads, shortest lossless floats, map
// keys sorted by encoded length and then bytewise, and no duplicates. On top of
// that no tags, no simple values but false, true and null, no NaN or infinity,
// map keys that are integers, texts or byte strings, and integers from -2^63 to
// 2^64-1. Objects carry no floats at all; the codec takes them because two types
// of the reference do.

var (
	encMode = must(cbor.EncOptions{
		Sort:          cbor.SortLengthFirst,
		ShortestFloat: cbor.ShortestFloat16,
		NaNConvert:    cbor.NaNConvertReject,
		InfConvert:    cbor.InfConvertReject,
		BigIntConvert: cbor.BigIntConvertReject,
		IndefLength:   cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
		TagsMd:        cbor.TagsForbidden,
	}.UserBufferEncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		MaxNestedLevels:   MaxNesting,
		MaxArrayElements:  MaxArrayElements,
		MaxMapPairs:       MaxMapPairs,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		NaN:               cbor.NaNDecodeForbidden,
		Inf:               cbor.InfDecodeForbidden,
		BignumTag:         cbor.BignumTagForbidden,
		TagsMd:            cbor.TagsForbidden,
	}.DecMode())
	encBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}
)

// maxKeptBuffer bounds the buffers that stay in the pool.
const maxKeptBuffer = 64 << 10

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Marshal returns the canonical encoding of v. Struct fields go by their `cbor`
// tags; nil slices and maps encode as empty ones; [N]byte and []byte are byte
// strings. What Unmarshal would refuse is never returned: it fails with the codes
// of Canonical, or CodeInvalidArgument for a Go type without an encoding.
func Marshal(v any) ([]byte, error) { return marshalAfter(nil, v) }

// marshalAfter returns prefix followed by the canonical encoding of v. The size
// limit covers both.
func marshalAfter(prefix []byte, v any) ([]byte, error) {
	buf := encBuffers.Get().(*bytes.Buffer)
	defer releaseBuffer(buf)
	if err := encodeInto(buf, v); err != nil {
		return nil, err
	}
	if len(prefix)+buf.Len() > MaxCanonicalObject {
		return nil, cborFault(CodeTooLarge, ReasonSize, len(prefix)+buf.Len())
	}
	if err := Canonical(buf.Bytes()); err != nil {
		return nil, Wrap(CodeInvalidArgument, err, "encode %T", v)
	}
	out := make([]byte, 0, len(prefix)+buf.Len())
	return append(append(out, prefix...), buf.Bytes()...), nil
}

func encodeInto(buf *bytes.Buffer, v any) error {
	buf.Reset()
	if err := encMode.MarshalToBuffer(v, buf); err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			return err
		}
		return Errorf(CodeInvalidArgument, "%T has no canonical encoding: %w", v, ReasonType)
	}
	return nil
}

func releaseBuffer(buf *bytes.Buffer) {
	if buf.Cap() <= maxKeptBuffer {
		encBuffers.Put(buf)
	}
}

// Unmarshal decodes one canonical item into v, a pointer to a zero value; on an
// error v is left half filled and must not be used. It refuses what Canonical
// refuses, unknown fields and wrong types (CodeMalformed), and whatever does not
// encode back to the same bytes, such as an optional field that is present but
// empty (CodeNonCanonical). Into an *any, integers become uint64 or int64, arrays
// []any and maps map[any]any. Nothing in v aliases data.
func Unmarshal(data []byte, v any) error {
	if err := Canonical(data); err != nil {
		return err
	}
	return decodeCanonical(data, v)
}

// decodeCanonical decodes data that passed Canonical.
func decodeCanonical(data []byte, v any) error {
	if err := decMode.Unmarshal(data, v); err != nil {
		return decodeError(err, v)
	}
	buf := encBuffers.Get().(*bytes.Buffer)
	defer releaseBuffer(buf)
	if err := encodeInto(buf, v); err != nil {
		return err
	}
	if !bytes.Equal(buf.Bytes(), data) {
		return Errorf(CodeNonCanonical, "%T does not encode back to the same bytes: %w", v, ReasonNonCanonical)
	}
	return nil
}

// decodeError keeps the library's texts out of ours: they can repeat input.
func decodeError(err error, v any) error {
	var (
		own     *Error
		unknown *cbor.UnknownFieldError
		kind    *cbor.UnmarshalTypeError
		invalid *cbor.InvalidUnmarshalError
	)
	switch {
	case errors.As(err, &own):
		return err
	case errors.As(err, &invalid):
		return Errorf(CodeInternal, "Unmarshal into %T, which is no pointer", v)
	case errors.As(err, &unknown):
		return Errorf(CodeMalformed, "%T has no field for map pair %d: %w", v, unknown.Index, ReasonUnknownField)
	case errors.As(err, &kind) && kind.StructFieldName != "":
		return Errorf(CodeMalformed, "field %s does not take a %s: %w", kind.StructFieldName, kind.CBORType, ReasonType)
	}
	return Errorf(CodeMalformed, "the item does not fit %T: %w", v, ReasonType)
}

// MarshalPayload returns the object payload: the 32-byte schema hash, then the
// canonical encoding of v (spec/wire.md section 1.3).
func MarshalPayload(schema Schema, v any) ([]byte, error) { return marshalAfter(schema.hash[:], v) }

// UnmarshalPayload decodes a payload of the given schema. A missing prefix or one
// of another schema is CodeSchema; the rest fails as in Unmarshal.
func UnmarshalPayload(schema Schema, data []byte, v any) error {
	body, err := PayloadBody(schema, data)
	if err != nil {
		return err
	}
	return Unmarshal(body, v)
}

// PayloadBody checks the schema prefix and the size of a payload and returns what
// follows, which aliases data.
func PayloadBody(schema Schema, data []byte) ([]byte, error) {
	switch {
	case len(data) > MaxCanonicalObject:
		return nil, cborFault(CodeTooLarge, ReasonSize, len(data))
	case len(data) < HashSize:
		return nil, Errorf(CodeSchema, "a payload of %d bytes, wanted %s: %w", len(data), schema, ReasonNoSchema)
	case Hash(data[:HashSize]) != schema.hash:
		return nil, Errorf(CodeSchema, "the payload is not a %s: %w", schema, ReasonSchema)
	}
	return data[HashSize:], nil
}

// RawCBOR is one canonical item kept as bytes inside another value. It cannot be
// empty: make an optional one a pointer with omitempty.
type RawCBOR []byte

// MarshalCBOR returns the bytes after checking that they are one canonical item.
func (r RawCBOR) MarshalCBOR() ([]byte, error) { return r, Canonical(r) }

// UnmarshalCBOR keeps a copy of data.
func (r *RawCBOR) UnmarshalCBOR(data []byte) error {
	*r = bytes.Clone(data)
	return nil
}

// Canonical checks that data is exactly one canonical item within the limits. It
// fails with CodeMalformed, CodeNonCanonical or CodeTooLarge, the Reason as
// cause. It allocates nothing on success and never repeats data in an error.
func Canonical(data []byte) error {
	n, err := canonicalItem(data)
	if err == nil && n != len(data) {
		return cborFault(CodeMalformed, ReasonTrailing, n)
	}
	return err
}

// canonicalItem checks the item at the start of data and returns its length.
func canonicalItem(data []byte) (int, error) {
	if len(data) > MaxCanonicalObject {
		return 0, cborFault(CodeTooLarge, ReasonSize, len(data))
	}
	w := walker{b: data}
	w.item(0)
	if w.reason != "" {
		return 0, cborFault(w.reason.cborCode(), w.reason, w.i)
	}
	return w.i, nil
}

func cborFault(code Code, r Reason, at int) error {
	if r == ReasonSize {
		return Errorf(code, "CBOR of %d bytes, the limit is %d: %w", at, MaxCanonicalObject, r)
	}
	return Errorf(code, "CBOR at byte %d: %w", at, r)
}

func (r Reason) cborCode() Code {
	switch r {
	case ReasonNonCanonical, ReasonIndefinite, ReasonKeyOrder:
		return CodeNonCanonical
	case ReasonDepth, ReasonCount, ReasonSize:
		return CodeTooLarge
	}
	return CodeMalformed
}

// walker steps over canonical items; the first fault stops it at its byte.
type walker struct {
	b      []byte
	i      int
	reason Reason
}

func (w *walker) fail(r Reason) bool {
	w.reason = r
	return false
}

// CBOR major types (RFC 8949 section 3.1) that the event codec has no use for.
const (
	majorNegative = 0x20
	majorMap      = 0xa0
	majorTag      = 0xc0
	majorSimple   = 0xe0
)

// item steps over one item; depth counts the containers around it.
func (w *walker) item(depth int) bool {
	if w.i >= len(w.b) {
		return w.fail(ReasonTruncated)
	}
	start := w.i
	major, info := w.b[start]&0xe0, w.b[start]&0x1f
	if major == majorSimple {
		return w.simple(info)
	}
	n, ok := w.head(info, major)
	if !ok {
		return false
	}
	switch major {
	case majorNegative:
		if n > math.MaxInt64 {
			w.i = start
			return w.fail(ReasonRange)
		}
	case majorBytes, majorText:
		return w.run(n, major == majorText)
	case majorArray, majorMap:
		return w.container(n, major == majorMap, depth+1)
	case majorTag:
		w.i = start
		return w.fail(ReasonTag)
	}
	return true
}

// head reads the argument of the head at i and refuses all but its shortest form.
func (w *walker) head(info, major byte) (uint64, bool) {
	if info < 24 {
		w.i++
		return uint64(info), true
	}
	if info == 31 && majorBytes <= major && major <= majorMap {
		return 0, w.fail(ReasonIndefinite)
	}
	if info > 27 {
		return 0, w.fail(ReasonMalformed)
	}
	rest := w.b[w.i+1:]
	if len(rest) < 1<<(info-24) {
		return 0, w.fail(ReasonTruncated)
	}
	var n uint64
	var long bool
	switch info {
	case 24:
		n = uint64(rest[0])
		long = n < 24
	case 25:
		n = uint64(binary.BigEndian.Uint16(rest))
		long = n <= math.MaxUint8
	case 26:
		n = uint64(binary.BigEndian.Uint32(rest))
		long = n <= math.MaxUint16
	case 27:
		n = binary.BigEndian.Uint64(rest)
		long = n <= math.MaxUint32
	}
	if long {
		return 0, w.fail(ReasonNonCanonical)
	}
	w.i += 1 + 1<<(info-24)
	return n, true
}

func (w *walker) run(n uint64, text bool) bool {
	if n > uint64(len(w.b)-w.i) {
		return w.fail(ReasonTruncated)
	}
	end := w.i + int(n)
	if text && !utf8.Valid(w.b[w.i:end]) {
		return w.fail(ReasonUTF8)
	}
	w.i = end
	return true
}

func (w *walker) container(n uint64, isMap bool, depth int) bool {
	limit, size := uint64(MaxArrayElements), uint64(1)
	if isMap {
		limit, size = MaxMapPairs, 2
	}
	switch {
	case depth > MaxNesting:
		return w.fail(ReasonDepth)
	case n > uint64(len(w.b)-w.i)/size: // each item has a byte
		return w.fail(ReasonTruncated)
	case n > limit:
		return w.fail(ReasonCount)
	case isMap:
		return w.pairs(int(n), depth)
	}
	for range n {
		if !w.item(depth) {
			return false
		}
	}
	return true
}

// pairs steps over the pairs of a map. Strictly ascending keys cannot repeat.
func (w *walker) pairs(n, depth int) bool {
	var last []byte
	for range n {
		start := w.i
		if start < len(w.b) && w.b[start]&0xe0 >= majorArray {
			return w.fail(ReasonKeyType)
		}
		if !w.item(depth) {
			return false
		}
		key := w.b[start:w.i]
		if c := compareKeys(last, key); c >= 0 && last != nil {
			w.i = start
			if c == 0 {
				return w.fail(ReasonDuplicateKey)
			}
			return w.fail(ReasonKeyOrder)
		}
		last = key
		if !w.item(depth) {
			return false
		}
	}
	return true
}

// compareKeys orders encoded map keys by length and then bytewise.
func compareKeys(a, b []byte) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}

// simple steps over false, true, null or a float (RFC 8949 section 3.3).
func (w *walker) simple(info byte) bool {
	const ( // major type 7, additional information
		infoFalse, infoNull      = 20, 22
		half, single, double int = 25, 26, 27
	)
	if infoFalse <= info && info <= infoNull {
		w.i++
		return true
	}
	if int(info) < half || int(info) > double {
		if info > 27 {
			return w.fail(ReasonMalformed)
		}
		return w.fail(ReasonSimple)
	}
	width := 1 << (info - 24)
	rest := w.b[w.i+1:]
	if len(rest) < width {
		return w.fail(ReasonTruncated)
	}
	shortest, finite := true, true
	switch int(info) {
	case half:
		finite = binary.BigEndian.Uint16(rest)&0x7c00 != 0x7c00
	case single:
		f := math.Float32frombits(binary.BigEndian.Uint32(rest))
		finite = !isSpecial(float64(f))
		shortest = !fitsHalf(f)
	case double:
		f := math.Float64frombits(binary.BigEndian.Uint64(rest))
		finite = !isSpecial(f)
		shortest = float64(float32(f)) != f
	}
	switch {
	case !finite:
		return w.fail(ReasonNotFinite)
	case !shortest:
		return w.fail(ReasonNonCanonical)
	}
	w.i += 1 + width
	return true
}

func isSpecial(f float64) bool { return math.IsNaN(f) || math.IsInf(f, 0) }

// fitsHalf reports whether binary16 holds f exactly: 10 fraction bits at
// exponents -14 to 15, fewer below, down to 2^-24.
func fitsHalf(f float32) bool {
	bits := math.Float32bits(f)
	exp, frac := int(bits>>23&0xff)-127, bits&(1<<23-1)
	switch {
	case bits<<1 == 0: // either zero
		return true
	case exp < -24 || exp > 15:
		return false
	case exp >= -14:
		return frac&(1<<13-1) == 0
	}
	return frac&(1<<(13+uint(-14-exp))-1) == 0
}
