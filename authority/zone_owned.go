package authority

import (
	"crypto/ed25519"
	"time"

	"fcp"
)

// owned is a signed object on the wire whose issuer is a key that it names.
type owned interface {
	check() error
	issuer() OwnerPublic
}

// verifyOwned decodes b into o, checks its shape, that owner is its issuer and
// that owner signed exactly these bytes. Errors: CodeMalformed, CodeNonCanonical,
// CodeSchema, CodeVersion, CodeTooLarge, those of o.check, CodeWrongKey for another
// issuer, CodeSignature.
func verifyOwned(schema fcp.Schema, owner OwnerPublic, b []byte, o owned) error {
	s, err := decodeSigned(schema, b, o)
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if err := checkIssuer(schema, o.issuer(), owner); err != nil {
		return err
	}
	return s.verifyOwner(owner, schema)
}

// verifyNamed is verifyOwned for an object that an admin may have signed: it
// checks the signature of whoever it names. Whether that key had the right is
// the next question, which Authorities answers.
func verifyNamed(schema fcp.Schema, b []byte, o owned) error {
	s, err := decodeSigned(schema, b, o)
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	key := o.issuer()
	if !ed25519.Verify(key[:], s.message, s.signature) {
		return fcp.Errorf(fcp.CodeSignature, "%s by %s", schema, fcp.KidOf(key[:]))
	}
	return nil
}

// signOwned checks o and signs it.
func signOwned(key signer, schema fcp.Schema, o owned, signature *[]byte) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(key, schema, o, signature)
}

// checkPeriod refuses a validity that ends before it begins or lasts longer than
// limit.
func checkPeriod(schema fcp.Schema, from, until uint64, limit time.Duration) error {
	switch {
	case until <= from || until > maxUnixSeconds:
		return fcp.Errorf(fcp.CodeMalformed, "%s ends before it begins", schema)
	case until-from > uint64(limit/time.Second):
		return fcp.Errorf(fcp.CodeInvalidArgument, "%s for longer than %d days", schema, limit/(24*time.Hour))
	}
	return nil
}

func fromUnix(s uint64) time.Time { return time.Unix(int64(s), 0).UTC() }

// MaxSkew is how far two clocks may differ before a time is refused.
const MaxSkew = fcp.MaxClockLead
