package catalog

import (
	"encoding/hex"
	"fmt"
	"time"

	"fcp"
	"fcp/authority"
)

// Event returns an event of the feed that the examples speak of.
func (c *Catalog) Event(seq uint64, prev fcp.Hash, body []byte) fcp.Event {
	e := fcp.Event{Feed: c.Feed(), Seq: seq, Prev: prev, Time: fcp.TimeFromWall(Now) + fcp.Time(seq), Under: fcp.Hash(c.Genesis.Facts.ID)}
	e.Kind, e.Body = fcp.KindAuditEntry, body
	return e
}

// leaf returns an event's leaf data (docs/format.md "Event hash").
func leaf(e *fcp.Event) []byte {
	content := fcp.ContentHash(e.Content.AppendTo(nil))
	return fcp.AppendLeaf(nil, fcp.ScopeHash(e.Feed.ID(), e.Under), e.Seq, e.Time, e.Prev, content)
}

// branch returns a history of two events of which the second has that body, and
// its signed head.
func (c *Catalog) branch(body string) authority.Branch {
	first := c.Event(1, fcp.Hash{}, []byte("\xa0"))
	second := c.Event(2, first.Hash(), []byte(body))
	h, err := authority.SignHead(c.Node, authority.HeadSpec{Feed: c.Feed(), Epoch: uint64(Now.Unix()) / 300, Size: 2, Hash: second.Hash(),
		Root: fcp.NodeHash(first.Hash(), second.Hash()), At: Now})
	return authority.Branch{Head: take(c, h, err), Leaf: leaf(&second), Path: []fcp.Hash{first.Hash()}}
}

func (c *Catalog) audit() {
	a, b := c.branch("\xa1\x01\x01"), c.branch("\xa1\x01\x02")
	if c.err != nil {
		return
	}
	head, err := a.Head.Encode()
	c.add("audit-head", fcp.SchemaAuditHead, head, err)
	both, err := a.Head.Cosign(c.Second, Now.Add(time.Second))
	if take(c, both, err); c.err != nil {
		return
	}
	head, err = both.Encode()
	c.add("audit-head-cosigned", fcp.SchemaAuditHead, head, err)
	fork, err := authority.ProveFork(2, a, b)
	c.add("fork-proof", fcp.SchemaForkProof, fork, err)

	ack, err := authority.EncodeDeletionAck(authority.DeletionAck{Zone: fcp.ZoneWork, Node: c.Node.Writer(), Subject: fcp.Hash{1}, Mark: 3})
	c.add("deletion-ack", fcp.SchemaDeletionAck, ack, err)
	ack, err = authority.EncodeDeletionAck(authority.DeletionAck{Zone: fcp.ZoneWork, Node: c.Node.Writer(), Subject: fcp.Hash{1}})
	c.add("deletion-ack-forgotten", fcp.SchemaDeletionAck, ack, err)
	forgetting, err := authority.SignForgetting(Now, c.Owner, authority.ForgettingSpec{Zone: fcp.ZoneWork, Objects: []fcp.ObjectID{{1}, {2}},
		Carriers: []authority.Carriers{{Writer: c.Node.Writer(), Incarnation: 7, Runs: []authority.Run{{First: 3, Last: 5}, {First: 9, Last: 9}}}}})
	c.add("forgetting", fcp.SchemaForgetting, forgetting, err)

	e := authority.AuditEvent{Zone: fcp.ZoneWork, Type: authority.AuditDenied, Actor: "user:alice", At: Now}
	entry, err := authority.EncodeAuditEvent(e)
	c.add("audit-event-small", fcp.SchemaAuditEvent, entry, err)
	e.Connector, e.Operation, e.Reason, e.Token = "fcp.mail:operational:1.0.0", "mail.get", "token.expired", fcp.Hash{1}
	e.Request, e.Result, e.Correlation = fcp.Hash{2}, fcp.Hash{3}, [16]byte{4}
	entry, err = authority.EncodeAuditEvent(e)
	c.add("audit-event", fcp.SchemaAuditEvent, entry, err)
}

