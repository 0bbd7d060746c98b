package enginetest

import (
	"testing"
	"time"

	"fcp"
	"fcp/authority"
)

// TestDecideOverTheFactsOfAnotherNode grants, mints and decides on three nodes: the
// owner grants at the first, the second mints, the third decides by what it
// folded; then each link is revoked in turn.
func TestDecideOverTheFactsOfAnotherNode(t *testing.T) {
	const (
		work      = fcp.ZoneWork
		principal = fcp.CanonicalID("user:alice")
		connector = fcp.CanonicalID("fcp.mail:operational:1.0.0")
	)
	m := New(t, 20, 3)
	a, minter, executor := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	now := m.Clock.Now().Truncate(time.Second)
	for _, n := range m.Nodes {
		m.check(a.Attest(ctx, m.Owner, authority.AttestationSpec{Node: n.Node(), From: now.Add(-time.Hour), Until: now.Add(authority.DefaultAttestation)}))
	}
	m.check(a.DefineIssuers(ctx, m.Owner, authority.IssuerSetSpec{Zone: work, ID: "issuers:main", Threshold: 1, From: now.Add(-time.Hour),
		Issuers: []authority.IssuerSpec{{Writer: minter.Node().Writer(), Allow: authority.Patterns{"mail.*"}}}}))
	m.check(a.BindPrincipal(ctx, m.Owner, authority.BindingSpec{Principal: principal, Devices: []fcp.WriterID{a.Node().Writer()},
		Zones: []fcp.ZoneID{work}, Capabilities: authority.Patterns{"mail.*"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}))
	right := []authority.Right{{Capability: "mail.read", Operation: "mail.get"}}
	inbox := authority.Constraints{ResourceAllow: []string{"mail://inbox/"}}
	grant, err := a.Grant(ctx, m.Owner, authority.GrantSpec{Zone: work, Principal: principal, Rights: right, Constraints: inbox,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)})
	m.check(err)
	_, err = a.SetPolicy(ctx, m.Owner, work, authority.PolicyRules{Connectors: authority.Lists{Deny: authority.Patterns{"shell:*"}}})
	m.check(err)
	one, err := a.ProposeCheckpoint(work)
	m.check(err)
	_, err = a.AppendCheckpoint(ctx, one)
	m.check(err)
	m.Sync()

	holder, err := authority.NewHolderKey(Random(99))
	m.check(err)
	body, err := minter.MintToken(authority.TokenSpec{Issuer: "user:owner", Principal: principal, Audience: connector, Instance: "mail-1", Zone: work,
		NotBefore: now, Expires: now.Add(5 * time.Minute), Holder: a.Node().Writer(), Confirm: holder.Public(), Rights: right, Constraints: inbox,
		Grants: []fcp.Hash{grant.Ref()}, Checkpoint: authority.CheckpointRef{ID: one.Ref(), Seq: 1}})
	m.check(err)
	chain, err := authority.NewChain(body)
	m.check(err)
	decide := func() authority.Decision {
		t.Helper()
		f := facts(t, executor, work)
		all, _, err := f.Facts(principal, authority.TierSafe, m.Clock.Now())
		m.check(err)
		all.Limits = unused{}
		all.Executor = authority.Executor{Node: executor.Node().Writer(), Zones: []fcp.ZoneID{work}}
		r := &authority.Request{ID: fcp.ObjectID{9}, Zone: work, Principal: principal, Device: a.Node().Writer(), Connector: connector,
			Instance: "mail-1", Capability: "mail.read", Operation: "mail.get", Resource: "mail://inbox/17", Tier: authority.TierSafe,
			Carrier: authority.CarrierLocal, Data: authority.Label{Origin: work, Levels: f.Levels, ID: fcp.Hash{3}}, Token: chain}
		challenge := authority.Challenge{Kind: authority.ChallengeNonce, Value: [32]byte{1}}
		r.Proof, err = authority.VerifyProof(chain, challenge, r.Hash(), holder.Prove(challenge, chain.Leaf(), r.Hash()))
		m.check(err)
		return authority.Decide(all, r)
	}
	if d := decide(); !d.Allowed() {
		t.Fatalf("%s: %s", d.Reason, d.Detail)
	}
	revoke := func(z fcp.ZoneID, scope authority.RevocationScope, target fcp.Hash, want fcp.Reason) {
		t.Helper()
		_, err := a.Revoke(ctx, m.Owner, authority.RevocationSpec{Zone: z, Scope: scope, Targets: []fcp.Hash{target}, Expires: now.Add(time.Minute)})
		m.check(err)
		if d := decide(); !d.Allowed() {
			t.Fatalf("before it arrived: %s", d.Reason)
		}
		m.Sync(z)
		if d := decide(); d.Allowed() || d.Reason != want {
			t.Fatalf("%s revoked: %s %s", scope, d.Reason, d.Detail)
		}
		m.Clock.Advance(now.Add(time.Minute).Sub(m.Clock.Now()))
		if d := decide(); !d.Allowed() {
			t.Fatalf("after the revocation of the %s expired: %s", scope, d.Reason)
		}
		now = m.Clock.Now().Truncate(time.Second).Add(time.Second)
	}
	revoke(work, authority.RevokeCapability, grant.Ref(), authority.ReasonRevokedGrant)
	revoke(fcp.ZoneOwner, authority.RevokeIssuerKey, fcp.Hash(minter.Node().Issuance), authority.ReasonRevokedIssuer)
	// A policy arrives and denies.
	_, err = a.SetPolicy(ctx, m.Owner, work, authority.PolicyRules{Principals: authority.Lists{Deny: authority.Patterns{"user:*"}}})
	m.check(err)
	m.Sync(work)
	if d := decide(); d.Reason != authority.ReasonPrincipalDenied {
		t.Fatalf("%s %s", d.Reason, d.Detail)
	}
	_, err = a.RollbackPolicy(ctx, m.Owner, work, 1)
	m.check(err)
	m.Sync(work)
	if d := decide(); !d.Allowed() {
		t.Fatalf("after the rollback: %s", d.Reason)
	}
	// The set loses its minter.
	m.check(a.DefineIssuers(ctx, m.Owner, authority.IssuerSetSpec{Zone: work, ID: "issuers:main", Threshold: 1, From: now.Add(-time.Hour),
		Issuers: []authority.IssuerSpec{{Writer: a.Node().Writer(), Allow: authority.Patterns{"*"}}}}))
	m.Sync(work)
	if d := decide(); d.Reason != authority.ReasonIssuerRight {
		t.Fatalf("%s %s", d.Reason, d.Detail)
	}
}

// unused says that nothing was used yet.
type unused struct{}

func (unused) Used(fcp.Hash) (calls, bytes uint64)  { return 0, 0 }
func (unused) RateExceeded(*authority.Request) bool { return false }
