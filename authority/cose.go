package authority

import (
	"bytes"
	"crypto/ed25519"

	"fcp"
)

// Headers of the one COSE_Sign1 form this package takes (RFC 9052 sections 3.1
// and 4.2, RFC 9596 for typ).
const (
	coseAlg      = 1
	coseKid      = 4
	coseTyp      = 16
	coseAlgEdDSA = -8
)

// typCapability is the typ of a native capability token. The reference profile
// has no typ, so neither is ever taken for the other.
const typCapability = "application/fcp-cap+cwt"

// maxSign1 limits an encoded token.
const maxSign1 = 16 << 10

// coseContext is the context string of a COSE_Sign1 (RFC 9052 section 4.4).
const coseContext = "Signature1"

// sign1 is an untagged COSE_Sign1 whose form was checked and whose signature was
// not. The slices alias the received bytes.
type sign1 struct {
	protected, payload, signature []byte
}

// parseSign1 takes exactly [protected bstr, {}, payload bstr, signature bstr64]:
// no tag, an empty unprotected bucket, each length in its shortest form, nothing
// behind. So two different strings are never the same token.
func parseSign1(b []byte) (sign1, error) {
	if len(b) > maxSign1 {
		return sign1{}, refuse(ReasonCOSEForm, "%d bytes, the limit is %d", len(b), maxSign1)
	}
	if len(b) > 0 && b[0]>>5 == 6 {
		return sign1{}, refuse(ReasonCOSETag, "")
	}
	r := reader{walker{b: b}}
	if r.take(4) != 4 || r.bad {
		return sign1{}, refuse(ReasonCOSEForm, "not an array of four")
	}
	var s sign1
	s.protected = r.run(2)
	if unprotected := r.item(); !r.bad && !bytes.Equal(unprotected, []byte{0xa0}) {
		return sign1{}, unprotectedFault(s.protected, unprotected)
	}
	if !r.bad && r.i < len(b) && b[r.i] == 0xf6 {
		return sign1{}, refuse(ReasonCOSEDetached, "")
	}
	s.payload = r.run(2)
	s.signature = r.run(2)
	switch {
	case r.bad || r.i != len(b):
		return sign1{}, refuse(ReasonCOSEForm, "truncated, not in shortest form, or bytes behind")
	case len(s.signature) != ed25519.SignatureSize:
		return sign1{}, refuse(ReasonCOSESignatureSize, "%d bytes", len(s.signature))
	}
	return s, nil
}

// unprotectedFault names what is wrong with an unprotected bucket: an algorithm
// there is the classic attack and has its own reason, and another when there is one
// in the protected bucket besides (RFC 9052 section 3 forbids a label in both).
func unprotectedFault(protected, unprotected []byte) error {
	if !hasAlg(unprotected) {
		return refuse(ReasonCOSEUnprotected, "")
	}
	if hasAlg(protected) {
		return refuse(ReasonCOSEAlgBoth, "")
	}
	return refuse(ReasonCOSEAlgUnprotected, "")
}

func hasAlg(bucket []byte) bool {
	m, ok := headerMap(bucket)
	_, there := m[uint64(coseAlg)]
	return ok && there
}

// appendSign1 is the inverse of parseSign1.
func appendSign1(dst []byte, s sign1) []byte {
	w := orderedCBOR(dst)
	w.head(4, 4)
	w.bytes(s.protected)
	w.head(5, 0)
	w.bytes(s.payload)
	w.bytes(s.signature)
	return w
}

// toBeSigned is the Sig_structure of RFC 9052 section 4.4 without external data.
func (s sign1) toBeSigned() []byte {
	w := orderedCBOR(make([]byte, 0, len(s.protected)+len(s.payload)+len(coseContext)+16))
	w.head(4, 4)
	w.text(coseContext)
	w.bytes(s.protected)
	w.bytes(nil)
	w.bytes(s.payload)
	return w
}

// protectedHeader encodes {1: -8, 4: kid} and, unless typ is empty, {16: typ}.
func protectedHeader(kid fcp.Kid, typ string) []byte {
	w := orderedCBOR(make([]byte, 0, 48))
	n := uint64(2)
	if typ != "" {
		n = 3
	}
	w.head(5, n)
	w.head(0, coseAlg)
	w.head(1, -1-coseAlgEdDSA)
	w.head(0, coseKid)
	w.bytes(kid[:])
	if typ != "" {
		w.head(0, coseTyp)
		w.text(typ)
	}
	return w
}

// kidAt is where the kid stands in a protectedHeader.
const kidAt = 5

// kid checks the protected header against the one form it can have and returns
// the key id, which is a hint for finding the key and never proof.
func (s sign1) kid(typ string) (fcp.Kid, error) {
	if len(s.protected) >= kidAt+fcp.KidSize {
		kid := fcp.Kid(s.protected[kidAt:])
		if bytes.Equal(s.protected, protectedHeader(kid, typ)) {
			return kid, nil
		}
	}
	return fcp.Kid{}, headerFault(s.protected, typ)
}

// headerFault says which part of a header is not the expected one.
func headerFault(protected []byte, typ string) error {
	m, ok := headerMap(protected)
	if !ok {
		return refuse(ReasonCOSEHeader, "not a canonical map")
	}
	alg, there := m[uint64(coseAlg)]
	switch {
	case !there:
		return refuse(ReasonCOSEAlgMissing, "")
	case alg != int64(coseAlgEdDSA):
		return refuse(ReasonCOSEAlg, "algorithm %.20v", alg)
	}
	kid, there := m[uint64(coseKid)]
	switch b, isBytes := kid.([]byte); {
	case !there:
		return refuse(ReasonCOSEKidMissing, "")
	case !isBytes || len(b) != fcp.KidSize:
		return refuse(ReasonCOSEKid, "")
	}
	switch got, there := m[uint64(coseTyp)]; {
	case there && typ == "", there && got != typ:
		return refuse(ReasonCOSETyp, "typ %.40v", got)
	case !there && typ != "":
		return refuse(ReasonCOSETyp, "no typ")
	}
	return refuse(ReasonCOSEHeader, "a header parameter that is not in the closed set")
}

func headerMap(b []byte) (map[any]any, bool) {
	var m map[any]any
	return m, fcp.Unmarshal(b, &m) == nil
}

// reader is a walker that takes only the shortest form of a head.
type reader struct{ walker }

// take reads a head of the given major type and returns its argument.
func (r *reader) take(major byte) uint64 {
	start := r.i
	got, n := r.head()
	if r.bad || got != major || r.i-start != headSize(n) {
		r.bad = true
		return 0
	}
	return n
}

func headSize(n uint64) int {
	switch {
	case n < 24:
		return 1
	case n <= 0xff:
		return 2
	case n <= 0xffff:
		return 3
	case n <= 0xffffffff:
		return 5
	}
	return 9
}

// run reads a byte string (major 2) or a text (major 3) and aliases it.
func (r *reader) run(major byte) []byte {
	n := r.take(major)
	if r.bad || n > uint64(len(r.b)-r.i) {
		r.bad = true
		return nil
	}
	out := r.b[r.i : r.i+int(n) : r.i+int(n)]
	r.i += int(n)
	return out
}
