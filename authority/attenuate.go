package authority

import (
	"io"
	"time"

	"fcp"
)

// MaxLinks limits the tokens of one chain.
const MaxLinks = MaxDelegation + 1

// Chain is a token and those it was narrowed from, the first one first, of which
// nothing was verified. On the wire it is a CBOR array of byte strings.
type Chain struct {
	raw  []byte
	refs []fcp.Hash
	b    [][]byte // each aliases raw
}

// ParseChain splits an encoded chain of 1 to MaxLinks tokens. It does not look
// into them: what verifies them does.
func ParseChain(b []byte) (*Chain, error) {
	if len(b) > MaxLinks*(maxSign1+4) {
		return nil, refuse(ReasonChainForm, "%d bytes", len(b))
	}
	r := reader{walker{b: b}}
	n := r.take(4)
	switch {
	case r.bad:
		return nil, refuse(ReasonChainForm, "not an array")
	case n == 0 || n > MaxLinks:
		return nil, refuse(ReasonChainLength, "%d tokens, 1 to %d", n, MaxLinks)
	}
	c := &Chain{raw: b, b: make([][]byte, n), refs: make([]fcp.Hash, n)}
	for i := range c.b {
		c.b[i] = r.run(2)
		if r.bad {
			return nil, refuse(ReasonChainForm, "token %d", i)
		}
		c.refs[i] = tokenRef(c.b[i])
	}
	if r.i != len(b) {
		return nil, refuse(ReasonChainForm, "bytes behind the chain")
	}
	return c, nil
}

// NewChain returns the chain of tokens, the first one first.
func NewChain(tokens ...[]byte) (*Chain, error) {
	w := orderedCBOR(nil)
	w.head(4, uint64(len(tokens)))
	for _, t := range tokens {
		w.bytes(t)
	}
	return ParseChain(w)
}

// Bytes returns the encoded chain. The caller must not change it.
func (c *Chain) Bytes() []byte { return c.raw }

// Tokens returns the encoded tokens, the first one first. The caller must not
// change them.
func (c *Chain) Tokens() [][]byte { return c.b }

// Refs returns the refs of the tokens, the first one first: what each is charged by.
// The caller must not change them.
func (c *Chain) Refs() []fcp.Hash { return c.refs }

// Leaf returns the ref of the last token, which a proof of possession names.
func (c *Chain) Leaf() fcp.Hash { return c.refs[len(c.refs)-1] }

// Narrowing says what a child token is to permit: a part of its parent. Audience,
// instance, binary, zone and checkpoint stay the parent's.
type Narrowing struct {
	Principal   fcp.CanonicalID // whom it is for; may be the parent's own
	Holder      fcp.WriterID    // the device it is used from
	Confirm     HolderPublic    // the key that proves its possession
	NotBefore   time.Time
	Expires     time.Time
	Grants      []fcp.Hash // some or all of the parent's
	Rights      []Right
	Constraints Constraints
	Depth       uint64 // below the parent's
}

// Attenuate appends a child to a chain without asking anybody: the key that the
// last token's confirmation claim names signs it. It refuses a child that is wider
// than its parent with the reason with which every verifier would refuse it.
func Attenuate(rand io.Reader, now time.Time, holder *HolderKey, parent *Chain, n Narrowing) (*Chain, error) {
	up, err := parseLink(parent.b[len(parent.b)-1])
	if err != nil {
		return nil, err
	}
	pub := holder.Public()
	if pub != HolderPublic(up.c.cnf) {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "the token is confirmed by another key")
	}
	spec := up.c.spec()
	spec.Issuer, spec.Principal, spec.Holder, spec.Confirm = fcp.CanonicalID(up.c.sub), n.Principal, n.Holder, n.Confirm
	spec.NotBefore, spec.Expires, spec.Grants, spec.Rights = n.NotBefore, n.Expires, n.Grants, n.Rights
	spec.Constraints, spec.Depth = n.Constraints, n.Depth
	c, err := spec.claims(rand, now)
	if err != nil {
		return nil, err
	}
	c.node = up.c.holder
	c.parent, c.has = up.ref[:], c.has|claimBit(claimParent)
	if err := c.checkNative(); err != nil {
		return nil, err
	}
	if err := checkChild(up.c, up.ref, c); err != nil {
		return nil, err
	}
	b, err := signClaims(c, pub[:], holder.sign)
	if err != nil {
		return nil, err
	}
	return NewChain(append(append([][]byte(nil), parent.b...), b)...)
}

// checkChild refuses a child that its parent does not permit: another place in the
// chain, a wider time, another context, or any use that the parent does not allow.
func checkChild(up *claims, upRef fcp.Hash, c *claims) error {
	switch {
	case c.has&claimBit(claimParent) == 0 || string(c.parent) != string(upRef[:]):
		return refuse(ReasonParent, "the child names another parent")
	case c.iss != up.sub || c.node != up.holder:
		return refuse(ReasonParent, "the child is not issued by its parent's holder")
	case c.depth >= up.depth: // also when the parent's is 0
		return refuse(ReasonDelegation, "depth %d below %d", c.depth, up.depth)
	case c.aud != up.aud || c.instance != up.instance || c.binary != up.binary || c.zone != up.zone:
		return refuse(ReasonContext, "audience, instance, binary or zone")
	case c.checkpoint != up.checkpoint || c.checkpointSeq != up.checkpointSeq:
		return refuse(ReasonContext, "checkpoint")
	case c.nbf < up.nbf || c.exp > up.exp:
		return refuse(ReasonWidened, "time")
	}
	for i := range c.grants {
		if !contains(up.grants, c.grants[i]) {
			return refuse(ReasonWidened, "a grant that the parent does not name")
		}
	}
	child, parent := c.scope(), up.scope()
	if p, ok := contained(&child, []*scope{&parent}); !ok {
		return refuse(ReasonWidened, "%s", p.String())
	}
	return nil
}
