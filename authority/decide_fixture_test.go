package authority

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"fcp"
)

// world is one zone with an owner, a node that mints and executes, a device that
// holds tokens, and everything Decide asks for. Its methods are the narrow
// interfaces of Facts.
type world struct {
	t        testing.TB
	now      time.Time
	owner    *OwnerKey
	node     *NodeKeys
	device   *NodeKeys
	holders  []*HolderKey // of the links of a chain
	attested Attestations
	auth     Authorities
	grants   map[fcp.Hash]*Grant
	bindings []*Binding
	revokedR map[fcp.Hash]fcp.Hash
	used     map[fcp.Hash][2]uint64
	leases   map[fcp.ObjectID]LeaseFact
	clear    TaintFlags
	mint     bool
	rate     bool
	latest   CheckpointRef
	oldest   uint64
	atSeq    map[uint64]fcp.Hash
	seed     byte
}

const (
	testPrincipal  fcp.CanonicalID = "user:alice"
	testConnector  fcp.CanonicalID = "fcp.mail:operational:1.0.0"
	testInstance   fcp.CanonicalID = "mail-1"
	testCapability fcp.CanonicalID = "mail.read"
)

func newWorld(t testing.TB) *world {
	w := &world{
		t: t, now: testNow, owner: testOwner(t, 1), node: testNode(t, 1), device: testNode(t, 2), grants: map[fcp.Hash]*Grant{},
		revokedR: map[fcp.Hash]fcp.Hash{}, used: map[fcp.Hash][2]uint64{}, leases: map[fcp.ObjectID]LeaseFact{}, mint: true,
		latest: CheckpointRef{fcp.Hash{50}, 50}, oldest: 10, atSeq: map[uint64]fcp.Hash{}, seed: 100,
	}
	for s := range uint64(51) {
		w.atSeq[s] = fcp.Hash{byte(s)}
	}
	w.auth.Owner = w.owner.Public()
	for i := range byte(MaxLinks) {
		k, err := NewHolderKey(testRand(40 + i))
		w.holders = append(w.holders, must(t, k, err))
	}
	for _, n := range []*NodeKeys{w.node, w.device} {
		w.attest(n, w.now.Add(-time.Hour), w.now.Add(30*24*time.Hour))
	}
	w.bind(BindingSpec{Principal: testPrincipal, Devices: []fcp.WriterID{w.device.Writer()}, Zones: []fcp.ZoneID{fcp.ZoneWork},
		Capabilities: Patterns{"mail.*"}, NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(time.Hour)})
	return w
}

func (w *world) attest(n *NodeKeys, from, until time.Time) *Attestation {
	b, err := SignAttestation(w.owner, AttestationSpec{Node: n.Public(), From: from, Until: until})
	must(w.t, b, err)
	u, err := OpenAttestation(b)
	must(w.t, u, err)
	a, err := u.Authorize(&w.auth)
	must(w.t, a, err)
	w.attested.Add(a)
	return a
}

func (w *world) bind(s BindingSpec) *Binding {
	b, err := SignBinding(w.now, w.owner, s)
	must(w.t, b, err)
	x, err := VerifyBinding(w.owner.Public(), b)
	w.bindings = append(w.bindings, must(w.t, x, err))
	return x
}

func (w *world) Bindings(p fcp.CanonicalID) (out []*Binding) {
	for _, b := range w.bindings {
		if b.o.Principal == p {
			out = append(out, b)
		}
	}
	return out
}

func (w *world) Grant(ref fcp.Hash) (*Grant, bool) { g, ok := w.grants[ref]; return g, ok }

func (w *world) MayMint(fcp.WriterID, fcp.ZoneID, fcp.CanonicalID) (fcp.Hash, bool) {
	return fcp.Hash{7}, w.mint
}

func (w *world) Revoked(ref fcp.Hash, _ ...RevocationScope) (fcp.Hash, bool) {
	by, ok := w.revokedR[ref]
	return by, ok
}

func (w *world) MayClear(fcp.CanonicalID, fcp.WriterID, fcp.ZoneID) TaintFlags { return w.clear }

func (w *world) Latest() CheckpointRef              { return w.latest }
func (w *world) At(seq uint64) (fcp.Hash, bool)     { h, ok := w.atSeq[seq]; return h, ok }
func (w *world) Oldest() uint64                     { return w.oldest }
func (w *world) Used(ref fcp.Hash) (uint64, uint64) { u := w.used[ref]; return u[0], u[1] }
func (w *world) RateExceeded(*Request) bool         { return w.rate }

func (w *world) Lease(s fcp.ObjectID) (LeaseFact, bool) { l, ok := w.leases[s]; return l, ok }

func (w *world) facts() *Facts {
	l, _ := fcp.ZoneWork.StandardLevels()
	return &Facts{
		Now: w.now, Executor: Executor{Node: w.node.Writer(), Tags: []string{"tag:fcp-work"}, Zones: []fcp.ZoneID{fcp.ZoneWork}},
		Levels: l, RevocationFresh: true, CheckpointFresh: true,
		Revocations: w, Checkpoints: w, Issuers: &w.attested, Minters: w, Grants: w, Bindings: w, Authorities: &w.auth,
		Sanitizers: w, Leases: w, Limits: w,
	}
}

func (w *world) grantSpec() GrantSpec {
	return GrantSpec{
		Zone: fcp.ZoneWork, Principal: testPrincipal, Rights: []Right{{testCapability, "mail.list"}, {testCapability, "mail.get"}},
		Constraints: Constraints{ResourceAllow: []string{"mail://inbox/"}, ResourceDeny: []string{"mail://inbox/secret"}},
		NotBefore:   w.now.Add(-time.Minute), NotAfter: w.now.Add(time.Hour),
	}
}