// What the tokens of the catalog are for.
const (
	Principal fcp.CanonicalID = "user:alice"
	Connector fcp.CanonicalID = "fcp.mail:operational:1.0.0"
	Instance  fcp.CanonicalID = "mail-1"
	Read      fcp.CanonicalID = "mail.read"
)

// Rights and constraints of the grant and of the tokens.
func rights() []authority.Right {
	return []authority.Right{{Capability: Read, Operation: "mail.get"}, {Capability: Read, Operation: "mail.list"}}
}

func inbox() authority.Constraints {
	return authority.Constraints{ResourceAllow: []string{"mail://inbox/"}, ResourceDeny: []string{"mail://inbox/secret"}, MaxCalls: 10, MaxBytes: 1 << 20}
}

// TokenSpec is the spec of the catalog's token, for variations of it.
func (c *Catalog) TokenSpec() authority.TokenSpec {
	return authority.TokenSpec{Issuer: "user:owner", Principal: Principal, Audience: Connector, Instance: Instance, Binary: fcp.Hash{8}, Zone: fcp.ZoneWork,
		NotBefore: Now, Expires: Now.Add(5 * time.Minute), Holder: c.Second.Writer(), Confirm: c.Holder.Public(), Grants: []fcp.Hash{c.Grant.Ref()},
		Rights: rights(), Constraints: inbox(), Checkpoint: authority.CheckpointRef{ID: fcp.Hash{40}, Seq: 40}, Depth: 2}
}

func (c *Catalog) tokens() {
	spec := authority.GrantSpec{Zone: fcp.ZoneWork, Principal: Principal, Rights: rights(), Constraints: inbox(), NotBefore: Now, NotAfter: Now.Add(time.Hour)}
	b, err := authority.SignGrant(Now, c.Owner, spec)
	c.add("grant", fcp.SchemaCapability, b, err)
	if c.err != nil {
		return
	}
	g, err := authority.VerifyGrant(b)
	if c.Grant = take(c, g, err); c.err != nil {
		return
	}
	spec.Constraints.CredentialAllow, spec.Constraints.IdempotencyKey = []authority.CredentialID{{3}}, "daily"
	spec.Placement = authority.Placement{RequireTags: []string{"tag:fcp-work"}, Zones: []fcp.ZoneID{fcp.ZoneWork}, Excluded: []fcp.WriterID{c.Second.Writer()}}
	b, err = authority.SignGrant(Now, c.Owner, spec)
	c.add("grant-placed", fcp.SchemaCapability, b, err)
	b, err = authority.SignBinding(Now, c.Owner, authority.BindingSpec{Principal: Principal, Devices: []fcp.WriterID{c.Second.Writer()},
		Zones: []fcp.ZoneID{fcp.ZoneWork}, Capabilities: authority.Patterns{"mail.*"}, NotBefore: Now, NotAfter: Now.Add(time.Hour)})
	c.add("binding", fcp.SchemaPrincipalBinding, b, err)

	b, err = authority.MintToken(Random(20), Now, c.Node, c.TokenSpec())
	c.Token = b
	c.item("token", "CapabilityToken", b, err)
	if c.err != nil {
		return
	}
	parent, err := authority.NewChain(b)
	if take(c, parent, err); c.err != nil {
		return
	}
	child, err := authority.NewHolderKey(Random(21))
	if take(c, child, err); c.err != nil {
		return
	}
	chain, err := authority.Attenuate(Random(22), Now, c.Holder, parent, authority.Narrowing{Principal: "agent:reader", Holder: c.Second.Writer(),
		Confirm: child.Public(), NotBefore: Now, Expires: Now.Add(time.Minute), Grants: []fcp.Hash{c.Grant.Ref()}, Rights: rights()[:1],
		Constraints: inbox(), Depth: 0})
	if c.Chain = take(c, chain, err); c.err != nil {
		return
	}
	c.item("token-chain", "TokenChain", chain.Bytes(), nil)
	c.item("token-child", "CapabilityToken", chain.Tokens()[1], nil)
	b, err = authority.MintReference(c.Node, authority.ReferenceClaims{Issuer: "node-1", Expires: uint64(Now.Unix()) + 300, At: uint64(Now.Unix()),
		ID: Bytes(9, 16), Capability: string(Read), Zone: fcp.ZoneWork, Operations: []string{"mail.get"}, Principal: string(Principal)})
	c.Reference = b
	c.item("token-reference", "ReferenceToken", b, err)
}

