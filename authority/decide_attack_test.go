package authority

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"fcp"
)

// attack changes the usual world, request or chain before the decision.
type attack struct {
	name   string
	reason fcp.Reason
	do     func(w *world, f *Facts, r *Request)
}

// rechain gives the request another chain and a good proof of possession.
func rechain(w *world, r *Request, c *Chain) {
	r.Token = c
	w.prove(r)
}

// remint mints the first token anew with a change.
func remint(w *world, r *Request, change func(*TokenSpec)) {
	var g *Grant
	for _, g = range w.grants {
	}
	s := w.tokenSpec(g)
	change(&s)
	rechain(w, r, w.mintChain(s))
}

// regrant replaces the grant and mints a token that names the new one.
func regrant(w *world, r *Request, change func(*GrantSpec)) {
	s := w.grantSpec()
	change(&s)
	clear(w.grants)
	w.grant(s)
	remint(w, r, func(*TokenSpec) {})
}

func tamper(w *world, r *Request, link int, change func(*claims)) {
	c := r.Token
	l, err := parseLink(c.b[link])
	must(w.t, l, err)
	changed := *l.c
	change(&changed)
	payload, err := appendClaims(nil, &changed)
	must(w.t, payload, err)
	l.sign.payload = payload
	tokens := slices.Clone(c.b)
	tokens[link] = appendSign1(nil, l.sign)
	out, err := NewChain(tokens...)
	r.Token = must(w.t, out, err)
}

// stranger mints the usual token with another node's keys.
func stranger(w *world, n *NodeKeys) *Chain {
	var g *Grant
	for _, g = range w.grants {
	}
	b, err := MintToken(testRand(w.next()), w.now, n, w.tokenSpec(g))
	must(w.t, b, err)
	c, err := NewChain(b)
	return must(w.t, c, err)
}

