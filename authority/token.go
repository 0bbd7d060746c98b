package authority

import (
	"crypto/ed25519"
	"encoding/hex"
	"io"
	"time"

	"fcp"
)

// Times of tokens.
const (
	MaxTokenLifetime = 24 * time.Hour    // from not-before to expiry
	TokenSkew        = 120 * time.Second // clocks may differ by so much; the only skew there is
)

// TokenID is the unique id (cti, jti) of a token. Revocations name it, never a
// hash of the token.
type TokenID [16]byte

// String returns the id as 32 hex digits.
func (id TokenID) String() string { return hex.EncodeToString(id[:]) }

// Ref returns the id as revocations and evidence carry it: followed by 16 zero
// bytes, which no hash ends with.
func (id TokenID) Ref() fcp.Hash {
	var h fcp.Hash
	copy(h[:], id[:])
	return h
}

// HolderPublic is the Ed25519 key that a token's confirmation claim names.
type HolderPublic [KeySize]byte

func (k HolderPublic) String() string { return hex.EncodeToString(k[:]) }

// Verify reports whether sig is the holder's Ed25519 signature of message.
func (k HolderPublic) Verify(message, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(k[:], message, sig)
}

// HolderKey is the key of a token's holder: it proves possession and signs
// narrowed tokens. It is made for tokens alone and used for nothing else.
type HolderKey struct {
	redacted
	p func() *holderSecret
}

type holderSecret struct{ priv ed25519.PrivateKey }

// NewHolderKey makes a holder key from 32 bytes of rand.
func NewHolderKey(rand io.Reader) (*HolderKey, error) {
	seed, err := readKey(rand)
	if err != nil {
		return nil, err
	}
	defer clear(seed[:])
	return HolderKeyFromSeed(seed[:])
}

// HolderKeyFromSeed makes the key of a 32-byte seed; other lengths are
// CodeMalformed.
func HolderKeyFromSeed(seed []byte) (*HolderKey, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a holder key has %d bytes, not %d", len(seed), ed25519.SeedSize)
	}
	return &HolderKey{p: hide(&holderSecret{ed25519.NewKeyFromSeed(seed)})}, nil
}

// Public returns the key that confirmation claims name.
func (k *HolderKey) Public() HolderPublic {
	return HolderPublic(k.p().priv.Public().(ed25519.PublicKey))
}

// Secret returns the 32-byte seed, for the keystore only. The caller clears it.
func (k *HolderKey) Secret() []byte { return append([]byte(nil), k.p().priv.Seed()...) }

// Wipe overwrites the key as far as Go allows. It is unusable after.
func (k *HolderKey) Wipe() { clear(k.p().priv) }

func (k *HolderKey) sign(message []byte) []byte { return ed25519.Sign(k.p().priv, message) }

// CheckpointRef names the zone checkpoint under which something was authorised.
type CheckpointRef struct {
	ID  fcp.Hash
	Seq uint64
}

// TokenSpec says what a capability token is to permit, to whom and where. Every
// field but Binary is needed: nothing that is left out ever means "all".
type TokenSpec struct {
	Issuer      fcp.CanonicalID // the principal that grants
	Principal   fcp.CanonicalID // the principal that is granted
	Audience    fcp.CanonicalID // the connector it is for
	Instance    fcp.CanonicalID // and its instance
	Binary      fcp.Hash        // and its binary; zero for what is part of the node itself
	Zone        fcp.ZoneID
	NotBefore   time.Time
	Expires     time.Time // at most MaxTokenLifetime later
	Holder      fcp.WriterID
	Confirm     HolderPublic // proves possession
	Grants      []fcp.Hash   // refs of the grants that contain every right, 1 to MaxGrantsNamed
	Rights      []Right
	Constraints Constraints
	Checkpoint  CheckpointRef
	Depth       uint64 // how many times holders may narrow it further, 0 to MaxDelegation
}

// MaxDelegation limits how many links can follow the first of a chain.
const MaxDelegation = 7

// The claims of a native token.
var (
	nativeClaims = claimSet(claimIss, claimSub, claimAud, claimExp, claimNbf, claimIat, claimCti, claimCnf, claimZone, claimDepth,
		claimNode, claimGrantRefs, claimHolder, claimCheckpoint, claimCheckpointSeq, claimConstraints, claimRights, claimInstance)
	nativeOptional = claimSet(claimBinary, claimParent)
)

