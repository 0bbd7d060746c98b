package authority

import (
	"crypto/ed25519"
	"encoding/binary"
	"time"

	"fcp"
)

// ObjectFormat is the version of the native layout of every signed object here.
// A field is never removed, retyped or given a new meaning within one format;
// an unknown field is refused, so a new field is a new format.
const ObjectFormat = 1

// MaxSignedObject limits the encoded form, schema prefix and signature included.
const MaxSignedObject = fcp.MaxClearBody

const signatureField = "signature"

// signer is a key that signs objects: the owner's, or a node's signing key.
type signer interface{ Sign(message []byte) []byte }

// signObject encodes obj, whose signature field must be empty and omitted when
// empty, signs those bytes and encodes it again with the signature in place:
// Ed25519 over schema hash || canonical CBOR without the signature field
// (40-authority "Signing rule", spec/wire.md section 4).
func signObject(key signer, schema fcp.Schema, obj any, signature *[]byte) ([]byte, error) {
	*signature = nil
	msg, err := fcp.MarshalPayload(schema, obj)
	if err != nil {
		return nil, err
	}
	*signature = key.Sign(msg)
	b, err := fcp.MarshalPayload(schema, obj)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxSignedObject {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "signed %s of %d bytes, the limit is %d", schema, len(b), MaxSignedObject)
	}
	return b, nil
}

// signedBytes is what a signature of a received object covers, and the signature.
type signedBytes struct{ message, signature []byte }

// decodeSigned strictly decodes b into obj and cuts the signature field out of
// the received bytes. It does not verify: the key may be known only afterwards.
func decodeSigned(schema fcp.Schema, b []byte, obj any) (signedBytes, error) {
	if len(b) > MaxSignedObject {
		return signedBytes{}, fcp.Errorf(fcp.CodeTooLarge, "signed %s of %d bytes, the limit is %d", schema, len(b), MaxSignedObject)
	}
	if err := fcp.UnmarshalPayload(schema, b, obj); err != nil {
		return signedBytes{}, err
	}
	s, err := cutSignature(b)
	return s, fcp.Wrap(fcp.CodeMalformed, err, "signed %s", schema)
}

// verifyOwner checks the owner's signature.
func (s signedBytes) verifyOwner(owner OwnerPublic, schema fcp.Schema) error {
	if !owner.Verify(s.message, s.signature) {
		return fcp.Errorf(fcp.CodeSignature, "%s by owner %s", schema, fcp.KidOf(owner[:]))
	}
	return nil
}

// cutSignature splits a schema-prefixed top-level map into the bytes without the
// field "signature" and that field's value.
func cutSignature(b []byte) (signedBytes, error) {
	message, value, err := cutField(b, signatureField)
	if err != nil {
		return signedBytes{}, err
	}
	if value == nil {
		return signedBytes{}, fcp.Errorf(fcp.CodeMissingField, "no signature")
	}
	const head = 2 // 0x58 0x40
	if len(value) != head+ed25519.SignatureSize || value[0] != 0x58 || value[1] != ed25519.SignatureSize {
		return signedBytes{}, fcp.Errorf(fcp.CodeMalformed, "the signature is not a string of %d bytes", ed25519.SignatureSize)
	}
	return signedBytes{message: message, signature: value[head:]}, nil
}

// cutField cuts one pair out of a schema-prefixed top-level map and returns the
// rest and the pair's value, which is nil when it is not there. Removing a pair
// only lowers the count in the map's head, because the rest of a canonical map
// stays as it is. field has at most 23 bytes.
func cutField(b []byte, field string) (rest, value []byte, err error) {
	w := walker{b: b, i: fcp.HashSize}
	major, pairs := w.head()
	if w.bad || major != 5 || pairs == 0 {
		return nil, nil, fcp.Errorf(fcp.CodeMalformed, "not a map")
	}
	body := w.i
	for range pairs {
		start := w.i
		key := w.item()
		value := w.item()
		if w.bad {
			break
		}
		if len(key) != 1+len(field) || string(key[1:]) != field || key[0]>>5 != 3 {
			continue
		}
		rest = make([]byte, 0, len(b))
		rest = append(rest, b[:fcp.HashSize]...)
		rest = appendMapHead(rest, pairs-1)
		rest = append(rest, b[body:start]...)
		return append(rest, b[w.i:]...), value, nil
	}
	return nil, nil, nil
}