var attacks = []attack{
	{"nothing", ReasonAllow, func(*world, *Facts, *Request) {}},

	// freshness, carrier, lists
	{"revocations stale", ReasonRevocationStale, func(w *world, f *Facts, r *Request) { f.RevocationFresh = false }},
	{"checkpoint stale", ReasonCheckpointStale, func(w *world, f *Facts, r *Request) { f.CheckpointFresh = false }},
	{"over a relay", ReasonTransportDERP, func(w *world, f *Facts, r *Request) { r.Carrier = CarrierDERP }},
	{"over a funnel", ReasonTransportFunnel, func(w *world, f *Facts, r *Request) { r.Carrier = CarrierFunnel }},
	{"over the local network", ReasonTransportLAN, func(w *world, f *Facts, r *Request) { f.Transport.NoLAN = true }},
	{"over nothing known", ReasonRequest, func(w *world, f *Facts, r *Request) { r.Carrier = "pigeon" }},
	{"over nothing said", ReasonRequest, func(w *world, f *Facts, r *Request) { r.Carrier = "" }},
	{"principal denied", ReasonPrincipalDenied, func(w *world, f *Facts, r *Request) { f.Policy.Principals.Deny = Patterns{"user:al*"} }},
	{"connector denied", ReasonConnectorDenied, func(w *world, f *Facts, r *Request) { f.Policy.Connectors.Deny = Patterns{"*"} }},
	{"capability denied", ReasonCapabilityDenied, func(w *world, f *Facts, r *Request) { f.Policy.Capabilities.Deny = Patterns{"mail.read"} }},
	{"principal not allowed", ReasonPrincipalNotAllowed, func(w *world, f *Facts, r *Request) { f.Policy.Principals.Allow = Patterns{"user:bob"} }},
	{"connector not allowed", ReasonConnectorNotAllowed, func(w *world, f *Facts, r *Request) { f.Policy.Connectors.Allow = Patterns{"x"} }},
	{"capability not allowed", ReasonCapabilityNotAllowed, func(w *world, f *Facts, r *Request) { f.Policy.Capabilities.Allow = Patterns{"x"} }},
	{"deny beats allow", ReasonPrincipalDenied, func(w *world, f *Facts, r *Request) {
		f.Policy.Principals = Lists{Allow: Patterns{"*"}, Deny: Patterns{"*"}}
	}},
	{"no role", ReasonCeiling, func(w *world, f *Facts, r *Request) { f.Ceiling = &Patterns{} }},
	{"tier above the principal's", ReasonCeiling, func(w *world, f *Facts, r *Request) {
		f.Policy.PrincipalRules = []PrincipalRule{{"user:*", TierSafe}}
		r.Tier = TierRisky
	}},
	{"forbidden", ReasonForbidden, func(w *world, f *Facts, r *Request) { r.Tier = TierForbidden }},
	{"unknown tier", ReasonRequest, func(w *world, f *Facts, r *Request) { r.Tier = "mild" }},
	{"resource of every name", ReasonRequest, func(w *world, f *Facts, r *Request) { r.Resource = AnyResource }},

	// binding
	{"no binding", ReasonBindingMissing, func(w *world, f *Facts, r *Request) { w.bindings = nil }},
	{"binding of another device", ReasonBindingDevice, func(w *world, f *Facts, r *Request) { w.bindings[0].o.Devices = []fcp.WriterID{{1}} }},
	{"binding over", ReasonBindingTime, func(w *world, f *Facts, r *Request) { w.bindings[0].o.ValidUntil = uint64(w.now.Unix()) }},
	{"binding to come", ReasonBindingTime, func(w *world, f *Facts, r *Request) { w.bindings[0].o.ValidFrom = uint64(w.now.Unix()) + 1 }},
	{"binding to another zone", ReasonBindingZone, func(w *world, f *Facts, r *Request) { w.bindings[0].o.Zones = []fcp.ZoneID{fcp.ZonePrivate} }},
	{"binding to another capability", ReasonBindingCapability, func(w *world, f *Facts, r *Request) { w.bindings[0].o.Capabilities = Patterns{"mail.send"} }},
	{"binding revoked", ReasonRevokedBinding, func(w *world, f *Facts, r *Request) { w.revokedR[w.bindings[0].ref] = fcp.Hash{1} }},

	// signatures and issuers
	{"no token", ReasonTokenMissing, func(w *world, f *Facts, r *Request) { r.Token = nil }},
	{"claims changed", ReasonTokenSignature, func(w *world, f *Facts, r *Request) {
		tamper(w, r, 0, func(c *claims) { c.exp++ })
	}},
	{"unknown issuer", ReasonKidUnknown, func(w *world, f *Facts, r *Request) { rechain(w, r, stranger(w, testNode(w.t, 9))) }},
	{"node named by another issuer", ReasonKidOfAnother, func(w *world, f *Facts, r *Request) {
		tamper(w, r, 0, func(c *claims) { c.node = w.device.Writer().String() })
	}},
	{"attestation over", ReasonAttestationExpired, func(w *world, f *Facts, r *Request) {
		n := testNode(w.t, 9)
		w.attest(n, w.now.Add(-2*time.Hour), w.now)
		rechain(w, r, stranger(w, n))
	}},
	{"attestation to come", ReasonAttestationFuture, func(w *world, f *Facts, r *Request) {
		n := testNode(w.t, 9)
		w.attest(n, w.now.Add(time.Second), w.now.Add(time.Hour))
		rechain(w, r, stranger(w, n))
	}},
	{"issuer without right", ReasonIssuerRight, func(w *world, f *Facts, r *Request) { w.mint = false }},

	// time
	{"expired", ReasonTokenExpired, func(w *world, f *Facts, r *Request) { f.Now = w.now.Add(5*time.Minute + TokenSkew) }},
	{"expired within the skew", ReasonAllow, func(w *world, f *Facts, r *Request) { f.Now = w.now.Add(5*time.Minute + TokenSkew - time.Second) }},
	{"future", ReasonTokenEarly, func(w *world, f *Facts, r *Request) { f.Now = w.now.Add(-TokenSkew - time.Second) }},
	{"future within the skew", ReasonAllow, func(w *world, f *Facts, r *Request) {
		regrant(w, r, func(s *GrantSpec) { s.NotBefore = w.now.Add(-time.Hour) })
		f.Now = w.now.Add(-TokenSkew)
	}},

	// context
	{"wrong audience", ReasonAudience, func(w *world, f *Facts, r *Request) {
		remint(w, r, func(s *TokenSpec) { s.Audience = "fcp.files:operational:1.0.0" })
	}},
	{"wrong binary", ReasonBinary, func(w *world, f *Facts, r *Request) { remint(w, r, func(s *TokenSpec) { s.Binary = fcp.Hash{1} }) }},
	{"binary not pinned", ReasonBinary, func(w *world, f *Facts, r *Request) { r.Binary = fcp.Hash{1}; w.prove(r) }},
	{"wrong instance", ReasonInstance, func(w *world, f *Facts, r *Request) { remint(w, r, func(s *TokenSpec) { s.Instance = "mail-2" }) }},
	{"wrong zone", ReasonTokenZone, func(w *world, f *Facts, r *Request) { remint(w, r, func(s *TokenSpec) { s.Zone = fcp.ZonePrivate }) }},
	{"wrong principal", ReasonPrincipal, func(w *world, f *Facts, r *Request) { remint(w, r, func(s *TokenSpec) { s.Principal = "user:bob" }) }},
	{"wrong holder", ReasonHolder, func(w *world, f *Facts, r *Request) { remint(w, r, func(s *TokenSpec) { s.Holder = w.node.Writer() }) }},
	{"no proof", ReasonProofMissing, func(w *world, f *Facts, r *Request) { r.Proof = nil }},
	{"proof of another request", ReasonProofOther, func(w *world, f *Facts, r *Request) { r.Operation = "mail.list" }},
	{"proof of another input", ReasonProofOther, func(w *world, f *Facts, r *Request) { r.InputHash[0] ^= 1 }},
	{"proof of another token", ReasonProofOther, func(w *world, f *Facts, r *Request) {
		p := r.Proof
		remint(w, r, func(*TokenSpec) {})
		r.Proof = p
	}},
	{"proof of another key", ReasonProof, func(w *world, f *Facts, r *Request) {
		p := r.Proof
		remint(w, r, func(s *TokenSpec) { s.Confirm = w.holders[1].Public(); w.holders[0] = w.holders[1] })
		r.Proof = p
	}},

	// checkpoint
	{"checkpoint ahead", ReasonCheckpointToken, func(w *world, f *Facts, r *Request) {
		remint(w, r, func(s *TokenSpec) { s.Checkpoint = CheckpointRef{fcp.Hash{51}, 51} })
	}},
	{"checkpoint too old", ReasonCheckpointTooOld, func(w *world, f *Facts, r *Request) {
		remint(w, r, func(s *TokenSpec) { s.Checkpoint = CheckpointRef{fcp.Hash{9}, 9} })
	}},
	{"checkpoint of a fork", ReasonCheckpointFork, func(w *world, f *Facts, r *Request) {
		remint(w, r, func(s *TokenSpec) { s.Checkpoint = CheckpointRef{fcp.Hash{99}, 40} })
	}},

	// grants
	{"grant unknown", ReasonGrantUnknown, func(w *world, f *Facts, r *Request) { clear(w.grants) }},
	{"grant by nobody", ReasonNotOwner, func(w *world, f *Facts, r *Request) {
		clear(w.grants)
		b, err := SignGrant(w.now, w.device, w.grantSpec())
		must(w.t, b, err)
		g, err := VerifyGrant(b)
		w.grants[must(w.t, g, err).ref] = g
		remint(w, r, func(*TokenSpec) {})
	}},
	{"grant for another zone", ReasonGrantZone, func(w *world, f *Facts, r *Request) { regrant(w, r, func(s *GrantSpec) { s.Zone = fcp.ZonePrivate }) }},
	{"grant for another principal", ReasonGrantPrincipal, func(w *world, f *Facts, r *Request) { regrant(w, r, func(s *GrantSpec) { s.Principal = "user:bob" }) }},
	{"grant over", ReasonGrantExpired, func(w *world, f *Facts, r *Request) { regrant(w, r, func(s *GrantSpec) { s.NotAfter = w.now }) }},
	{"grant to come", ReasonGrantEarly, func(w *world, f *Facts, r *Request) {
		regrant(w, r, func(s *GrantSpec) { s.NotBefore = w.now.Add(time.Second) })
	}},
	{"token wider than its grant", ReasonNotContained, func(w *world, f *Facts, r *Request) {
		remint(w, r, func(s *TokenSpec) { s.Constraints.ResourceDeny = nil })
	}},
	{"wrong place", ReasonPlacement, func(w *world, f *Facts, r *Request) {
		regrant(w, r, func(s *GrantSpec) { s.Placement.RequireTags = []string{"tag:fcp-vault"} })
	}},
	{"excluded device", ReasonPlacement, func(w *world, f *Facts, r *Request) {
		regrant(w, r, func(s *GrantSpec) { s.Placement.Excluded = []fcp.WriterID{w.node.Writer()} })
	}},
	{"another capability", ReasonCapability, func(w *world, f *Facts, r *Request) { r.Capability = "mail.send"; w.prove(r) }},
	{"another operation", ReasonOperation, func(w *world, f *Facts, r *Request) { r.Operation = "mail.list"; w.prove(r) }},
	{"another resource", ReasonResource, func(w *world, f *Facts, r *Request) { r.Resource = "mail://sent/1"; w.prove(r) }},
	{"a denied resource", ReasonResource, func(w *world, f *Facts, r *Request) { r.Resource = "mail://inbox/secret/1"; w.prove(r) }},
	{"a credential", ReasonCredential, func(w *world, f *Facts, r *Request) { r.Credential = CredentialID{1}; w.prove(r) }},
	{"another idempotency key", ReasonIdempotencyKey, func(w *world, f *Facts, r *Request) {
		r.IdempotencyKey = "k2"
		remint(w, r, func(s *TokenSpec) { s.Constraints.IdempotencyKey = "k1" })
	}},

	// revocation of everything that is not a link
	{"grant revoked", ReasonRevokedGrant, func(w *world, f *Facts, r *Request) {
		for ref := range w.grants {
			w.revokedR[ref] = fcp.Hash{1}
		}
	}},
	{"granting key revoked", ReasonRevokedGrant, func(w *world, f *Facts, r *Request) { w.revokedR[fcp.Hash(w.owner.Public())] = fcp.Hash{1} }},
	{"issuance key revoked", ReasonRevokedIssuer, func(w *world, f *Facts, r *Request) { w.revokedR[fcp.Hash(w.node.Public().Issuance)] = fcp.Hash{1} }},
	{"issuing node revoked", ReasonRevokedAttestation, func(w *world, f *Facts, r *Request) { w.revokedR[fcp.Hash(w.node.Writer())] = fcp.Hash{1} }},
	{"holding device revoked", ReasonRevokedAttestation, func(w *world, f *Facts, r *Request) { w.revokedR[fcp.Hash(w.device.Writer())] = fcp.Hash{1} }},
	{"attestation revoked", ReasonRevokedAttestation, func(w *world, f *Facts, r *Request) {
		a, err := w.attested.At(w.node.Writer(), w.now)
		w.revokedR[must(w.t, a, err).Ref()] = fcp.Hash{1}
	}},
	{"binary revoked", ReasonRevokedBinary, func(w *world, f *Facts, r *Request) {
		r.Binary = fcp.Hash{77}
		remint(w, r, func(s *TokenSpec) { s.Binary = fcp.Hash{77} })
		w.revokedR[fcp.Hash{77}] = fcp.Hash{1}
	}},

	// lease and limits
	{"no lease", ReasonLeaseMissing, func(w *world, f *Facts, r *Request) { r.NeedsLease = true }},
	{"another's lease", ReasonLeaseHolder, func(w *world, f *Facts, r *Request) {
		r.NeedsLease, w.leases[r.Subject] = true, LeaseFact{Holder: w.device.Writer(), Expires: w.now.Add(1)}
	}},
	{"lease over", ReasonLeaseExpired, func(w *world, f *Facts, r *Request) {
		r.NeedsLease, w.leases[r.Subject] = true, LeaseFact{Holder: w.node.Writer(), Expires: w.now}
	}},
	{"old fence", ReasonLeaseStale, func(w *world, f *Facts, r *Request) {
		r.NeedsLease, w.leases[r.Subject] = true, LeaseFact{Holder: w.node.Writer(), Expires: w.now.Add(1), Seq: 2}
	}},
	{"fence of the future", ReasonLeaseStale, func(w *world, f *Facts, r *Request) {
		r.NeedsLease, r.LeaseSeq, w.leases[r.Subject] = true, 3, LeaseFact{Holder: w.node.Writer(), Expires: w.now.Add(1), Seq: 2}
		w.prove(r)
	}},
	{"calls used up", ReasonLimitCalls, func(w *world, f *Facts, r *Request) {
		remint(w, r, func(s *TokenSpec) { s.Constraints.MaxCalls = 2 })
		w.used[r.Token.Refs()[0]] = [2]uint64{2, 0}
	}},
	{"calls of the grant used up", ReasonLimitCalls, func(w *world, f *Facts, r *Request) {
		regrant(w, r, func(s *GrantSpec) { s.Constraints.MaxCalls = 2 })
		remint(w, r, func(s *TokenSpec) { s.Constraints.MaxCalls = 2 })
		for ref := range w.grants {
			w.used[ref] = [2]uint64{2, 0}
		}
	}},
	{"too many bytes", ReasonLimitBytes, func(w *world, f *Facts, r *Request) {
		r.Bytes = 11
		remint(w, r, func(s *TokenSpec) { s.Constraints.MaxBytes = 10 })
	}},
	{"bytes used up", ReasonLimitBytes, func(w *world, f *Facts, r *Request) {
		r.Bytes = 1
		remint(w, r, func(s *TokenSpec) { s.Constraints.MaxBytes = 10 })
		w.used[r.Token.Refs()[0]] = [2]uint64{0, 10}
	}},
	{"too often", ReasonLimitRate, func(w *world, f *Facts, r *Request) { w.rate = true }},
}

