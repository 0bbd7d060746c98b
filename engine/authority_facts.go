package engine

import (
	"sync"
	"time"

	"fcp"
	"fcp/authority"
)

// ZoneFacts are what governs one zone, folded from the sets of signed objects in
// the projections of the zone and of the owner's zone. They depend on those sets
// only. A ZoneFacts never changes; ask again after an event.
type ZoneFacts struct {
	Zone fcp.ZoneID

	Definition *authority.Zone   // nil: the zone is only known from genesis
	Levels     fcp.Levels        // of the definition, or of genesis
	Policy     *authority.Policy // nil: the zone has none, which restricts nothing
	Halted     error             // two versions of one number, a broken chain, forked checkpoints

	Authorities  authority.Authorities
	Attestations authority.Attestations
	Issuers      authority.IssuerSets
	Roles        authority.Roles
	Revocations  authority.RevocationSet // of the zone; those of the owner's zone count besides
	Checkpoint   authority.CheckpointState
	Fork         *authority.CheckpointFork

	Policies    authority.Policies
	Definitions authority.Versions[*authority.Zone]

	owner       *authority.RevocationSet // of the owner's zone
	signers     authority.RevocationSet  // of the zone and of the owner's: who has a say in checkpoints
	enrolled    map[authority.NodePublic]bool
	accepted    []fcp.Hash                        // by number: the genesis id, then the refs of the accepted checkpoints
	electorates map[fcp.Hash]authority.Electorate // who grants leases, by checkpoint
	grants      map[fcp.Hash]*authority.Grant
	bindings    map[fcp.CanonicalID][]*authority.Binding
	self        fcp.WriterID
	at          uint64 // of folder.governed; 0 for facts of the past
}

// factsCache keeps the facts of each zone until something that governs it changes.
type factsCache struct {
	mu    sync.Mutex
	at    uint64 // of folder.governed
	zones map[fcp.ZoneID]*ZoneFacts
}

// ZoneFacts returns what governs a zone now. Errors: CodeZone for a zone without
// events here; those of reading the state.
func (e *Engine) ZoneFacts(zone fcp.ZoneID) (*ZoneFacts, error) {
	if _, ok := e.fold.zoneNumber(zone); !ok {
		return nil, e.unknownZone(zone)
	}
	c := &e.facts
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := e.fold.governed.Load(); c.zones == nil || c.at != now {
		c.zones, c.at = map[fcp.ZoneID]*ZoneFacts{}, now
	}
	if f := c.zones[zone]; f != nil {
		return f, nil
	}
	f, err := e.foldFacts(zone, e.records)
	if err == nil {
		f.at = c.at
		c.zones[zone] = f
	}
	return f, err
}

// endOfTime is when every revocation that does not expire has begun to hold: what a
// withdrawn admin signed counts no more, whenever it says that it was.
var endOfTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func (e *Engine) foldFacts(zone fcp.ZoneID, records recordReader) (*ZoneFacts, error) {
	f := &ZoneFacts{Zone: zone, self: e.node.Writer(), owner: new(authority.RevocationSet), enrolled: map[authority.NodePublic]bool{e.genesis.Node: true},
		grants: map[fcp.Hash]*authority.Grant{}, bindings: map[fcp.CanonicalID][]*authority.Binding{}}
	f.Authorities.Owner = e.genesis.Owner
	f.Authorities.RevokedBy(func(ref fcp.Hash) bool { return f.owner.Of(ref, endOfTime) != nil })
	for _, z := range e.genesis.Zones {
		if z.Zone == zone {
			f.Levels = z.Levels
		}
	}
	var checkpoints authority.ZoneCheckpoints
	var byAdmins []func()
	owner := e.genesis.Owner
	for _, r := range []struct {
		zone       fcp.ZoneID
		projection string
		take       func(body []byte) error
	}{
		{fcp.ZoneOwner, projRevocations, f.takeRevocation(&byAdmins, f.owner)},
		{fcp.ZoneOwner, projDevices, taking(owner, authority.VerifyDevice, func(d *authority.Device) { f.enrolled[d.Node()] = true })},
		{fcp.ZoneOwner, projDelegations, taking(owner, authority.VerifyDelegation, f.Authorities.Add)},
		{fcp.ZoneOwner, projAttestations, f.takeAttestation},
		{fcp.ZoneOwner, projBindings, taking(owner, authority.VerifyBinding, f.takeBinding)},
		{zone, projRevocations, f.takeRevocation(&byAdmins, &f.Revocations)},
		{zone, projForks, func(b []byte) error {
			fork, err := authority.VerifyFork(b)
			if err == nil {
				f.Revocations.AddFork(fork)
			}
			return err
		}},
		{zone, projZones, taking(owner, authority.VerifyZone, func(z *authority.Zone) { f.Definitions.Add(z) })},
		{zone, projPolicies, taking(owner, authority.VerifyPolicy, func(p *authority.Policy) { f.Policies.Add(p) })},
		{zone, projIssuers, taking(owner, authority.VerifyIssuerSet, f.Issuers.Add)},
		{zone, projRoles, taking(owner, authority.VerifyRole, f.Roles.Add)},
		{zone, projAssignments, f.takeAssignment},
		{zone, projCapabilities, func(b []byte) error {
			g, err := authority.VerifyGrant(b)
			if err == nil {
				f.grants[g.Ref()] = g // Decide asks whether its issuer had the right
			}
			return err
		}},
		{zone, projCheckpoints, func(b []byte) error {
			if c, err := authority.DecodeZoneCheckpoint(b); err == nil {
				checkpoints.Add(c)
			}
			return nil // genesis and the owner's checkpoints of retention
		}},
	} {
		if err := records(r.zone, r.projection, r.take); err != nil {
			return nil, err
		}
	}
	for _, take := range byAdmins { // the delegations are all known now
		take()
	}
	genesis := authority.GenesisState(e.genesis, zone)
	f.Checkpoint, f.Fork = checkpoints.Judge(genesis, &f.signers)
	f.accepted = append([]fcp.Hash{e.genesis.ID}, checkpoints.Accepted(genesis, &f.signers)...)
	f.electorates = checkpoints.Electorates(genesis, f.accepted)
	f.settle()
	return f, nil
}

