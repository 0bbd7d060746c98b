package respond

import (
	"time"

	"fcp"
	"fcp/authority"
)

var signedOps = []Operation{
	{Name: "signed.verify", Input: "a signed object: schema hash and body", Params: []Param{{"key", "Ed25519 key of who must have signed: the owner, or the node"},
		{"keys", "further signing keys that count as witnesses, hex, joined by commas"}}, Output: "the object's ref; of a genesis its id",
		run: verifySigned},
	{Name: "card.verify", Input: "a segment card", Output: "the segment id", run: func(in []byte, _ *params) ([]byte, error) {
		c, err := fcp.DecodeCard(in)
		return c.Segment[:], err
	}},
	{Name: "token.verify", Input: "a chain of tokens", Params: []Param{{"issuer", "issuance key of the node that minted the first, hex"}}, Output: "the ref of the last token",
		run: func(in []byte, p *params) ([]byte, error) {
			c, err := authority.ParseChain(in)
			if err != nil {
				return nil, err
			}
			if err := c.Verify(issuer(p.key("issuer")), time.Time{}); err != nil {
				return nil, err
			}
			leaf := c.Leaf()
			return leaf[:], nil
		}},
	{Name: "token.reference", Input: "a token of the reference profile", Params: []Param{{"issuer", "issuance key, hex"}}, Output: "its cti",
		run: func(in []byte, p *params) ([]byte, error) {
			c, err := authority.VerifyReference(authority.IssuancePublic(p.key("issuer")), in)
			if err != nil {
				return nil, err
			}
			return c.ID, nil
		}},
	{Name: "proof.verify", Input: "a holder's signature", Params: []Param{{"chain", "chain of tokens, hex"}, {"kind", "1 nonce, 2 exporter"},
		{"challenge", "32 bytes, hex"}, {"request", "request hash, hex"}}, Output: "nothing", run: func(in []byte, p *params) ([]byte, error) {
		c, err := authority.ParseChain(p.bytes("chain", -1))
		if err != nil {
			return nil, err
		}
		_, err = authority.VerifyProof(c, authority.Challenge{Kind: authority.ChallengeKind(p.number("kind")), Value: p.key("challenge")}, p.hash("request"), in)
		return nil, err
	}},
	{Name: "revocation.check", Input: "a target: 32 bytes", Params: []Param{{"owner", "owner key, hex"}, {"revocations", "signed revocations, hex, joined by commas"},
		{"scope", "revocation scope"}, {"at", "unix seconds"}}, Output: "00 when it stands; 01 and the ref of the revocation when it is revoked",
		run: checkRevocation},
	{Name: "checkpoints.judge", Input: "nothing", Params: []Param{{"genesis", "hex"}, {"zone", "zone id"}, {"checkpoints", "zone checkpoints in any order, hex, joined by commas"}},
		Output: "the ref of the last accepted one; the genesis id when none is", run: judgeCheckpoints},
	{Name: "flow.check", Input: "nothing", Params: []Param{{"from", "levels of the data: integrity,confidentiality"}, {"to", "levels of the zone, likewise"}},
		Output: "one byte: 1 needs an elevation, 2 needs a declassification, 3 both, 0 nothing", run: checkFlow},
	{Name: "quorum.need", Input: "nothing", Params: []Param{{"members", "number"}, {"faults", "number"}}, Output: "one byte: ceil((n+f+1)/2) signatures",
		run: func(_ []byte, p *params) ([]byte, error) {
			q := authority.Quorum{N: p.small("members"), F: p.small("faults")}
			if !q.Valid() || q.N > 255 {
				return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%d members of which %d lie", q.N, q.F)
			}
			return []byte{byte(q.Intersecting())}, nil
		}},
}

// verifySigned finds out from the schema hash what the object is.
func verifySigned(in []byte, p *params) ([]byte, error) {
	if len(in) < fcp.HashSize {
		return nil, fcp.Errorf(fcp.CodeSchema, "%d bytes", len(in))
	}
	key := p.key("key")
	v := verifiers[fcp.Hash(in[:fcp.HashSize])]
	if v == nil {
		return nil, fcp.Errorf(fcp.CodeSchema, "not a signed object")
	}
	ref := authority.RefOf(in)
	if r, err := v(in, key, p); err != nil {
		return nil, err
	} else if r != nil {
		ref = *r
	}
	return ref[:], nil
}

// verifier verifies an object of one schema; a ref that is not RefOf is returned.
type verifier func(in []byte, key [32]byte, p *params) (*fcp.Hash, error)

