package authority

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
)

// Reasons for refusing a checkpoint. Each names one attack.
const (
	ReasonCheckpointZone       fcp.Reason = "checkpoint.other_zone"
	ReasonCheckpointRollback   fcp.Reason = "checkpoint.rollback"        // at or below the last accepted one
	ReasonCheckpointGap        fcp.Reason = "checkpoint.sequence_gap"    // the one before is not here yet
	ReasonCheckpointPrev       fcp.Reason = "checkpoint.prev_mismatch"   // does not follow the last accepted one
	ReasonCheckpointRevoked    fcp.Reason = "checkpoint.rev_rollback"    // knows fewer revocations
	ReasonCheckpointAudit      fcp.Reason = "checkpoint.audit_rollback"  // knows fewer audit events
	ReasonCheckpointPolicy     fcp.Reason = "checkpoint.policy_rollback" // an older policy, definition or key
	ReasonCheckpointEpoch      fcp.Reason = "checkpoint.epoch_rollback"  // time goes backwards
	ReasonCheckpointFuture     fcp.Reason = "checkpoint.future_clock"    // its time is too far ahead
	ReasonCheckpointQuorum     fcp.Reason = "checkpoint.quorum"          // too few members signed
	ReasonCheckpointSelf       fcp.Reason = "checkpoint.self_authorised" // only members it names itself signed
	ReasonCheckpointMember     fcp.Reason = "checkpoint.not_member"      // a signer has no say
	ReasonCheckpointSignature  fcp.Reason = "checkpoint.signature"       // a signature does not verify
	ReasonCheckpointForked     fcp.Reason = "checkpoint.forked"          // two accepted ones share a number: halt
	ReasonCheckpointUnknown    fcp.Reason = "checkpoint.none"            // there is none yet
	ReasonCheckpointUnsignable fcp.Reason = "checkpoint.differs"         // says what this node does not know
)

// CheckpointState is what has been accepted in a zone. Make one with
// GenesisState.
type CheckpointState struct {
	Zone  fcp.ZoneID
	Owner OwnerPublic
	Seq   uint64
	Ref   fcp.Hash // of checkpoint Seq; the genesis id for 0
	Last  *ZoneCheckpoint

	members   []Member
	maxFaults uint8
}

// GenesisState is the state before the first checkpoint: the node that made the
// store is the only member.
func GenesisState(g *GenesisFacts, zone fcp.ZoneID) CheckpointState {
	return CheckpointState{Zone: zone, Owner: g.Owner, Ref: g.ID, members: []Member{MemberOf(g.Node)}}
}

// CheckpointRef returns the last accepted checkpoint.
func (s *CheckpointState) CheckpointRef() CheckpointRef { return CheckpointRef{ID: s.Ref, Seq: s.Seq} }

// Members returns who may sign the next checkpoint. The caller must not change the
// slice.
func (s *CheckpointState) Members() []Member { return s.members }

// Quorum returns the quorum of the next checkpoint when none of the members is
// revoked.
func (s *CheckpointState) Quorum() Quorum { return Quorum{len(s.members), int(s.maxFaults)} }

// Judge reports whether c may follow the state. Who may sign, and how many must, is
// what the state says; what c says about that counts for the next one only.
// Members that revoked names at the checkpoint's time have no say. The owner's
// signature stands in for the quorum. A signature that does not verify, or of
// somebody without a say, refuses the whole.
func (s *CheckpointState) Judge(c *UnverifiedZoneCheckpoint, revoked *RevocationSet) (*ZoneCheckpoint, error) {
	if r := s.misplaced(c); r != "" {
		return nil, c.refuse(r)
	}
	keys := s.keys(c, revoked)
	if r := s.strangers(c, keys); r != "" {
		return nil, c.refuse(r)
	}
	if c.o.Owner != nil && !s.Owner.Verify(c.message(), c.o.Owner) {
		return nil, c.refuse(ReasonCheckpointSignature)
	}
	if c.o.Owner == nil && !s.enough(len(c.signatures()), len(keys)) {
		return nil, c.refuse(ReasonCheckpointQuorum)
	}
	return &ZoneCheckpoint{*c}, nil
}

func (c *UnverifiedZoneCheckpoint) refuse(r fcp.Reason) error {
	code := fcp.CodeDenied
	switch r {
	case ReasonCheckpointZone:
		code = fcp.CodeZone
	case ReasonCheckpointSignature:
		code = fcp.CodeSignature
	}
	return fcp.Errorf(code, "checkpoint %d of %s: %w", c.o.Seq, c.o.Zone, r)
}

// misplaced returns why c cannot follow the state, signatures aside.
func (s *CheckpointState) misplaced(c *UnverifiedZoneCheckpoint) fcp.Reason {
	switch {
	case c.o.Zone != s.Zone:
		return ReasonCheckpointZone
	case c.o.Seq <= s.Seq:
		return ReasonCheckpointRollback
	case c.o.Seq > s.Seq+1:
		return ReasonCheckpointGap
	case c.o.Prev != s.Ref:
		return ReasonCheckpointPrev
	}
	return s.rolledBack(c)
}