// MintToken makes the first token of a chain, signed by the node's issuance key.
// rand gives its id. It checks what it can alone; that the grants contain the
// rights is checked by CheckMint and by every Decide.
func MintToken(rand io.Reader, now time.Time, node *NodeKeys, spec TokenSpec) ([]byte, error) {
	c, err := spec.claims(rand, now)
	if err != nil {
		return nil, err
	}
	c.node = node.Writer().String()
	pub := node.Public().Issuance
	return signClaims(c, pub[:], node.Issue)
}

// CheckMint refuses, as every Decide would, a token whose grants are not exactly
// those given, are for another zone or principal, or do not contain its rights.
func CheckMint(spec TokenSpec, grants []*Grant) error {
	scopes := make([]scope, len(grants))
	parents := make([]*scope, len(grants))
	for i, g := range grants {
		switch {
		case !contains(spec.Grants, g.ref):
			return refuse(ReasonGrantUnknown, "the token does not name grant %.16s", g.ref)
		case g.o.Zone != spec.Zone:
			return refuse(ReasonGrantZone, "grant %.16s is for %s", g.ref, g.o.Zone)
		case g.o.Principal != spec.Principal:
			return refuse(ReasonGrantPrincipal, "grant %.16s is for %s", g.ref, g.o.Principal)
		}
		scopes[i] = g.scope()
		parents[i] = &scopes[i]
	}
	if len(grants) != len(spec.Grants) {
		return refuse(ReasonGrantUnknown, "%d of %d grants", len(grants), len(spec.Grants))
	}
	own := scope{spec.Rights, spec.Constraints}
	if p, ok := contained(&own, parents); !ok {
		return refuse(ReasonNotContained, "%s", p.String())
	}
	return nil
}

func signClaims(c *claims, key []byte, sign func([]byte) []byte) ([]byte, error) {
	if err := c.checkNative(); err != nil {
		return nil, err
	}
	payload, err := appendClaims(nil, c)
	if err != nil {
		return nil, err
	}
	s := sign1{protected: protectedHeader(fcp.KidOf(key), typCapability), payload: payload}
	s.signature = sign(s.toBeSigned())
	b := appendSign1(nil, s)
	if len(b) > maxSign1 {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "token of %d bytes, the limit is %d", len(b), maxSign1)
	}
	return b, nil
}

// claims fills in everything but the issuing node and the parent.
func (s *TokenSpec) claims(rand io.Reader, now time.Time) (*claims, error) {
	c := &claims{
		has: nativeClaims, iss: string(s.Issuer), sub: string(s.Principal), aud: string(s.Audience), instance: string(s.Instance),
		binary: s.Binary, zone: s.Zone, holder: s.Holder.String(), cnf: s.Confirm, grants: s.Grants, rights: s.Rights,
		constraints: s.Constraints, checkpoint: s.Checkpoint.ID, checkpointSeq: s.Checkpoint.Seq, depth: s.Depth,
	}
	if !s.Binary.IsZero() {
		c.has |= claimBit(claimBinary)
	}
	if err := setTimes(timeField{&c.nbf, s.NotBefore}, timeField{&c.exp, s.Expires}, timeField{&c.iat, now}); err != nil {
		return nil, err
	}
	var id TokenID
	if _, err := io.ReadFull(rand, id[:]); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a token id")
	}
	c.cti = id[:]
	return c, nil
}