// TestAttacksAreRefusedWithTheirOwnReason runs every attack with and without a
// cache that has seen the usual chain.
func TestAttacksAreRefusedWithTheirOwnReason(t *testing.T) {
	for _, a := range attacks {
		for _, cached := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/cached=%v", a.name, cached), func(t *testing.T) {
				w := newWorld(t)
				_, r := w.usual(1)
				f := w.facts()
				if cached {
					f.Cache = NewLinkCache(10)
					wantDecision(t, Decide(f, r), ReasonAllow)
				}
				a.do(w, f, r)
				wantDecision(t, Decide(f, r), a.reason)
			})
		}
	}
}

// TestUnknownFactsRefuse takes away one interface at a time.
func TestUnknownFactsRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		reason fcp.Reason
		drop   func(*Facts)
	}{
		"revocations": {ReasonRevokedBinding, func(f *Facts) { f.Revocations = nil }},
		"checkpoints": {ReasonCheckpointStale, func(f *Facts) { f.Checkpoints = nil }},
		"issuers":     {ReasonKidUnknown, func(f *Facts) { f.Issuers = nil }},
		"minters":     {ReasonIssuerRight, func(f *Facts) { f.Minters = nil }},
		"grants":      {ReasonGrantUnknown, func(f *Facts) { f.Grants = nil }},
		"bindings":    {ReasonBindingMissing, func(f *Facts) { f.Bindings = nil }},
		"authorities": {ReasonGrantIssuer, func(f *Facts) { f.Authorities = nil }},
		"leases":      {ReasonLeaseMissing, func(f *Facts) { f.Leases = nil }},
		"limits":      {ReasonLimitRate, func(f *Facts) { f.Limits = nil }},
		"everything":  {ReasonRevocationStale, func(f *Facts) { *f = Facts{} }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, r := w.usual(1)
			r.NeedsLease = name == "leases"
			f := w.facts()
			c.drop(f)
			wantDecision(t, Decide(f, r), c.reason)
		})
	}
}