func appendMapHead(b []byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, 0xa0|byte(n))
	case n <= 0xff:
		return append(b, 0xb8, byte(n))
	}
	return binary.BigEndian.AppendUint16(append(b, 0xb9), uint16(n))
}

// walker steps over CBOR items (RFC 8949 section 3) that a strict decoder has
// accepted. It stays inside b whatever b is; bad sticks.
type walker struct {
	b   []byte
	i   int
	bad bool
}

// head reads one head. For majors 2 and 3 the caller skips n bytes.
func (w *walker) head() (major byte, n uint64) {
	if w.bad || w.i >= len(w.b) {
		w.bad = true
		return 0, 0
	}
	c := w.b[w.i]
	w.i++
	if low := c & 31; low < 24 {
		return c >> 5, uint64(low)
	} else if low > 27 {
		w.bad = true
		return 0, 0
	}
	size := 1 << (c&31 - 24)
	if len(w.b)-w.i < size {
		w.bad = true
		return 0, 0
	}
	for _, x := range w.b[w.i : w.i+size] {
		n = n<<8 | uint64(x)
	}
	w.i += size
	return c >> 5, n
}

// item steps over one whole item and returns its bytes.
func (w *walker) item() []byte {
	start := w.i
	for left := uint64(1); left > 0 && !w.bad; left-- {
		major, n := w.head()
		if major >= 2 && major <= 5 && n > uint64(len(w.b)-w.i) {
			w.bad = true // neither bytes nor elements could fit
		}
		switch {
		case w.bad:
			return nil
		case major == 2 || major == 3:
			w.i += int(n)
		case major == 4:
			left += n
		case major == 5:
			left += 2 * n
		case major == 6:
			left++
		}
	}
	if w.bad {
		return nil
	}
	return w.b[start:w.i]
}

// unixSeconds is how objects carry time. Times before 1970 or after the year
// 9999 are CodeInvalidArgument.
func unixSeconds(t time.Time) (uint64, error) {
	s := t.Unix()
	if s < 0 || s > maxUnixSeconds {
		return 0, fcp.Errorf(fcp.CodeInvalidArgument, "time %s cannot be written into an object", t.UTC().Format(time.RFC3339))
	}
	return uint64(s), nil
}

// timeField is a time on its way into a field of an object.
type timeField struct {
	to   *uint64
	from time.Time
}

// setTimes fills the fields in; see unixSeconds.
func setTimes(fields ...timeField) error {
	for _, f := range fields {
		var err error
		if *f.to, err = unixSeconds(f.from); err != nil {
			return err
		}
	}
	return nil
}

const maxUnixSeconds = 253402300799 // 9999-12-31T23:59:59Z

// checkCommon checks the fields every signed object has.
func checkCommon(schema fcp.Schema, format, seconds uint64) error {
	return checkFormat(schema, format, ObjectFormat, seconds)
}

// checkFormat is checkCommon for an object whose fields need format want: the
// lowest one that has them, so that one value has one encoding.
func checkFormat(schema fcp.Schema, format, want, seconds uint64) error {
	switch {
	case format != want:
		return fcp.Errorf(fcp.CodeVersion, "%s in format %d, its fields are those of format %d", schema, format, want)
	case seconds > maxUnixSeconds:
		return fcp.Errorf(fcp.CodeMalformed, "%s with a time after the year 9999", schema)
	}
	return nil
}
