package authority

import (
	"bytes"
	"math"

	"fcp"
)

// Claim keys: RFC 8392 section 4, RFC 8747 for cnf, and the private ones of
// spec/wire.md section 6.
const (
	claimIss = 1
	claimSub = 2
	claimAud = 3
	claimExp = 4
	claimNbf = 5
	claimIat = 6
	claimCti = 7
	claimCnf = 8

	claimCapability    = -65537
	claimZone          = -65538
	claimOperations    = -65539
	claimPrincipal     = -65540
	claimDepth         = -65541
	claimParent        = -65542
	claimNode          = -65543
	claimBinary        = -65544
	claimGrantRefs     = -65545
	claimHolder        = -65546
	claimCheckpoint    = -65547
	claimCheckpointSeq = -65548
	claimConstraints   = -65549
	claimRights        = -65550
	claimInstance      = -65551
)

// maxClaimText limits every text claim but zones, in bytes.
const maxClaimText = fcp.MaxIdentifier

// claims are the claims of a token in either profile. What is absent is zero, and
// has says what is there.
type claims struct {
	has uint32 // by claimBit

	iss, sub, aud string
	exp, nbf, iat uint64 // unix seconds
	cti           []byte
	cnf           [KeySize]byte // Ed25519

	capability, principal string
	operations            []string
	zone                  fcp.ZoneID
	depth                 uint64
	parent                []byte
	node, holder          string
	binary                fcp.Hash
	grants                []fcp.Hash
	checkpoint            fcp.Hash
	checkpointSeq         uint64
	constraints           Constraints
	rights                []Right
	instance              string
}

// claimOrder lists the keys as they are encoded: ascending as numbers, so the
// negative ones come first. It is not the order of canonical CBOR.
var claimOrder = [...]int64{
	claimInstance, claimRights, claimConstraints, claimCheckpointSeq, claimCheckpoint, claimHolder, claimGrantRefs, claimBinary,
	claimNode, claimParent, claimDepth, claimPrincipal, claimOperations, claimZone, claimCapability,
	claimIss, claimSub, claimAud, claimExp, claimNbf, claimIat, claimCti, claimCnf,
}

// claimBit returns the bit of a key in has; 0 for an unknown one.
func claimBit(key int64) uint32 {
	switch {
	case claimIss <= key && key <= claimCnf:
		return 1 << (key - claimIss)
	case claimInstance <= key && key <= claimCapability:
		return 1 << (claimCnf + claimCapability - key)
	}
	return 0
}

// claimSet returns the bits of several keys.
func claimSet(keys ...int64) (bits uint32) {
	for _, k := range keys {
		bits |= claimBit(k)
	}
	return bits
}

// cnfHead is the confirmation claim up to the key: {1: COSE_Key} with kty OKP and
// crv Ed25519 (RFC 8747 section 3.2, RFC 9053 section 7.2).
const cnfHead = "\xa1\x01\xa3\x01\x01\x20\x06\x21\x58\x20"