func (c *Catalog) approvals() {
	approve := func(name string, s authority.ApprovalScope) {
		b, err := authority.SignApproval(Random(30), c.Owner, authority.ApprovalSpec{Zone: fcp.ZoneWork, IssuedAt: Now, Expires: Now.Add(time.Hour),
			Justification: "asked by phone", Scope: s})
		c.add(name, fcp.SchemaApprovalToken, b, err)
	}
	approve("approval-elevation", authority.ApprovalScope{Kind: authority.ApproveElevation, Operation: "mail.send", Provenance: fcp.Hash{1}, Integrity: 60})
	approve("approval-declassification", authority.ApprovalScope{Kind: authority.ApproveDeclassification, From: fcp.ZoneWork, To: fcp.ZonePublic,
		Objects: []fcp.ObjectID{{1}}, Confidentiality: 10})
	approve("approval-execution", authority.ApprovalScope{Kind: authority.ApproveExecution, Connector: Connector, Method: "mail.*", Request: fcp.ObjectID{2},
		InputHash: fcp.Hash{3}, Input: []authority.InputConstraint{{Pointer: "/to", Expected: []byte("\x65alice")}}})

	b, err := authority.SignSanitizer(Now, c.Node, authority.SanitizerSpec{ID: "receipt-1", Zone: fcp.ZoneWork, Sanitizer: "fcp.scan:clam:1",
		Authorized: authority.PublicInput | authority.UnverifiedLink, Cleared: authority.UnverifiedLink, Covered: []string{"input-1"}})
	c.add("sanitizer", authority.SchemaSanitizerReceipt, b, err)
	b, err = authority.SignSecretAccess(Random(31), c.Owner, authority.SecretAccessSpec{Zone: fcp.ZoneWork, Secret: authority.SecretID{1},
		Credential: authority.CredentialID{2}, Holder: c.Second.Writer(), Request: fcp.Hash{3}, Purpose: "send a mail", NotBefore: Now, Expires: Now.Add(time.Minute)})
	c.add("secret-access", authority.SchemaSecretAccess, b, err)

	r := &authority.Request{ID: fcp.ObjectID{9}, Zone: fcp.ZoneWork, Principal: Principal, Device: c.Second.Writer(), Connector: Connector, Instance: Instance,
		Capability: Read, Operation: "mail.get", Resource: "mail://inbox/17", Tier: authority.TierRisky}
	small := authority.SmallestGrant(r, Now)
	b, err = authority.SignDecision(Now, c.Node, r, &authority.Decision{Reason: "capability.insufficient", Detail: "no grant", Request: r.Hash(),
		Evidence: []fcp.Hash{{1}, {2}}, Smallest: &small})
	c.add("decision", fcp.SchemaDecisionReceipt, b, err)
	b, err = authority.SignDecision(Now, c.Node, r, &authority.Decision{Reason: "revoked.token", Request: r.Hash()})
	c.add("decision-small", fcp.SchemaDecisionReceipt, b, err)

	key, fence := "once", uint64(4)
	header := func(s fcp.Schema) fcp.ObjectHeader { return fcp.PlainHeader(s, fcp.ZoneWork, uint64(Now.Unix())) }
	intent := authority.OperationIntent{Header: header(fcp.SchemaOperationIntent), Request: fcp.ObjectID{9}, Token: authority.TokenID{1},
		PlannedAt: uint64(Now.Unix()), PlannedBy: c.Node.Writer().String()}
	b, err = authority.SignIntent(c.Node, intent)
	c.add("intent-small", fcp.SchemaOperationIntent, b, err)
	intent.IdempotencyKey, intent.LeaseSeq, intent.Upstream = &key, &fence, &key
	b, err = authority.SignIntent(c.Node, intent)
	c.add("intent", fcp.SchemaOperationIntent, b, err)
	receipt := authority.OperationReceipt{Header: header(fcp.SchemaOperationReceipt), Request: fcp.ObjectID{9}, ExecutedAt: uint64(Now.Unix()),
		ExecutedBy: c.Node.Writer().String(), Outcomes: []fcp.ObjectID{}, Resources: []fcp.ObjectID{}}
	b, err = authority.SignReceipt(c.Node, receipt)
	c.add("receipt-small", fcp.SchemaOperationReceipt, b, err)
	receipt.IdempotencyKey, receipt.Outcomes, receipt.Resources = &key, []fcp.ObjectID{{1}}, []fcp.ObjectID{{2}}
	receipt.Usage = []authority.UsageMetric{{Kind: "bytes", Amount: 100, Unit: &key}}
	b, err = authority.SignReceipt(c.Node, receipt)
	c.add("receipt", fcp.SchemaOperationReceipt, b, err)
}