// TestRevokingAnyLinkRefusesAllBelow revokes each link of the longest chain, by
// its id and by the key it confirms, with and without a warm cache.
func TestRevokingAnyLinkRefusesAllBelow(t *testing.T) {
	w := newWorld(t)
	chain, _ := w.usual(MaxLinks)
	f := w.facts()
	f.Cache = NewLinkCache(100)
	for revoked := range MaxLinks {
		i, err := InspectToken(chain.b[revoked])
		must(t, &i, err)
		for _, ref := range []fcp.Hash{i.ID.Ref(), fcp.Hash(i.Confirm)} {
			for leaf := range MaxLinks {
				c, err := NewChain(chain.b[:leaf+1]...)
				r := w.prove(w.request(must(t, c, err)))
				wantDecision(t, Decide(f, r), ReasonAllow)
				w.revokedR[ref] = fcp.Hash{1}
				want := ReasonAllow
				if leaf >= revoked {
					want = ReasonRevokedToken
				}
				wantDecision(t, Decide(f, r), want)
				delete(w.revokedR, ref)
			}
		}
	}
}

// TestForgedChildren signs children with the right key that say more than their
// parent permits, at every place of a chain.
func TestForgedChildren(t *testing.T) {
	for name, c := range map[string]struct {
		reason fcp.Reason
		change func(*world, *claims)
	}{
		"nothing": {ReasonAllow, func(*world, *claims) {}},
		"longer":  {ReasonWidened, func(_ *world, c *claims) { c.exp++ }},
		"earlier": {ReasonWidened, func(_ *world, c *claims) { c.nbf-- }},
		"another operation": {ReasonWidened, func(_ *world, c *claims) {
			c.rights = append(slices.Clone(c.rights), Right{testCapability, "mail.list"})
		}},
		"every operation":     {ReasonWidened, func(_ *world, c *claims) { c.rights = []Right{{testCapability, AnyOperation}} }},
		"another capability":  {ReasonWidened, func(_ *world, c *claims) { c.rights = []Right{{"mail.send", "mail.get"}} }},
		"every resource":      {ReasonWidened, func(_ *world, c *claims) { c.constraints.ResourceAllow = []string{AnyResource} }},
		"a denied resource":   {ReasonWidened, func(_ *world, c *claims) { c.constraints.ResourceDeny = nil }},
		"a credential":        {ReasonWidened, func(_ *world, c *claims) { c.constraints.CredentialAllow = []CredentialID{{1}} }},
		"another grant":       {ReasonWidened, func(_ *world, c *claims) { c.grants = []fcp.Hash{{1}} }},
		"another audience":    {ReasonContext, func(_ *world, c *claims) { c.aud = "fcp.files:operational:1.0.0" }},
		"another instance":    {ReasonContext, func(_ *world, c *claims) { c.instance = "mail-2" }},
		"another zone":        {ReasonContext, func(_ *world, c *claims) { c.zone = fcp.ZonePrivate }},
		"a binary":            {ReasonContext, func(_ *world, c *claims) { c.binary, c.has = fcp.Hash{1}, c.has|claimBit(claimBinary) }},
		"another checkpoint":  {ReasonContext, func(_ *world, c *claims) { c.checkpoint = fcp.Hash{41} }},
		"another number":      {ReasonContext, func(_ *world, c *claims) { c.checkpointSeq++ }},
		"another parent":      {ReasonParent, func(_ *world, c *claims) { c.parent = slices.Repeat([]byte{1}, 32) }},
		"no parent":           {ReasonParent, func(_ *world, c *claims) { c.parent, c.has = nil, c.has&^claimBit(claimParent) }},
		"another issuer":      {ReasonParent, func(_ *world, c *claims) { c.iss = "user:mallory" }},
		"another node":        {ReasonParent, func(w *world, c *claims) { c.node = w.node.Writer().String() }},
		"equal depth":         {ReasonDelegation, func(_ *world, c *claims) { c.depth++ }},
		"no rights":           {ReasonScope, func(_ *world, c *claims) { c.rights = []Right{} }},
		"no resources":        {ReasonScope, func(_ *world, c *claims) { c.constraints.ResourceAllow = nil }},
		"a reference claim":   {ReasonClaimUnknown, func(_ *world, c *claims) { c.capability, c.has = "x", c.has|claimBit(claimCapability) }},
		"a claim left out":    {ReasonClaimMissing, func(_ *world, c *claims) { c.has &^= claimBit(claimInstance) }},
		"an id of zeros":      {ReasonClaims, func(_ *world, c *claims) { c.cti = make([]byte, 16) }},
		"a day and a second":  {ReasonTokenLifetime, func(_ *world, c *claims) { c.exp = c.nbf + 86401 }},
		"a holder of zeros":   {ReasonClaims, func(_ *world, c *claims) { c.holder = fcp.WriterID{}.String() }},
		"a principal in caps": {ReasonClaims, func(_ *world, c *claims) { c.sub = "User:Alice" }},
	} {
		for above := 1; above < 4; above++ {
			t.Run(fmt.Sprintf("%s/%d", name, above), func(t *testing.T) {
				w := newWorld(t)
				chain, _ := w.usual(above)
				chain = w.forge(chain, func(x *claims) { c.change(w, x) })
				r := w.request(chain)
				r.Proof = &Proof{key: w.holders[above].Public(), leaf: chain.Leaf(), request: r.Hash()}
				f := w.facts()
				for _, f.Cache = range []*LinkCache{nil, NewLinkCache(10)} {
					wantDecision(t, Decide(f, r), c.reason)
					wantDecision(t, Decide(f, r), c.reason)
				}
			})
		}
	}
}

