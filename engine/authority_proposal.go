package engine

import (
	"errors"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
)

// Members of a zone agree on its next checkpoint by themselves while the last one gets
// old: one drafts what it knows, the others sign it if they hold what it stands for,
// and whoever has enough signatures appends it. Nobody signs two of one number, so
// whoever signed one and is asked for another answers with the one that it signed: what
// a few members signed before one of them died is what the rest agree on then.

// Proposal is a checkpoint on its way to its signatures, with the heads of the zone's
// control feeds that it stands for: a member signs it when it holds those, whatever it
// holds besides.
type Proposal struct {
	Checkpoint *authority.UnverifiedZoneCheckpoint
	Heads      []authority.FeedHead
}

// CheckpointDue reports whether a zone's checkpoint is to be renewed by this node and
// others: it was agreed on once, something was granted in the zone, so that tokens may
// need it, its next one needs this node among others, and it is past half of the age
// that the policy allows. members are who may sign, by writer, and next is its number.
func (e *Engine) CheckpointDue(zone fcp.ZoneID) (due bool, members []authority.Member, next uint64, err error) {
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return false, nil, 0, err
	}
	members, next = f.Checkpoint.Members(), f.Checkpoint.Seq+1
	if f.Halted != nil || f.Checkpoint.Last == nil || len(f.grants) == 0 || e.ring.Load().zones[zone] == nil || len(members) < 2 ||
		!slices.ContainsFunc(members, func(m authority.Member) bool { return m.Writer == e.node.Writer() }) {
		return false, members, next, nil
	}
	maxAge := f.Rules().MaxAge
	if maxAge == 0 {
		maxAge = authority.DefaultMaxAge
	}
	return e.env.Now().Sub(f.Checkpoint.Last.Spec().At) >= maxAge/2, members, next, nil
}

// DraftCheckpoint makes the zone's next checkpoint of what this node knows, unsigned.
func (e *Engine) DraftCheckpoint(zone fcp.ZoneID) (p Proposal, err error) {
	s, heads, err := e.checkpointSpec(zone)
	if err != nil {
		return p, err
	}
	p.Heads = heads
	p.Checkpoint, err = authority.NewZoneCheckpoint(s)
	return p, err
}

// SignProposal signs a checkpoint if all it says is what this node knows, or knew when
// its feeds ended where the proposal says, and this node signed no other of its number.
// The result has the signatures of both; enough says that they suffice. Errors:
// CodeDenied with authority.ReasonCheckpointUnsignable, authority.ReasonCheckpointForked
// (SignedProposal has the other one) or the reason of Judge; CodeNotFound when this node
// does not hold what it stands for yet; CodeFuture.
func (e *Engine) SignProposal(p Proposal) (out Proposal, enough bool, err error) {
	got := p.Checkpoint.Spec()
	f, err := e.ZoneFacts(got.Zone)
	if err != nil {
		return p, false, err
	}
	if f.Halted != nil {
		return p, false, f.Halted
	}
	if err := p.judge(f); err != nil {
		return p, false, err
	}
	signed, ok, err := e.SignedProposal(got.Zone)
	if err != nil {
		return p, false, err
	}
	if !ok || signed.Checkpoint.Ref() != p.Checkpoint.Ref() { // else it was looked at then
		if err := e.checkProposal(&p, &got); err != nil {
			return p, false, err
		}
	}
	if ok && signed.Checkpoint.Ref() != p.Checkpoint.Ref() && signed.Checkpoint.Spec().Seq >= got.Seq {
		return p, false, fcp.Errorf(fcp.CodeDenied, "this node signed checkpoint %d of %s: %w", signed.Checkpoint.Spec().Seq, got.Zone, authority.ReasonCheckpointForked)
	}
	if err := e.keepProposal(&p); err != nil { // before signedOnce, which is what counts
		return p, false, err
	}
	if err := e.signedOnce(p.Checkpoint); err != nil {
		return p, false, err
	}
	mine, err := p.Checkpoint.Sign(e.node, e.env.Now())
	if errors.Is(err, fcp.CodeConflict) || authority.ReasonOf(err) == authority.ReasonSignatureDuplicate {
		mine, err = p.Checkpoint, nil // its signature is there already
	}
	if err != nil {
		return p, false, err
	}
	out = Proposal{mine, p.Heads}
	if err := e.keepProposal(&out); err != nil {
		return p, false, err
	}
	_, err = f.Checkpoint.Judge(mine, &f.signers)
	if authority.ReasonOf(err) == authority.ReasonCheckpointQuorum {
		return out, false, nil
	}
	return out, err == nil, err
}

