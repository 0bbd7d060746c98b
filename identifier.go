package fcp

// CanonicalID is an identifier of the reference: the id of a capability,
// connector, instance, operation or principal (spec/wire.md section 3.2). It is 1
// to MaxIdentifier bytes of [a-z0-9._:-] that begin with a letter or digit, and
// it is compared byte by byte: nothing ever normalises it. Node ids and request
// ids are not canonical identifiers. Make one with ParseCanonicalID.
type CanonicalID string

// String returns the identifier.
func (id CanonicalID) String() string { return string(id) }

// ParseCanonicalID checks s and returns it unchanged. It fails with
// CodeInvalidArgument and the first Reason that applies in the order empty, too
// long, non-ASCII, uppercase, invalid start, invalid character.
func ParseCanonicalID(s string) (CanonicalID, error) {
	if r := canonicalFault(s); r != "" {
		return "", nameError("identifier", s, r)
	}
	return CanonicalID(s), nil
}

func canonicalFault(s string) Reason {
	if r := nameFault(s, MaxIdentifier); r != "" {
		return r
	}
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return ReasonUpper
		}
	}
	if !isLowerAlnum(s[0]) {
		return ReasonStart
	}
	for i := range len(s) {
		if c := s[i]; !isLowerAlnum(c) && c != '.' && c != '_' && c != ':' && c != '-' {
			return ReasonChar
		}
	}
	return ""
}

// nameFault makes the three checks every name begins with, in their fixed order.
func nameFault(s string, limit int) Reason {
	switch {
	case s == "":
		return ReasonEmpty
	case len(s) > limit:
		return ReasonTooLong
	}
	for i := range len(s) {
		if s[i] >= 0x80 {
			return ReasonASCII
		}
	}
	return ""
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// maxQuoted bounds how much of a refused name an error repeats.
const maxQuoted = 80

func nameError(what, s string, r Reason) *Error {
	if len(s) > maxQuoted {
		return Errorf(CodeInvalidArgument, "%s %q... (%d bytes): %w", what, s[:maxQuoted], len(s), r)
	}
	return Errorf(CodeInvalidArgument, "%s %q: %w", what, s, r)
}
