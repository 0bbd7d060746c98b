package fcp

// Reason is the precise, stable ground for which bytes or a name were refused.
// It is the cause of the Error, so errors.Is(err, ReasonUppercase) finds it below
// any number of wraps, while the Error's Code says what a caller can do.
type Reason string

// Reasons of the CBOR codec (spec/wire.md section 1).
const (
	ReasonTruncated    Reason = "truncated"         // the bytes end inside an item
	ReasonTrailing     Reason = "trailing_bytes"    // bytes follow the item
	ReasonMalformed    Reason = "malformed"         // a head that RFC 8949 reserves
	ReasonNonCanonical Reason = "non_canonical"     // decodes, but is not the one encoding
	ReasonIndefinite   Reason = "indefinite_length" // also Is ReasonNonCanonical
	ReasonKeyOrder     Reason = "map_key_order"     // also Is ReasonNonCanonical
	ReasonDuplicateKey Reason = "duplicate_key"
	ReasonKeyType      Reason = "map_key_type" // a key that is no integer, text or byte string
	ReasonUTF8         Reason = "invalid_utf8"
	ReasonNotFinite    Reason = "not_finite" // NaN or an infinity
	ReasonTag          Reason = "tag"        // no object carries a tag
	ReasonSimple       Reason = "simple_value"
	ReasonRange        Reason = "integer_range" // below -2^63
	ReasonDepth        Reason = "too_deep"
	ReasonCount        Reason = "too_many_elements"
	ReasonSize         Reason = "too_large"
	ReasonUnknownField Reason = "unknown_field"
	ReasonType         Reason = "wrong_type"
	ReasonNoSchema     Reason = "schema_missing"  // shorter than the 32-byte prefix
	ReasonSchema       Reason = "schema_mismatch" // the prefix of another schema
)

// Reasons for refusing a name (spec/wire.md sections 2 and 3).
const (
	ReasonEmpty   Reason = "empty"
	ReasonTooLong Reason = "too_long"
	ReasonASCII   Reason = "non_ascii"
	ReasonUpper   Reason = "uppercase"
	ReasonStart   Reason = "invalid_start"
	ReasonChar    Reason = "invalid_char"
	ReasonPrefix  Reason = "invalid_prefix"
	ReasonSyntax  Reason = "invalid_syntax" // a part or separator is missing
	ReasonVersion Reason = "invalid_version"
)

// Error makes a Reason usable as a cause and as a target of errors.Is.
func (r Reason) Error() string { return string(r) }

// Is reports that the two finer reasons are also cases of ReasonNonCanonical.
func (r Reason) Is(target error) bool {
	return target == ReasonNonCanonical && (r == ReasonIndefinite || r == ReasonKeyOrder)
}