// taking adapts a verifier to a reader of records.
func taking[T any](owner authority.OwnerPublic, verify func(authority.OwnerPublic, []byte) (T, error), use func(T)) func([]byte) error {
	return func(b []byte) error {
		v, err := verify(owner, b)
		if err == nil {
			use(v)
		}
		return err
	}
}

// takeRevocation takes the owner's revocations into a set and among those that
// silence signers of checkpoints. Those that name an admin wait until the delegations
// are known; they silence nobody.
func (f *ZoneFacts) takeRevocation(later *[]func(), set *authority.RevocationSet) func([]byte) error {
	return func(b []byte) error {
		u, err := authority.OpenRevocation(f.Authorities.Owner, b)
		if err != nil {
			return err
		}
		if u.Issuer() != f.Authorities.Owner {
			*later = append(*later, func() {
				if r, err := u.Authorize(&f.Authorities); err == nil {
					set.Add(r)
				}
			})
			return nil
		}
		r, err := u.Authorize(&f.Authorities)
		if err == nil {
			set.Add(r)
			f.signers.Add(r)
		}
		return err
	}
}

// takeAttestation takes one that the owner, or an admin in its time, signed.
func (f *ZoneFacts) takeAttestation(b []byte) error {
	u, err := authority.OpenAttestation(b)
	if err != nil {
		return err
	}
	if a, err := f.authorize(u); err == nil {
		f.Attestations.Add(a)
	}
	return nil
}

// authorize asks whether the issuer might sign an attestation. An admin renews: it
// attests the keys that the owner enrolled and no others.
func (f *ZoneFacts) authorize(u *authority.UnverifiedAttestation) (*authority.Attestation, error) {
	if u.Issuer() != f.Authorities.Owner && !f.enrolled[u.Node()] {
		return nil, fcp.Errorf(fcp.CodeDenied, "an attestation by an admin of keys that were not enrolled: %w", authority.ReasonDelegationScope)
	}
	return u.Authorize(&f.Authorities)
}

func (f *ZoneFacts) takeAssignment(b []byte) error {
	u, err := authority.OpenAssignment(b)
	if err != nil {
		return err
	}
	if a, err := u.Authorize(&f.Authorities); err == nil {
		f.Roles.Assign(a)
	}
	return nil
}

func (f *ZoneFacts) takeBinding(b *authority.Binding) {
	p := b.Spec().Principal
	f.bindings[p] = append(f.bindings[p], b)
}

// settle finds what is in force.
func (f *ZoneFacts) settle() {
	z, ok, err := f.Definitions.Current()
	if ok && err == nil {
		f.Definition, f.Levels = z, z.Spec().Levels
	}
	f.Halted = err
	if f.Policy, err = f.Policies.Current(); err != nil {
		f.Halted = err
	}
	if f.Fork != nil {
		f.Halted = fcp.Errorf(fcp.CodeDenied, "checkpoint %d of %s: %w", f.Fork.A.Spec().Seq, f.Zone, authority.ReasonCheckpointForked)
	}
}

// Rules returns the rules of the policy in force.
func (f *ZoneFacts) Rules() authority.PolicyRules {
	if f.Policy == nil {
		return authority.PolicyRules{}
	}
	return f.Policy.Rules()
}

// Revoked returns the revocation, in the zone or in the owner's zone, that names
// the target and is active at a time; nil for none. The owner's counts in any scope,
// an admin's when it is one of those named.
func (f *ZoneFacts) Revoked(target fcp.Hash, at time.Time, as ...authority.RevocationScope) *authority.Revocation {
	for _, set := range []*authority.RevocationSet{&f.Revocations, f.owner} {
		if r := set.Of(target, at); r != nil {
			return r
		}
		if len(as) == 0 {
			continue
		}
		if r := set.Of(target, at, as...); r != nil {
			return r
		}
	}
	return nil
}