func byOwner[T any](verify func(authority.OwnerPublic, []byte) (T, error)) verifier {
	return func(in []byte, key [32]byte, _ *params) (*fcp.Hash, error) {
		_, err := verify(key, in)
		return nil, err
	}
}

func byNode[T any](verify func(authority.SigningPublic, []byte) (T, error)) verifier {
	return func(in []byte, key [32]byte, _ *params) (*fcp.Hash, error) {
		_, err := verify(key, in)
		return nil, err
	}
}

// byIssuer is for objects that name their issuer and verify by themselves.
func byIssuer[T any](verify func([]byte) (T, error), issuer func(T) [32]byte) verifier {
	return func(in []byte, key [32]byte, _ *params) (*fcp.Hash, error) {
		x, err := verify(in)
		if err == nil && issuer(x) != key {
			err = fcp.Errorf(fcp.CodeWrongKey, "another issuer")
		}
		return nil, err
	}
}

var verifiers = map[fcp.Hash]verifier{
	fcp.SchemaZoneDefinition.Hash():         byOwner(authority.VerifyZone),
	fcp.SchemaZoneKeyManifest.Hash():        byOwner(authority.VerifyManifest),
	fcp.SchemaRevocation.Hash():             byOwner(authority.VerifyRevocation),
	fcp.SchemaDeviceEnrollment.Hash():       byOwner(authority.VerifyDevice),
	fcp.SchemaZonePolicy.Hash():             byOwner(authority.VerifyPolicy),
	fcp.SchemaDelegation.Hash():             byOwner(authority.VerifyDelegation),
	fcp.SchemaIssuerSet.Hash():              byOwner(authority.VerifyIssuerSet),
	fcp.SchemaRole.Hash():                   byOwner(authority.VerifyRole),
	fcp.SchemaPrincipalBinding.Hash():       byOwner(authority.VerifyBinding),
	fcp.SchemaDecisionReceipt.Hash():        byNode(authority.VerifyDecision),
	fcp.SchemaOperationIntent.Hash():        byNode(authority.VerifyIntent),
	fcp.SchemaOperationReceipt.Hash():       byNode(authority.VerifyReceipt),
	fcp.SchemaZoneCheckpoint.Hash():         verifyCheckpoint,
	fcp.SchemaAuditHead.Hash():              verifyHead,
	fcp.SchemaForkProof.Hash():              verifyFork,
	fcp.SchemaForgetting.Hash():             byOwner(authority.VerifyForgetting),
	fcp.SchemaAttestation.Hash():            verifyAuthorized(authority.OpenAttestation),
	fcp.SchemaRoleAssignment.Hash():         verifyAuthorized(authority.OpenAssignment),
	fcp.SchemaCapability.Hash():             byIssuer(authority.VerifyGrant, func(g *authority.Grant) [32]byte { return g.Issuer() }),
	fcp.SchemaApprovalToken.Hash():          byIssuer(authority.VerifyApproval, func(a *authority.Approval) [32]byte { return a.Issuer() }),
	fcp.SchemaLeaseRequest.Hash():           verifyLeaseRequest,
	fcp.SchemaSecret.Hash():                 verifyAuthorized(authority.OpenSecret),
	authority.SchemaSecretAccess.Hash():     verifySecretAccess,
	authority.SchemaSanitizerReceipt.Hash(): verifySanitizer,
}

// verifyAuthorized is for objects that an owner or an admin may sign: here the owner.
func verifyAuthorized[U interface {
	Authorize(*authority.Authorities) (V, error)
}, V any](open func([]byte) (U, error)) verifier {
	return func(in []byte, key [32]byte, _ *params) (*fcp.Hash, error) {
		u, err := open(in)
		if err != nil {
			return nil, err
		}
		_, err = u.Authorize(&authority.Authorities{Owner: key})
		return nil, err
	}
}

func verifySecretAccess(in []byte, key [32]byte, _ *params) (*fcp.Hash, error) {
	_, err := authority.VerifySecretAccess(&authority.Authorities{Owner: key}, in)
	return nil, err
}

func verifySanitizer(in []byte, key [32]byte, _ *params) (*fcp.Hash, error) {
	s, err := authority.VerifySanitizer(in)
	if err == nil && s.Issuer() != fcp.WriterOf(key[:]) {
		err = fcp.Errorf(fcp.CodeWrongKey, "another node")
	}
	return nil, err
}

func verifyFork(in []byte, key [32]byte, _ *params) (*fcp.Hash, error) {
	f, err := authority.VerifyFork(in)
	if err == nil && f.Feed().Writer != fcp.WriterOf(key[:]) {
		err = fcp.Errorf(fcp.CodeWrongKey, "another writer")
	}
	return nil, err
}