// TestDeniedPrincipalInTheChain has a denied principal hand on what it was given.
func TestDeniedPrincipalInTheChain(t *testing.T) {
	w := newWorld(t)
	chain, _ := w.usual(1)
	n := w.narrowing(chain)
	n.Principal = "user:mallory"
	chain = w.attenuate(chain, n)
	n = w.narrowing(chain)
	n.Principal = testPrincipal
	chain = w.attenuate(chain, n)
	r := w.prove(w.request(chain))
	f := w.facts()
	wantDecision(t, Decide(f, r), ReasonAllow)
	f.Policy.Principals.Deny = Patterns{"user:mallory"}
	wantDecision(t, Decide(f, r), ReasonPrincipalDenied)
}

// TestChainsPutTogetherWrongly moves links that are good by themselves.
func TestChainsPutTogetherWrongly(t *testing.T) {
	w := newWorld(t)
	a, _ := w.usual(3)
	b, _ := w.usual(3)
	wrongKey := w.seal(mustChain(t, a.b[0]), forgedClaims(w, a, 1), w.holders[5])
	cache := NewLinkCache(100)
	for _, c := range []*Chain{a, b} {
		f := w.facts()
		f.Cache = cache
		wantDecision(t, Decide(f, w.prove(w.request(c))), ReasonAllow)
	}
	for name, c := range map[string]struct {
		tokens [][]byte
		reason fcp.Reason
	}{
		"child alone":          {[][]byte{a.b[1]}, ReasonParent},
		"turned round":         {[][]byte{a.b[2], a.b[1], a.b[0]}, ReasonParent},
		"a link left out":      {[][]byte{a.b[0], a.b[2]}, ReasonParent},
		"a link twice":         {[][]byte{a.b[0], a.b[1], a.b[1]}, ReasonParent},
		"another's child":      {[][]byte{a.b[0], b.b[1]}, ReasonParent},
		"signed by a stranger": {wrongKey.b, ReasonTokenSignature},
	} {
		for _, cache := range []*LinkCache{nil, cache} {
			chain := mustChain(t, c.tokens...)
			r := w.request(chain)
			r.Proof = &Proof{}
			f := w.facts()
			f.Cache = cache
			if d := Decide(f, r); d.Reason != c.reason {
				t.Errorf("%s: %s %s", name, d.Reason, d.Detail)
			}
		}
	}
	for name, c := range map[string]struct {
		b      []byte
		reason fcp.Reason
	}{
		"nothing":        {nil, ReasonChainForm},
		"an empty one":   {[]byte{0x80}, ReasonChainLength},
		"nine tokens":    {slices.Concat([]byte{0x89}, slices.Repeat([]byte{0x41, 0}, 9)), ReasonChainLength},
		"long head":      {slices.Concat([]byte{0x98, 1}, a.raw[1:]), ReasonChainForm},
		"bytes behind":   {slices.Concat(a.raw, []byte{0}), ReasonChainForm},
		"truncated":      {a.raw[:len(a.raw)-1], ReasonChainForm},
		"texts":          {[]byte{0x81, 0x61, 'a'}, ReasonChainForm},
		"over the limit": {make([]byte, MaxLinks*(maxSign1+4)+1), ReasonChainForm},
	} {
		if _, err := ParseChain(c.b); ReasonOf(err) != c.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustChain(t testing.TB, tokens ...[]byte) *Chain {
	c, err := NewChain(tokens...)
	return must(t, c, err)
}

// forgedClaims are those of a link of a chain.
func forgedClaims(w *world, c *Chain, link int) *claims {
	l, err := parseLink(c.b[link])
	return must(w.t, l, err).c
}