// keys are the members of the state that have a say in c.
func (s *CheckpointState) keys(c *UnverifiedZoneCheckpoint, revoked *RevocationSet) map[fcp.WriterID]SigningPublic {
	at := fromUnix(c.o.CreatedAt)
	keys := map[fcp.WriterID]SigningPublic{}
	for _, m := range s.members {
		if revoked == nil || revoked.Of(fcp.Hash(m.Writer), at, RevokeDevice, RevokeAttestation) == nil {
			keys[m.Writer] = m.Key
		}
	}
	return keys
}

// strangers returns why the set of signatures is refused; "" when every one is a
// member's and verifies.
func (s *CheckpointState) strangers(c *UnverifiedZoneCheckpoint, keys map[fcp.WriterID]SigningPublic) fcp.Reason {
	set := signatureSet{c.signatures()}
	known, own := 0, 0
	for i := range set.Signatures {
		w, _ := set.Signatures[i].Writer()
		if _, ok := keys[w]; ok {
			known++
		} else if slices.ContainsFunc(c.o.Members, func(m Member) bool { return m.Writer == w }) {
			own++
		}
	}
	if known == 0 && own > 0 {
		return ReasonCheckpointSelf
	}
	_, err := set.verify(c.message(), func(w fcp.WriterID) (SigningPublic, bool) {
		k, ok := keys[w]
		return k, ok
	})
	switch r := ReasonOf(err); {
	case err == nil:
		return ""
	case r == ReasonSignerUnknown:
		return ReasonCheckpointMember
	case r == ReasonSignatureDuplicate || r == ReasonSignatureOrder:
		return r
	}
	return ReasonCheckpointSignature
}

func (s *CheckpointState) enough(signed, members int) bool {
	return members > 0 && signed >= (Quorum{members, int(s.maxFaults)}).Intersecting()
}

// rolledBack returns why c is older than what was accepted; "" when it is not.
func (s *CheckpointState) rolledBack(c *UnverifiedZoneCheckpoint) fcp.Reason {
	if s.Last == nil {
		return ""
	}
	l, n := &s.Last.o, &c.o
	was, is := s.Last.Spec(), c.Spec()
	switch {
	case n.RevSeq < l.RevSeq, n.RevSeq == l.RevSeq && n.RevHead != l.RevHead:
		return ReasonCheckpointRevoked
	case n.AuditSeq < l.AuditSeq, n.AuditSeq == l.AuditSeq && n.AuditHead != l.AuditHead:
		return ReasonCheckpointAudit
	case older(was.Definition, is.Definition), older(was.Policy, is.Policy), older(was.Manifest, is.Manifest):
		return ReasonCheckpointPolicy
	case is.Epoch < was.Epoch || is.At.Before(was.At):
		return ReasonCheckpointEpoch
	}
	return ""
}

func older(was, is VersionRef) bool {
	return is.Version < was.Version || is.Version == was.Version && is.Ref != was.Ref
}

// next returns the state after c was accepted.
func (s *CheckpointState) next(c *ZoneCheckpoint) CheckpointState {
	return CheckpointState{Zone: s.Zone, Owner: s.Owner, Seq: c.o.Seq, Ref: c.ref, Last: c, members: c.o.Members, maxFaults: c.o.MaxFaults}
}

// CheckTime refuses a checkpoint whose time is more than MaxSkew ahead of now.
func (c *UnverifiedZoneCheckpoint) CheckTime(now time.Time) error {
	if fromUnix(c.o.CreatedAt).Sub(now) > MaxSkew {
		return fcp.Errorf(fcp.CodeFuture, "checkpoint %d of %s: %w", c.o.Seq, c.o.Zone, ReasonCheckpointFuture)
	}
	return nil
}

// CheckpointFork is two checkpoints with one number that both pass: the proof that
// more members lied than the zone can survive. The zone halts until the owner
// signs one of them.
type CheckpointFork struct {
	A, B          *UnverifiedZoneCheckpoint
	DoubleSigners []fcp.WriterID // who signed both, ascending
}

// ZoneCheckpoints are all checkpoints of a zone that anybody wrote down. What is
// accepted depends only on the set added. The zero value is empty and ready. Not
// safe for concurrent use with Add.
type ZoneCheckpoints struct {
	bySeq map[uint64][]checkpointGroup // ascending by ref
}

// checkpointGroup is one checkpoint with every set of signatures it was seen with.
type checkpointGroup struct {
	ref      fcp.Hash
	variants []*UnverifiedZoneCheckpoint // ascending by encoding, none twice
	encoded  [][]byte
}