// appendClaims encodes what has says is there.
func appendClaims(dst []byte, c *claims) ([]byte, error) {
	w := orderedCBOR(dst)
	n := uint64(0)
	for _, k := range claimOrder {
		if c.has&claimBit(k) != 0 {
			n++
		}
	}
	w.head(5, n)
	for _, k := range claimOrder {
		if c.has&claimBit(k) == 0 {
			continue
		}
		if k < 0 {
			w.head(1, uint64(-1-k))
		} else {
			w.head(0, uint64(k))
		}
		if err := c.appendValue(&w, k); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (c *claims) appendValue(w *orderedCBOR, key int64) error {
	if text := c.textClaim(key); text != nil {
		w.text(*text)
		return nil
	}
	if number := c.numberClaim(key); number != nil {
		w.head(0, *number)
		return nil
	}
	switch key {
	case claimCti:
		w.bytes(c.cti)
	case claimParent:
		w.bytes(c.parent)
	case claimBinary:
		w.bytes(c.binary[:])
	case claimCheckpoint:
		w.bytes(c.checkpoint[:])
	case claimZone:
		w.text(string(c.zone))
	case claimCnf:
		*w = append(append(*w, cnfHead...), c.cnf[:]...)
	case claimGrantRefs:
		w.head(4, uint64(len(c.grants)))
		for i := range c.grants {
			w.bytes(c.grants[i][:])
		}
	case claimOperations:
		w.head(4, uint64(len(c.operations)))
		for _, o := range c.operations {
			w.text(o)
		}
	case claimConstraints:
		return appendCanonical(w, &c.constraints)
	case claimRights:
		return appendCanonical(w, c.rights)
	}
	return nil
}

func appendCanonical(w *orderedCBOR, v any) error {
	b, err := fcp.Marshal(v)
	*w = append(*w, b...)
	return err
}

func (c *claims) textClaim(key int64) *string {
	switch key {
	case claimIss:
		return &c.iss
	case claimSub:
		return &c.sub
	case claimAud:
		return &c.aud
	case claimCapability:
		return &c.capability
	case claimPrincipal:
		return &c.principal
	case claimNode:
		return &c.node
	case claimHolder:
		return &c.holder
	case claimInstance:
		return &c.instance
	}
	return nil
}

func (c *claims) numberClaim(key int64) *uint64 {
	switch key {
	case claimExp:
		return &c.exp
	case claimNbf:
		return &c.nbf
	case claimIat:
		return &c.iat
	case claimDepth:
		return &c.depth
	case claimCheckpointSeq:
		return &c.checkpointSeq
	}
	return nil
}

// parseClaims decodes a payload: known keys only, each once and in order, every
// head in its shortest form. What it returns aliases nothing of b.
func parseClaims(b []byte) (*claims, error) {
	r := reader{walker{b: b}}
	pairs := r.take(5)
	if r.bad || pairs > uint64(len(claimOrder)) {
		return nil, refuse(ReasonClaims, "not a map of at most %d claims", len(claimOrder))
	}
	c := new(claims)
	last := int64(math.MinInt64)
	for range pairs {
		key := r.claimKey()
		switch {
		case r.bad:
			return nil, refuse(ReasonClaims, "a key that is no integer")
		case key <= last:
			return nil, refuse(ReasonClaims, "keys repeat or are out of order")
		case claimBit(key) == 0:
			return nil, refuse(ReasonClaimUnknown, "claim %d", key)
		}
		last = key
		c.has |= claimBit(key)
		switch {
		case c.parseValue(&r, key):
		case key == claimCnf:
			return nil, refuse(ReasonConfirmation, "no Ed25519 key")
		default:
			return nil, refuse(ReasonClaims, "claim %d", key)
		}
	}
	if r.bad || r.i != len(b) {
		return nil, refuse(ReasonClaims, "bytes behind the claims")
	}
	return c, nil
}

func (r *reader) claimKey() int64 {
	if r.i < len(r.b) && r.b[r.i]>>5 == 1 {
		n := r.take(1)
		if n > math.MaxInt64 {
			r.bad = true
		}
		return -1 - int64(n)
	}
	n := r.take(0)
	if n > math.MaxInt64 {
		r.bad = true
	}
	return int64(n)
}

// parseValue reads one claim; false when it does not fit the claim.
func (c *claims) parseValue(r *reader, key int64) bool {
	if text := c.textClaim(key); text != nil {
		*text = r.text(maxClaimText)
		return !r.bad
	}
	if number := c.numberClaim(key); number != nil {
		*number = r.take(0)
		return !r.bad
	}
	switch key {
	case claimCti:
		c.cti = bytes.Clone(r.run(2))
		return !r.bad && len(c.cti) > 0 && len(c.cti) <= fcp.HashSize
	case claimParent:
		c.parent = bytes.Clone(r.run(2))
		return !r.bad && len(c.parent) > 0 && len(c.parent) <= fcp.HashSize
	case claimBinary:
		return r.hash(&c.binary)
	case claimCheckpoint:
		return r.hash(&c.checkpoint)
	case claimZone:
		c.zone = fcp.ZoneID(r.text(fcp.MaxZoneID))
		return c.zone.Valid()
	case claimCnf:
		return r.confirmation(&c.cnf)
	case claimGrantRefs:
		n := r.count(MaxGrantsNamed)
		c.grants = make([]fcp.Hash, n)
		for i := range c.grants {
			r.hash(&c.grants[i])
		}
		return !r.bad
	case claimOperations:
		n := r.count(MaxRights)
		c.operations = make([]string, n)
		for i := range c.operations {
			c.operations[i] = r.text(maxClaimText)
		}
		return !r.bad
	case claimConstraints:
		return r.canonical(&c.constraints)
	case claimRights:
		return r.canonical(&c.rights)
	}
	return false
}

// text reads a text of printable ASCII.
func (r *reader) text(limit int) string {
	b := r.run(3)
	if r.bad || len(b) == 0 || len(b) > limit {
		r.bad = true
		return ""
	}
	for _, x := range b {
		if x < ' ' || x >= 0x7f {
			r.bad = true
			return ""
		}
	}
	return string(b)
}

func (r *reader) hash(h *fcp.Hash) bool {
	b := r.run(2)
	if len(b) != fcp.HashSize {
		r.bad = true
		return false
	}
	*h = fcp.Hash(b)
	return true
}

func (r *reader) count(limit uint64) uint64 {
	n := r.take(4)
	if r.bad || n > limit {
		r.bad = true
		return 0
	}
	return n
}

func (r *reader) confirmation(key *[KeySize]byte) bool {
	rest := r.b[r.i:]
	if len(rest) < len(cnfHead)+KeySize || string(rest[:len(cnfHead)]) != cnfHead {
		return false
	}
	*key = [KeySize]byte(rest[len(cnfHead):])
	r.i += len(cnfHead) + KeySize
	return true
}

func (r *reader) canonical(v any) bool {
	b := r.item()
	return !r.bad && fcp.Unmarshal(b, v) == nil
}