// checkNative checks the closed set of claims of the native profile, each value by
// itself.
func (c *claims) checkNative() error {
	if missing := nativeClaims &^ c.has; missing != 0 {
		return refuse(ReasonClaimMissing, "")
	}
	if c.has&^(nativeClaims|nativeOptional) != 0 {
		return refuse(ReasonClaimUnknown, "a claim of the reference profile")
	}
	for _, id := range []string{c.iss, c.sub, c.aud, c.instance} {
		if _, err := fcp.ParseCanonicalID(id); err != nil {
			return refuse(ReasonClaims, "an identifier that is not canonical")
		}
	}
	for _, id := range []string{c.node, c.holder} {
		if h, err := fcp.ParseHash(id); err != nil || h.String() != id || h.IsZero() {
			return refuse(ReasonClaims, "a node that is no writer id")
		}
	}
	switch {
	case !c.zone.Valid():
		return refuse(ReasonClaims, "zone")
	case len(c.cti) != len(TokenID{}) || c.id() == TokenID{}:
		return refuse(ReasonClaims, "token id")
	case c.nbf >= c.exp || c.exp > maxUnixSeconds || c.iat > maxUnixSeconds:
		return refuse(ReasonClaims, "times")
	case c.exp-c.nbf > uint64(MaxTokenLifetime/time.Second):
		return refuse(ReasonTokenLifetime, "%d seconds", c.exp-c.nbf)
	case c.cnf == [KeySize]byte{} || c.checkpoint.IsZero():
		return refuse(ReasonClaims, "a confirmation key or checkpoint of zeros")
	case c.has&claimBit(claimBinary) != 0 && c.binary.IsZero():
		return refuse(ReasonClaims, "a binary of zeros")
	case c.has&claimBit(claimParent) != 0 && len(c.parent) != fcp.HashSize:
		return refuse(ReasonClaims, "parent")
	case c.depth > MaxDelegation:
		return refuse(ReasonClaims, "delegation depth %d", c.depth)
	}
	if err := checkRefs(c.grants); err != nil {
		return err
	}
	s := c.scope()
	return s.check("token")
}

// checkRefs takes 1 to MaxGrantsNamed refs, strictly ascending.
func checkRefs(refs []fcp.Hash) error {
	if len(refs) == 0 || len(refs) > MaxGrantsNamed {
		return refuse(ReasonClaims, "%d grants named", len(refs))
	}
	for i := range refs {
		if refs[i].IsZero() || i > 0 && string(refs[i-1][:]) >= string(refs[i][:]) {
			return refuse(ReasonClaims, "grants are not strictly ascending")
		}
	}
	return nil
}

func (c *claims) id() TokenID {
	var id TokenID
	copy(id[:], c.cti)
	return id
}

func (c *claims) scope() scope { return scope{c.rights, c.constraints} }

// tokenRef is what a child names its parent by: BLAKE3-256("FCP2-TOKEN-V1" ||
// bytes). There is only one string for a token, see parseSign1.
func tokenRef(b []byte) fcp.Hash { return purposeHash("FCP2-TOKEN-V1", b) }

// link is a token whose form and claims were checked and whose signature was not.
type link struct {
	ref  fcp.Hash
	kid  fcp.Kid
	sign sign1
	c    *claims
}

func parseLink(b []byte) (*link, error) {
	s, err := parseSign1(b)
	if err != nil {
		return nil, err
	}
	l := &link{ref: tokenRef(b), sign: s}
	if l.kid, err = s.kid(typCapability); err != nil {
		return nil, err
	}
	if l.c, err = parseClaims(s.payload); err != nil {
		return nil, err
	}
	return l, l.c.checkNative()
}

// TokenInfo is what an unverified token says, for display only.
type TokenInfo struct {
	ID       TokenID
	Kid      fcp.Kid
	IssuedAt time.Time
	Node     fcp.WriterID // that issued it, or where its parent's holder lives
	Parent   fcp.Hash     // zero for the first
	TokenSpec
}

// InspectToken returns what a token says without verifying anything. Nothing may be
// permitted because of it.
func InspectToken(b []byte) (TokenInfo, error) {
	l, err := parseLink(b)
	if err != nil {
		return TokenInfo{}, err
	}
	info := TokenInfo{ID: l.c.id(), Kid: l.kid, IssuedAt: fromUnix(l.c.iat), Node: writerOf(l.c.node), TokenSpec: l.c.spec()}
	copy(info.Parent[:], l.c.parent)
	return info, nil
}

func (c *claims) spec() TokenSpec {
	return TokenSpec{
		Issuer: fcp.CanonicalID(c.iss), Principal: fcp.CanonicalID(c.sub), Audience: fcp.CanonicalID(c.aud), Instance: fcp.CanonicalID(c.instance),
		Binary: c.binary, Zone: c.zone, NotBefore: fromUnix(c.nbf), Expires: fromUnix(c.exp), Holder: writerOf(c.holder), Confirm: c.cnf,
		Grants: c.grants, Rights: c.rights, Constraints: c.constraints, Checkpoint: CheckpointRef{c.checkpoint, c.checkpointSeq}, Depth: c.depth,
	}
}

// writerOf reads a writer id that checkNative has accepted.
func writerOf(s string) fcp.WriterID {
	h, err := fcp.ParseHash(s)
	if err != nil {
		return fcp.WriterID{}
	}
	return fcp.WriterID(h)
}