// witnesses are the signers whose keys the request names.
func witnesses(p *params) authority.Signers {
	known := map[fcp.WriterID]authority.SigningPublic{}
	for _, k := range p.list("keys") {
		x := &params{values: map[string]string{"keys": k}}
		pub := x.key("keys")
		if x.err != nil {
			p.bad("keys", x.err)
		}
		known[fcp.WriterOf(pub[:])] = pub
	}
	return func(w fcp.WriterID) (authority.SigningPublic, bool) { k, ok := known[w]; return k, ok }
}

func verifyHead(in []byte, key [32]byte, p *params) (*fcp.Hash, error) {
	h, err := authority.VerifyHead(in, witnesses(p))
	if err != nil {
		return nil, err
	}
	if h.Feed().Writer != fcp.WriterOf(key[:]) {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "another writer")
	}
	ref := h.Ref()
	return &ref, nil
}

// verifyCheckpoint takes genesis and checkpoints of retention; what members sign
// together is for checkpoints.judge.
func verifyCheckpoint(in []byte, key [32]byte, _ *params) (*fcp.Hash, error) {
	if g, err := authority.VerifyGenesis(in); err == nil {
		return &g.ID, g.CheckOwner(key)
	}
	_, err := authority.VerifyCheckpoint(key, in)
	id := authority.CheckpointHash(in)
	return &id, err
}

func judgeCheckpoints(_ []byte, p *params) ([]byte, error) {
	g, err := authority.VerifyGenesis(p.bytes("genesis", -1))
	if err != nil {
		return nil, err
	}
	var set authority.ZoneCheckpoints
	for _, text := range p.list("checkpoints") {
		x := &params{values: map[string]string{"c": text}}
		c, err := authority.DecodeZoneCheckpoint(x.bytes("c", -1))
		if err != nil {
			return nil, err
		}
		set.Add(c)
	}
	state, fork := set.Judge(authority.GenesisState(g, p.zone("zone")), &authority.RevocationSet{})
	if fork != nil {
		return nil, fcp.Errorf(fcp.CodeEquivocation, "two checkpoints may follow")
	}
	return state.Ref[:], nil
}

// issuer is the one issuance key that counts.
type issuer authority.IssuancePublic

func (i issuer) Issuer(kid fcp.Kid, _ fcp.WriterID, _ time.Time) (authority.IssuancePublic, error) {
	if kid != fcp.KidOf(i[:]) {
		return authority.IssuancePublic{}, fcp.Errorf(fcp.CodeSignature, "another kid")
	}
	return authority.IssuancePublic(i), nil
}

func (i issuer) At(fcp.WriterID, time.Time) (*authority.Attestation, error) {
	return nil, fcp.Errorf(fcp.CodeNotFound, "no attestation")
}

func checkRevocation(in []byte, p *params) ([]byte, error) {
	if len(in) != fcp.HashSize {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a target of %d bytes", len(in))
	}
	var set authority.RevocationSet
	owner := p.key("owner")
	for _, text := range p.list("revocations") {
		x := &params{values: map[string]string{"r": text}}
		r, err := authority.VerifyRevocation(owner, x.bytes("r", -1))
		if err != nil {
			return nil, err
		}
		set.Add(r)
	}
	if r := set.Of(fcp.Hash(in), p.time("at"), authority.RevocationScope(p.text("scope"))); r != nil {
		ref := r.Ref()
		return append([]byte{1}, ref[:]...), nil
	}
	return []byte{0}, nil
}

func checkFlow(_ []byte, p *params) ([]byte, error) {
	levels := func(name string) (l fcp.Levels) {
		parts := p.list(name)
		for i, to := range []*uint8{&l.Integrity, &l.Confidentiality} {
			if len(parts) != 2 {
				p.bad(name, fcp.Errorf(fcp.CodeInvalidArgument, "not two levels"))
				return l
			}
			x := &params{values: map[string]string{name: parts[i]}}
			n := x.number(name)
			if x.err != nil || n > fcp.MaxLevel {
				p.bad(name, fcp.Errorf(fcp.CodeInvalidArgument, "level %q", parts[i]))
			}
			*to = uint8(n)
		}
		return l
	}
	f := authority.FlowTo(levels("from"), levels("to"))
	out := byte(0)
	if f.Elevation {
		out |= 1
	}
	if f.Declassification {
		out |= 2
	}
	return []byte{out}, nil
}