func (c *Catalog) unsigned() {
	header := fcp.PlainHeader(fcp.SchemaCredential, fcp.ZoneWork, uint64(Now.Unix()))
	for i, a := range []authority.Application{{Type: authority.ApplyBearer}, {Type: authority.ApplyHeader, Name: "X-Key", Prefix: "Key "},
		{Type: authority.ApplyGeneric, Config: map[string]string{"user": "alice"}}} {
		b, err := authority.EncodeCredential(&authority.CredentialObject{Header: header, ID: authority.CredentialID{1}, Label: "mail", Secret: authority.SecretID{2},
			Application: a, HostAllow: []string{"*.example.org"}, ExpiresAt: uint64(Now.Unix()) + 1000, Description: "for the inbox", Tags: []string{"mail"}})
		c.add(fmt.Sprintf("credential-%d", i+1), fcp.SchemaCredential, b, err)
	}
	b, err := authority.EncodeResource(&authority.ResourceObject{Header: fcp.PlainHeader(authority.SchemaResource, fcp.ZoneWork, uint64(Now.Unix())),
		Connector: Connector, URI: "mail://inbox/17", Levels: fcp.Levels{Integrity: 10, Confidentiality: 20}, Taint: authority.PublicInput, Version: "3",
		FetchedAt: uint64(Now.Unix())})
	c.add("resource", authority.SchemaResource, b, err)

	key, prev, until := authority.KeyID{1}, authority.KeyID{3}, uint64(Now.Unix())+3600
	wrapped := []authority.ReferenceWrappedKey{{Recipient: "node-1", IssuedAt: uint64(Now.Unix()), Sealed: authority.ReferenceBox{
		Enc: hex.EncodeToString(Bytes(32, 32)), Ciphertext: hex.EncodeToString(Bytes(33, 48))}}}
	b, err = fcp.Marshal(&authority.ReferenceManifest{Header: fcp.PlainHeader(fcp.SchemaZoneKeyManifest, fcp.ZoneWork, uint64(Now.Unix())), Zone: fcp.ZoneWork,
		ZoneKeyID: key, ObjectIDKey: authority.KeyID{2}, Algorithm: authority.ReferenceChaCha, ValidFrom: uint64(Now.Unix()), ValidUntil: &until, Prev: &prev,
		ZoneKeys: wrapped, IDKeys: wrapped, Rekey: &authority.ReferenceRekeyPolicy{Overlap: &until, RetainEpochs: &until},
		Signature: authority.NodeSignature{Node: "node-1", SignedAt: uint64(Now.Unix())}})
	c.item("reference-manifest", "ReferenceManifest", b, err)
}
