package authority

import (
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
)

// Issuers finds the issuance key of a node. *Attestations is one: a kid is a hint,
// and only the attested key of the node that the token names counts.
type Issuers interface {
	Issuer(kid fcp.Kid, node fcp.WriterID, at time.Time) (IssuancePublic, error)
	At(node fcp.WriterID, at time.Time) (*Attestation, error)
}

// verifiedLink is a token whose signature is that of key. Whether key may sign it
// is asked each time.
type verifiedLink struct {
	key [KeySize]byte
	kid fcp.Kid
	c   *claims
}

// LinkCache remembers tokens whose signature was verified, so that a token used
// again costs a hash instead of a signature. It remembers nothing that can change:
// time, revocation, attestation and grants are looked at each time. It keeps at
// most 2 x its size of tokens. Safe for concurrent use; a nil LinkCache remembers
// nothing.
type LinkCache struct {
	mu         sync.Mutex
	young, old map[fcp.Hash]*verifiedLink // guarded by mu; old is the generation before
	size       int
}

// DefaultLinkCacheSize is the usual size of a LinkCache: about 4 MB when full.
const DefaultLinkCacheSize = 2048

// NewLinkCache makes a cache that turns over after size tokens.
func NewLinkCache(size int) *LinkCache {
	return &LinkCache{size: max(1, size), young: make(map[fcp.Hash]*verifiedLink)}
}

func (c *LinkCache) get(ref fcp.Hash) *verifiedLink {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.young[ref]; l != nil {
		return l
	}
	l := c.old[ref]
	if l != nil {
		c.put(ref, l)
	}
	return l
}

func (c *LinkCache) add(ref fcp.Hash, l *verifiedLink) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(ref, l)
}

func (c *LinkCache) put(ref fcp.Hash, l *verifiedLink) {
	if len(c.young) >= c.size {
		c.old, c.young = c.young, make(map[fcp.Hash]*verifiedLink, c.size)
	}
	c.young[ref] = l
}

// verifiedChain is a chain of which every signature verifies, every link stands
// where its parent permits, and the first issuer is attested now.
type verifiedChain struct {
	links []*verifiedLink
	node  fcp.WriterID // that minted the first
}

func (v *verifiedChain) leaf() *claims { return v.links[len(v.links)-1].c }

// verifyChain checks the signatures and the form of a chain against the attested
// issuers, and each child against its parent.
func verifyChain(chain *Chain, issuers Issuers, cache *LinkCache, now time.Time) (*verifiedChain, error) {
	v := &verifiedChain{links: make([]*verifiedLink, 0, len(chain.b))}
	if err := v.first(chain.b[0], chain.refs[0], issuers, cache, now); err != nil {
		return nil, err
	}
	for i := 1; i < len(chain.b); i++ {
		up := v.links[i-1].c
		l, err := nextLink(chain.b[i], chain.refs[i], chain.refs[i-1], up, cache)
		if err != nil {
			return nil, err
		}
		v.links = append(v.links, l)
	}
	return v, nil
}

// Verify checks that the first token is signed by the attested issuance key of the
// node it names and each further one by its parent's holder, within what its parent
// permits. Whether the chain permits a request is the question of Decide.
func (c *Chain) Verify(issuers Issuers, now time.Time) error {
	_, err := verifyChain(c, issuers, nil, now)
	return err
}

// first verifies the link that a node minted.
func (v *verifiedChain) first(b []byte, ref fcp.Hash, issuers Issuers, cache *LinkCache, now time.Time) error {
	known := cache.get(ref)
	var l *link
	if known == nil {
		var err error
		if l, err = parseLink(b); err != nil {
			return err
		}
		known = &verifiedLink{kid: l.kid, c: l.c}
	}
	if known.c.has&claimBit(claimParent) != 0 {
		return refuse(ReasonParent, "the first token of the chain names a parent")
	}
	node := writerOf(known.c.node)
	key, err := issuers.Issuer(known.kid, node, now)
	switch {
	case err != nil:
		return err
	case l == nil && key != IssuancePublic(known.key), l != nil && !key.Verify(l.sign.toBeSigned(), l.sign.signature):
		return refuse(ReasonTokenSignature, "of node %.16s", node)
	case l != nil:
		known.key = key
		cache.add(ref, known)
	}
	v.links, v.node = append(v.links, known), node
	return nil
}