// judge refuses what cannot become the zone's next checkpoint, whoever signs it yet.
func (p *Proposal) judge(f *ZoneFacts) error {
	_, err := f.Checkpoint.Judge(p.Checkpoint, &f.signers)
	if authority.ReasonOf(err) == authority.ReasonCheckpointQuorum {
		return nil
	}
	return err
}

// checkProposal checks that what a proposal says is what this node would say, but for
// how far the feeds reach: of that, that it was so.
func (e *Engine) checkProposal(p *Proposal, got *authority.ZoneCheckpointSpec) error {
	// It may be older than this moment: what a few signed before one of them died.
	if err := p.Checkpoint.CheckTime(e.env.Now()); err != nil {
		return err
	}
	differs := fcp.Errorf(fcp.CodeDenied, "checkpoint %d of %s: %w", got.Seq, got.Zone, authority.ReasonCheckpointUnsignable)
	seq, digest := authority.AuditFrontier(slices.Clone(p.Heads))
	if seq != got.AuditSeq || digest != got.AuditHead || got.Epoch != fcp.TimeFromWall(got.At).Epoch() {
		return differs
	}
	if err := e.holdsHeads(got.Zone, p.Heads); err != nil {
		return err
	}
	want, _, err := e.checkpointSpec(got.Zone)
	if err != nil {
		return err
	}
	want.At, want.Epoch, want.AuditSeq, want.AuditHead = got.At, got.Epoch, got.AuditSeq, got.AuditHead
	mine, err := authority.NewZoneCheckpoint(want)
	if err != nil {
		return err
	}
	if mine.Ref() != p.Checkpoint.Ref() {
		return differs
	}
	return nil
}

// holdsHeads fails unless this node's feeds of a zone have those heads in them.
func (e *Engine) holdsHeads(zone fcp.ZoneID, heads []authority.FeedHead) error {
	seen := map[fcp.FeedID]bool{}
	for _, h := range heads {
		if seen[h.Feed] {
			return fcp.Errorf(fcp.CodeMalformed, "a proposal with a feed twice")
		}
		seen[h.Feed] = true
	}
	found := 0
	for _, f := range e.log.Feeds() {
		i := slices.IndexFunc(heads, func(h authority.FeedHead) bool { return h.Feed == f.ID })
		if i < 0 || f.Feed.Zone != zone || f.Feed.Plane != fcp.PlaneControl || f.Seq < heads[i].Seq || heads[i].Seq == 0 {
			continue
		}
		hash := f.Hash
		if heads[i].Seq < f.Seq {
			var err error
			if _, hash, err = e.log.ReadFull(f.No, heads[i].Seq); err != nil {
				return err
			}
		}
		if hash != heads[i].Hash {
			return fcp.Errorf(fcp.CodeDenied, "a proposal with another history of %.16s: %w", f.Feed.Writer, authority.ReasonCheckpointUnsignable)
		}
		found++
	}
	if found < len(heads) {
		return fcp.Errorf(fcp.CodeNotFound, "%d of %d feeds of %s are not here so far", len(heads)-found, len(heads), zone)
	}
	return nil
}

// fileProposed holds the proposals that this node signed last, so that it can ask for
// the others' signatures again: a canonical array, ascending by zone. It is written
// before fileSigned; what that does not name was not signed.
const (
	fileProposed = "PROPOSED"
	maxProposed  = 8 << 20
)

// proposalObject is a Proposal, on the wire and in that file.
type proposalObject struct {
	Zone       fcp.ZoneID     `cbor:"zone"`
	Checkpoint []byte         `cbor:"checkpoint"` // with the signatures that were there
	Heads      []proposedHead `cbor:"heads"`
}