// Freshness says whether a zone's knowledge is good enough for a tier.
type Freshness struct {
	Revocations authority.Freshness
	Checkpoint  bool
	Degraded    bool // allowed only because of the policy's degraded mode: log policy.degraded_mode
}

// FreshFor answers for a tier at a time. A zone whose only member is this node is
// always fresh: nobody else can know more.
func (f *ZoneFacts) FreshFor(t authority.Tier, at time.Time) Freshness {
	rules := f.Rules()
	maxAge := rules.MaxAge
	if maxAge == 0 {
		maxAge = authority.DefaultMaxAge
	}
	out := Freshness{Revocations: authority.Freshness{Allowed: true}, Checkpoint: true}
	members := f.Checkpoint.Members()
	if len(members) == 1 && members[0].Writer == f.self {
		return out
	}
	var age time.Duration
	var named authority.ZoneCheckpointSpec
	if f.Checkpoint.Last == nil {
		age = maxAge + 1
	} else {
		named = f.Checkpoint.Last.Spec()
		age = at.Sub(named.At)
	}
	if age < -authority.MaxSkew { // this clock was set back: nothing is known of the age
		age = maxAge + 1
	}
	head := f.Revocations.Head()
	if head.Seq > 0 && head.Seq == named.Revocations.Seq && head.Digest != named.Revocations.Digest {
		head.Seq-- // as many and others: at least one that the checkpoint knows is not here
	}
	out.Revocations = authority.FreshnessOf(t).Check(head.Seq, named.Revocations.Seq, age, maxAge)
	have := uint64(0)
	if f.Policy != nil {
		have = f.Policy.Number()
	}
	if age <= maxAge && named.Policy.Version <= have {
		return out
	}
	out.Degraded = rules.DegradedMode && (t == authority.TierSafe || t == authority.TierRisky && rules.RiskyOverride)
	out.Checkpoint = out.Degraded
	return out
}

// Facts returns what Decide looks at for a request of the tier at a time. The
// caller adds Executor, Sanitizers, Leases, Limits and Cache, and logs
// policy.degraded_mode when the freshness says so. A halted zone refuses: the error
// is that of Halted.
func (f *ZoneFacts) Facts(principal fcp.CanonicalID, t authority.Tier, at time.Time) (*authority.Facts, Freshness, error) {
	if f.Halted != nil {
		return nil, Freshness{}, f.Halted
	}
	fresh := f.FreshFor(t, at)
	v := &factsView{f, at}
	attestations, authorities := f.Attestations, f.Authorities
	attestations.RevokedBy(func(target fcp.Hash) bool {
		return f.Revoked(target, at) != nil
	})
	out := &authority.Facts{
		Now: at, Levels: f.Levels, Policy: f.Rules(), Ceiling: f.Roles.Ceiling(principal, at, v.is),
		RevocationFresh: fresh.Revocations.Allowed, CheckpointFresh: fresh.Checkpoint,
		Revocations: v, Checkpoints: v, Issuers: &attestations, Grants: v, Bindings: v, Minters: v, Authorities: &authorities,
	}
	if f.Definition != nil {
		out.Transport = f.Definition.Spec().Transport
	}
	return out, fresh, nil
}

// factsView answers Decide's questions for one time.
type factsView struct {
	f  *ZoneFacts
	at time.Time
}

// is reports whether the owner revoked something that no admin can.
func (v *factsView) is(target fcp.Hash) bool { return v.f.Revoked(target, v.at) != nil }

// Revoked implements authority.Revocations.
func (v *factsView) Revoked(ref fcp.Hash, as ...authority.RevocationScope) (by fcp.Hash, ok bool) {
	if r := v.f.Revoked(ref, v.at, as...); r != nil {
		return r.Ref(), true
	}
	return fcp.Hash{}, false
}

// Latest implements authority.Checkpoints.
func (v *factsView) Latest() authority.CheckpointRef { return v.f.Checkpoint.CheckpointRef() }

// At implements authority.Checkpoints.
func (v *factsView) At(seq uint64) (fcp.Hash, bool) {
	if seq >= uint64(len(v.f.accepted)) {
		return fcp.Hash{}, false
	}
	return v.f.accepted[seq], true
}

// Oldest implements authority.Checkpoints: a token lives at most a day, so what
// follows the checkpoint it names by far is judged by its own expiry.
func (v *factsView) Oldest() uint64 { return 0 }

// Grant implements authority.Grants.
func (v *factsView) Grant(ref fcp.Hash) (*authority.Grant, bool) {
	g, ok := v.f.grants[ref]
	return g, ok
}

// Bindings implements authority.Bindings.
func (v *factsView) Bindings(principal fcp.CanonicalID) []*authority.Binding {
	return v.f.bindings[principal]
}

// MayMint implements authority.Minters.
func (v *factsView) MayMint(node fcp.WriterID, zone fcp.ZoneID, capability fcp.CanonicalID) (fcp.Hash, bool) {
	if zone != v.f.Zone {
		return fcp.Hash{}, false
	}
	set, err := v.f.Issuers.Permit(capability, v.at, node)
	if err != nil || v.is(set.Ref()) {
		return fcp.Hash{}, false
	}
	return set.Ref(), true
}