// nextLink verifies a link that its parent's holder signed.
func nextLink(b []byte, ref, upRef fcp.Hash, up *claims, cache *LinkCache) (*verifiedLink, error) {
	if known := cache.get(ref); known != nil && known.key == up.cnf && string(known.c.parent) == string(upRef[:]) {
		return known, nil
	}
	l, err := parseLink(b)
	if err != nil {
		return nil, err
	}
	if err := checkChild(up, upRef, l.c); err != nil {
		return nil, err
	}
	if l.kid != fcp.KidOf(up.cnf[:]) {
		return nil, refuse(ReasonTokenSignature, "the kid is not that of the parent's confirmation key")
	}
	if !HolderPublic(up.cnf).Verify(l.sign.toBeSigned(), l.sign.signature) {
		return nil, refuse(ReasonTokenSignature, "of the parent's confirmation key")
	}
	known := &verifiedLink{key: up.cnf, kid: l.kid, c: l.c}
	cache.add(ref, known)
	return known, nil
}

// ChallengeKind says where a challenge comes from.
type ChallengeKind uint8

// The two kinds of challenge. Either is fresh for each session or request.
const (
	ChallengeNonce    ChallengeKind = 1 // 32 bytes drawn by the verifier for this request
	ChallengeExporter ChallengeKind = 2 // 32 bytes exported from the TLS session (RFC 9266), the same for all its requests
)

// Challenge is what makes a proof of possession fresh.
type Challenge struct {
	Kind  ChallengeKind
	Value [32]byte
}

const proofPurpose = "FCP2-HOLDER-PROOF-V2"

// proofMessage is what a holder signs: purpose, kind of challenge, challenge, ref
// of the last token of the chain and request hash. Every part has a fixed length.
func proofMessage(c Challenge, leaf, request fcp.Hash) []byte {
	b := make([]byte, 0, len(proofPurpose)+1+3*fcp.HashSize)
	b = append(append(b, proofPurpose...), byte(c.Kind))
	b = append(b, c.Value[:]...)
	b = append(b, leaf[:]...)
	return append(b, request[:]...)
}

// Prove signs that the holder makes this request now. leaf is Chain.Leaf, request
// is Request.Hash.
func (k *HolderKey) Prove(c Challenge, leaf, request fcp.Hash) []byte {
	return k.sign(proofMessage(c, leaf, request))
}

// Proof is a verified proof of possession, made by VerifyProof: whoever has the
// key asked for this request over this challenge.
type Proof struct {
	key           HolderPublic
	leaf, request fcp.Hash
}

// VerifyProof checks a holder's signature against the confirmation key of the
// chain's last token. The challenge must be the verifier's own and not used
// before. It does not say that the chain is valid: Decide does.
func VerifyProof(chain *Chain, c Challenge, request fcp.Hash, signature []byte) (*Proof, error) {
	if c.Kind != ChallengeNonce && c.Kind != ChallengeExporter || c.Value == [32]byte{} {
		return nil, refuse(ReasonProof, "no challenge")
	}
	l, err := parseLink(chain.b[len(chain.b)-1])
	if err != nil {
		return nil, err
	}
	key := HolderPublic(l.c.cnf)
	if !key.Verify(proofMessage(c, l.ref, request), signature) {
		return nil, refuse(ReasonProof, "")
	}
	return &Proof{key: key, leaf: l.ref, request: request}, nil
}

// purposeHash returns BLAKE3-256(purpose || b).
func purposeHash(purpose string, b []byte) fcp.Hash {
	var buf [1024]byte
	return blake3.Sum256(append(append(buf[:0], purpose...), b...))
}