func (w *world) grant(s GrantSpec) *Grant {
	b, err := SignGrant(w.now, w.owner, s)
	must(w.t, b, err)
	g, err := VerifyGrant(b)
	w.grants[must(w.t, g, err).ref] = g
	return g
}

func (w *world) tokenSpec(grants ...*Grant) TokenSpec {
	s := TokenSpec{
		Issuer: "user:owner", Principal: testPrincipal, Audience: testConnector, Instance: testInstance, Zone: fcp.ZoneWork,
		NotBefore: w.now, Expires: w.now.Add(5 * time.Minute), Holder: w.device.Writer(), Confirm: w.holders[0].Public(),
		Rights: []Right{{testCapability, "mail.get"}}, Constraints: Constraints{ResourceAllow: []string{"mail://inbox/"}, ResourceDeny: []string{"mail://inbox/secret"}},
		Checkpoint: CheckpointRef{fcp.Hash{40}, 40}, Depth: MaxDelegation,
	}
	for _, g := range grants {
		s.Grants = append(s.Grants, g.ref)
	}
	slices.SortFunc(s.Grants, func(a, b fcp.Hash) int { return bytes.Compare(a[:], b[:]) })
	return s
}

func (w *world) next() byte { w.seed++; return w.seed }

func (w *world) mintChain(s TokenSpec) *Chain {
	w.t.Helper()
	b, err := MintToken(testRand(w.next()), w.now, w.node, s)
	must(w.t, b, err)
	c, err := NewChain(b)
	return must(w.t, c, err)
}

// narrowing is the child of c's last link that permits the same.
func (w *world) narrowing(c *Chain) Narrowing {
	i, err := InspectToken(c.b[len(c.b)-1])
	must(w.t, &i, err)
	return Narrowing{
		Principal: i.Principal, Holder: i.Holder, Confirm: w.holders[len(c.b)].Public(), NotBefore: i.NotBefore, Expires: i.Expires,
		Grants: i.Grants, Rights: i.Rights, Constraints: i.Constraints, Depth: i.Depth - 1,
	}
}

func (w *world) attenuate(c *Chain, n Narrowing) *Chain {
	w.t.Helper()
	c, err := Attenuate(testRand(w.next()), w.now, w.holders[len(c.b)-1], c, n)
	return must(w.t, c, err)
}

// forge appends a child that nothing was asked about: it permits what its parent
// does, changed as the caller likes, and is signed by the right key.
func (w *world) forge(c *Chain, change func(*claims)) *Chain {
	w.t.Helper()
	i := len(c.b)
	up, err := parseLink(c.b[i-1])
	must(w.t, up, err)
	child := *up.c
	child.iss, child.node, child.depth, child.cnf = up.c.sub, up.c.holder, up.c.depth-1, w.holders[i].Public()
	child.cti, child.parent = slices.Repeat([]byte{w.next() | 1}, 16), up.ref[:]
	child.has |= claimBit(claimParent)
	change(&child)
	return w.seal(c, &child, w.holders[i-1])
}

// seal signs claims without checking them and appends the token.
func (w *world) seal(c *Chain, child *claims, key *HolderKey) *Chain {
	w.t.Helper()
	payload, err := appendClaims(nil, child)
	must(w.t, payload, err)
	pub := key.Public()
	s := sign1{protected: protectedHeader(fcp.KidOf(pub[:]), typCapability), payload: payload}
	s.signature = key.sign(s.toBeSigned())
	out, err := NewChain(append(slices.Clone(c.b), appendSign1(nil, s))...)
	return must(w.t, out, err)
}

// request is one that the usual token permits; finish it with prove.
func (w *world) request(c *Chain) *Request {
	l, _ := fcp.ZoneWork.StandardLevels()
	return &Request{
		ID: fcp.ObjectID{9}, Zone: fcp.ZoneWork, Principal: testPrincipal, Device: w.device.Writer(), Connector: testConnector,
		Instance: testInstance, Capability: testCapability, Operation: "mail.get", Resource: "mail://inbox/17", Tier: TierSafe,
		Carrier: CarrierLAN, Data: Label{Origin: fcp.ZoneWork, Levels: l, ID: fcp.Hash{3}}, Token: c,
	}
}

var testChallenge = Challenge{ChallengeNonce, [32]byte{1, 2, 3}}

// prove makes the proof of possession of the chain's last holder.
func (w *world) prove(r *Request) *Request {
	w.t.Helper()
	if r.Token == nil {
		return r
	}
	sig := w.holders[len(r.Token.b)-1].Prove(testChallenge, r.Token.Leaf(), r.Hash())
	p, err := VerifyProof(r.Token, testChallenge, r.Hash(), sig)
	r.Proof = must(w.t, p, err)
	return r
}

// usual returns a chain of n links and a request that it permits.
func (w *world) usual(links int) (*Chain, *Request) {
	w.t.Helper()
	c := w.mintChain(w.tokenSpec(w.grant(w.grantSpec())))
	for range links - 1 {
		c = w.attenuate(c, w.narrowing(c))
	}
	return c, w.prove(w.request(c))
}

func wantDecision(t testing.TB, d Decision, want fcp.Reason) {
	t.Helper()
	if d.Reason != want || d.Allowed() != (want == ReasonAllow) || (d.Err() == nil) != d.Allowed() {
		t.Errorf("%v %s (%s), want %s", d.Allowed(), d.Reason, d.Detail, want)
	}
	if err := d.Err(); err != nil && ReasonOf(err) != want {
		t.Errorf("the error's reason is %q", ReasonOf(err))
	}
}