type proposedHead struct {
	Feed fcp.FeedID `cbor:"feed"`
	Seq  uint64     `cbor:"seq"`
	Hash fcp.Hash   `cbor:"hash"`
}

func (p *Proposal) object() (x proposalObject, err error) {
	x = proposalObject{Zone: p.Checkpoint.Spec().Zone, Heads: []proposedHead{}}
	for _, h := range p.Heads {
		x.Heads = append(x.Heads, proposedHead(h))
	}
	x.Checkpoint, err = p.Checkpoint.Encode()
	return x, err
}

// Encode returns the canonical encoding.
func (p *Proposal) Encode() ([]byte, error) {
	x, err := p.object()
	if err != nil {
		return nil, err
	}
	return fcp.Marshal(&x)
}

// DecodeProposal decodes a proposal and checks its form. Errors are those of
// authority.DecodeZoneCheckpoint.
func DecodeProposal(b []byte) (p Proposal, err error) {
	var x proposalObject
	if len(b) > MaxProposal {
		return p, fcp.Errorf(fcp.CodeTooLarge, "a proposal of %d bytes", len(b))
	}
	if err := fcp.Unmarshal(b, &x); err != nil {
		return p, err
	}
	return x.proposal()
}

func (x *proposalObject) proposal() (p Proposal, err error) {
	if p.Checkpoint, err = authority.DecodeZoneCheckpoint(x.Checkpoint); err != nil {
		return p, err
	}
	if p.Checkpoint.Spec().Zone != x.Zone {
		return p, fcp.Errorf(fcp.CodeZone, "a proposal for another zone than it names")
	}
	for _, h := range x.Heads {
		p.Heads = append(p.Heads, authority.FeedHead(h))
	}
	return p, nil
}

// MaxProposal bounds the encoding of a Proposal.
const MaxProposal = 1 << 20

// SignedProposal returns the proposal of a zone that this node signed last; ok is false
// when there is none or it is not kept.
func (e *Engine) SignedProposal(zone fcp.ZoneID) (p Proposal, ok bool, err error) {
	e.facts.mu.Lock()
	defer e.facts.mu.Unlock()
	signedFile, file := e.signedFile(), e.proposedFile()
	signed, err := signedFile.read()
	if err != nil {
		return p, false, err
	}
	list, err := file.read()
	if err != nil {
		return p, false, err
	}
	i, isSigned := signedFile.find(signed, zone)
	j, isKept := file.find(list, zone)
	if !isSigned || !isKept {
		return p, false, nil
	}
	if p, err = list[j].proposal(); err != nil {
		return p, false, fcp.Wrap(fcp.CodeCorrupt, err, "the file %s", fileProposed)
	}
	return p, p.Checkpoint.Ref() == signed[i].Ref, nil
}

func (e *Engine) keepProposal(p *Proposal) error {
	x, err := p.object()
	if err != nil {
		return err
	}
	e.facts.mu.Lock()
	defer e.facts.mu.Unlock()
	file := e.proposedFile()
	list, err := file.read()
	if err != nil {
		return err
	}
	return file.put(list, x)
}

func (e *Engine) proposedFile() *zoneList[proposalObject] {
	return &zoneList[proposalObject]{e.env.FS, e.dir, fileProposed, maxProposed, func(x *proposalObject) fcp.ZoneID { return x.Zone }}
}

// renewalDelay staggers who drafts: the members in their order, one after the other.
const renewalDelay = 10 * time.Second

// CheckpointTurn returns this node's place among the members that are there in the
// order in which they are to draft a zone's checkpoint of a number, and how long it
// leaves those before it to do so.
func (e *Engine) CheckpointTurn(zone fcp.ZoneID, seq uint64, there []fcp.WriterID) time.Duration {
	var ids []string
	for _, w := range there {
		ids = append(ids, w.String())
	}
	order := authority.Coordinators(zone, decimal(seq), ids)
	return time.Duration(max(slices.Index(order, e.node.Writer().String()), 0)) * renewalDelay
}