// Add takes a checkpoint in.
func (s *ZoneCheckpoints) Add(c *UnverifiedZoneCheckpoint) {
	b, err := c.Encode()
	if err != nil {
		return // it was decoded or made, so it encodes
	}
	if s.bySeq == nil {
		s.bySeq = map[uint64][]checkpointGroup{}
	}
	list := s.bySeq[c.o.Seq]
	i, there := slices.BinarySearchFunc(list, c.ref, func(g checkpointGroup, ref fcp.Hash) int { return compareHash(g.ref, ref) })
	if !there {
		list = slices.Insert(list, i, checkpointGroup{ref: c.ref})
		s.bySeq[c.o.Seq] = list
	}
	g := &list[i]
	if at, there := slices.BinarySearchFunc(g.encoded, b, bytes.Compare); !there {
		g.encoded = slices.Insert(g.encoded, at, b)
		g.variants = slices.Insert(g.variants, at, c)
	}
}

// Judge walks from genesis as far as checkpoints follow each other and returns the
// state there. A fork stops it: the state is the one before, and fork is the
// evidence.
func (s *ZoneCheckpoints) Judge(from CheckpointState, revoked *RevocationSet) (state CheckpointState, fork *CheckpointFork) {
	state = from
	for {
		var accepted, owned []*ZoneCheckpoint
		for i := range s.bySeq[state.Seq+1] {
			c := s.bySeq[state.Seq+1][i].judge(&state, revoked)
			if c == nil {
				continue
			}
			accepted = append(accepted, c)
			if c.o.Owner != nil {
				owned = append(owned, c)
			}
		}
		switch {
		case len(owned) == 1:
			state = state.next(owned[0])
		case len(accepted) == 1:
			state = state.next(accepted[0])
		case len(accepted) > 1:
			return state, forkOf(accepted)
		default:
			return state, nil
		}
	}
}

// judge counts the good signatures of all variants, so that nobody spoils a
// checkpoint by writing it down once more with a bad one. nil when they do not
// suffice.
func (g *checkpointGroup) judge(s *CheckpointState, revoked *RevocationSet) *ZoneCheckpoint {
	first := g.variants[0]
	if s.misplaced(first) != "" {
		return nil
	}
	keys, message := s.keys(first, revoked), first.message()
	out := &ZoneCheckpoint{*first}
	out.o.Owner, out.o.Signatures = nil, nil
	good := signatureSet{}
	for _, v := range g.variants {
		if out.o.Owner == nil && v.o.Owner != nil && s.Owner.Verify(message, v.o.Owner) {
			out.o.Owner = v.o.Owner
		}
		for _, n := range v.signatures() {
			w, ok := n.Writer()
			if key, member := keys[w]; ok && member && key.Verify(message, n.Signature[:]) {
				good.merge(&signatureSet{[]NodeSignature{n}})
			}
		}
	}
	if len(good.Signatures) > 0 {
		out.o.Signatures = &good
	}
	if out.o.Owner == nil && !s.enough(len(good.Signatures), len(keys)) {
		return nil
	}
	return out
}

func forkOf(c []*ZoneCheckpoint) *CheckpointFork {
	f := &CheckpointFork{A: &c[0].UnverifiedZoneCheckpoint, B: &c[1].UnverifiedZoneCheckpoint}
	for i := range f.A.signatures() {
		w, _ := f.A.signatures()[i].Writer()
		for j := range f.B.signatures() {
			if x, _ := f.B.signatures()[j].Writer(); x == w {
				f.DoubleSigners = append(f.DoubleSigners, w)
			}
		}
	}
	return f
}

// Accepted returns the refs of the accepted checkpoints from number 1 to where Judge
// stops.
func (s *ZoneCheckpoints) Accepted(from CheckpointState, revoked *RevocationSet) []fcp.Hash {
	var out []fcp.Hash
	end, _ := s.Judge(from, revoked)
	for c := end.Last; c != nil; {
		out = append(out, c.ref)
		prev := (*ZoneCheckpoint)(nil)
		for i := range s.bySeq[c.o.Seq-1] {
			if g := &s.bySeq[c.o.Seq-1][i]; g.ref == c.o.Prev {
				prev = &ZoneCheckpoint{*g.variants[0]}
			}
		}
		c = prev
	}
	slices.Reverse(out)
	return out
}

// FeedHead is one feed's head in a zone's audit frontier.
type FeedHead struct {
	Feed fcp.FeedID
	Seq  uint64
	Hash fcp.Hash
}

// AuditFrontier returns how many events the heads stand for and their digest:
// BLAKE3-256("FCP2-AUDIT-FRONTIER-V1" || for each feed with events, ascending by
// id: feed id || u64be seq || hash). It sorts heads.
func AuditFrontier(heads []FeedHead) (seq uint64, digest fcp.Hash) {
	slices.SortFunc(heads, func(a, b FeedHead) int { return bytes.Compare(a.Feed[:], b.Feed[:]) })
	h := blake3.New()
	h.WriteString("FCP2-AUDIT-FRONTIER-V1")
	for _, f := range heads {
		if f.Seq == 0 {
			continue
		}
		seq += f.Seq
		h.Write(f.Feed[:])
		h.Write(binary.BigEndian.AppendUint64(nil, f.Seq))
		h.Write(f.Hash[:])
	}
	if seq > 0 {
		h.Sum(digest[:0])
	}
	return seq, digest
}
