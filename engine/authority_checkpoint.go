package engine

import (
	"context"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// ProposeCheckpoint makes the zone's next checkpoint of what this node knows and
// signs it. The next members are the enrolled devices that hold the zone and are
// not revoked. With one member it is complete; else the others cosign it.
func (e *Engine) ProposeCheckpoint(zone fcp.ZoneID) (*authority.UnverifiedZoneCheckpoint, error) {
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return nil, err
	}
	if f.Halted != nil {
		return nil, f.Halted
	}
	s, _, err := e.checkpointSpec(zone)
	if err != nil {
		return nil, err
	}
	c, err := authority.NewZoneCheckpoint(s)
	if err != nil {
		return nil, err
	}
	if err := e.signedOnce(c); err != nil {
		return nil, err
	}
	return c.Sign(e.node, e.env.Now())
}

// SettleCheckpoint appends the zone's next checkpoint with the owner's signature in
// place of the members': when too many of them are lost, when members signed
// proposals that can no longer come to a quorum, and over a fork of checkpoints.
func (e *Engine) SettleCheckpoint(ctx context.Context, owner *authority.OwnerKey, zone fcp.ZoneID) (*authority.UnverifiedZoneCheckpoint, error) {
	if err := e.genesis.CheckOwner(owner.Public()); err != nil {
		return nil, err
	}
	s, _, err := e.checkpointSpec(zone)
	if err != nil {
		return nil, err
	}
	c, err := authority.NewZoneCheckpoint(s)
	if err != nil {
		return nil, err
	}
	c = c.SignOwner(owner)
	_, err = e.AppendCheckpoint(ctx, c)
	return c, err
}

// checkpointSpec is what this node would say now, with the heads that it stands for.
func (e *Engine) checkpointSpec(zone fcp.ZoneID) (s authority.ZoneCheckpointSpec, heads []authority.FeedHead, err error) {
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return s, nil, err
	}
	if f.Halted != nil && f.Fork == nil {
		return s, nil, f.Halted
	}
	now := e.env.Now()
	s = authority.ZoneCheckpointSpec{Zone: zone, Seq: f.Checkpoint.Seq + 1, Prev: f.Checkpoint.Ref, Revocations: f.Revocations.Head(),
		MaxFaults: f.Rules().MaxFaults, Epoch: fcp.TimeFromWall(now).Epoch(), At: now.Truncate(time.Second)}
	if f.Definition != nil {
		s.Definition = authority.VersionRef{Version: f.Definition.Number(), Ref: f.Definition.Ref()}
	}
	if f.Policy != nil {
		s.Policy = authority.VersionRef{Version: f.Policy.Number(), Ref: f.Policy.Ref()}
	}
	newest, err := e.newestManifest(zone)
	if err != nil {
		return s, nil, err
	}
	s.Manifest = authority.VersionRef{Version: newest.Version(), Ref: newest.Ref()}
	e.gate.Lock() // else a fold may be under way
	heads = e.fold.feedHeads(zone)
	e.gate.Unlock()
	s.AuditSeq, s.AuditHead = authority.AuditFrontier(heads)
	if s.Members, err = e.memberKeys(newest); err != nil {
		return s, nil, err
	}
	for !(authority.Quorum{N: len(s.Members), F: int(s.MaxFaults)}).Valid() && s.MaxFaults > 0 {
		s.MaxFaults-- // the policy asks for more liars than so few members survive
	}
	return s, heads, nil
}

// feedHeads returns the heads, as folded, of a zone's control feeds. The caller holds
// Engine.gate.
func (d *folder) feedHeads(zone fcp.ZoneID) (out []authority.FeedHead) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, s := range d.sources {
		if s != nil && s.Feed.Zone == zone && s.Feed.Plane == fcp.PlaneControl {
			out = append(out, authority.FeedHead{Feed: s.ID, Seq: s.seq, Hash: s.hash})
		}
	}
	return out
}

// memberKeys returns the enrolled, unrevoked devices that a manifest names.
func (e *Engine) memberKeys(m *authority.Manifest) ([]authority.Member, error) {
	devices, err := e.devices()
	if err != nil {
		return nil, err
	}
	revoked, err := e.revokedWriters()
	if err != nil {
		return nil, err
	}
	var out []authority.Member
	for w, d := range devices {
		if !revoked[w] && slices.Contains(m.Recipients(), w.String()) {
			out = append(out, authority.MemberOf(d.Node()))
		}
	}
	authority.SortMembers(out)
	return out, nil
}

// CosignCheckpoint signs another member's proposal if it says exactly what this
// node knows and this node has signed no other with that number. Anything else is
// CodeDenied with authority.ReasonCheckpointUnsignable, or the reason of Judge.
func (e *Engine) CosignCheckpoint(c *authority.UnverifiedZoneCheckpoint) (*authority.UnverifiedZoneCheckpoint, error) {
	got := c.Spec()
	if err := c.CheckTime(e.env.Now()); err != nil {
		return nil, err
	}
	want, _, err := e.checkpointSpec(got.Zone)
	if err != nil {
		return nil, err
	}
	want.At, want.Epoch = got.At, got.Epoch
	mine, err := authority.NewZoneCheckpoint(want)
	if err != nil {
		return nil, err
	}
	if mine.Ref() != c.Ref() {
		return nil, fcp.Errorf(fcp.CodeDenied, "checkpoint %d of %s: %w", got.Seq, got.Zone, authority.ReasonCheckpointUnsignable)
	}
	if err := e.signedOnce(c); err != nil {
		return nil, err
	}
	return c.Sign(e.node, e.env.Now())
}

// fileSigned holds which checkpoint of each zone this node signed last. It is
// written before a signature leaves, so that no restart makes a node sign two.
const (
	fileSigned = "SIGNED"
	maxSigned  = 1 << 20
)

// signedCheckpoint is one entry of that file, which is a canonical array of them,
// ascending by zone.
type signedCheckpoint struct {
	Zone fcp.ZoneID `cbor:"zone"`
	Seq  uint64     `cbor:"seq"`
	Ref  fcp.Hash   `cbor:"ref"`
}

// signedOnce refuses a second checkpoint of a number, and an older one than was
// signed already; else it records c.
func (e *Engine) signedOnce(c *authority.UnverifiedZoneCheckpoint) error {
	s := c.Spec()
	e.facts.mu.Lock()
	defer e.facts.mu.Unlock()
	file := e.signedFile()
	list, err := file.read()
	if err != nil {
		return err
	}
	if i, known := file.find(list, s.Zone); known {
		switch x := list[i]; {
		case x.Seq > s.Seq, x.Seq == s.Seq && x.Ref != c.Ref():
			return fcp.Errorf(fcp.CodeDenied, "this node signed checkpoint %d of %s: %w", x.Seq, s.Zone, authority.ReasonCheckpointForked)
		case x.Seq == s.Seq:
			return nil
		}
	}
	return file.put(list, signedCheckpoint{s.Zone, s.Seq, c.Ref()})
}

func (e *Engine) signedFile() *zoneList[signedCheckpoint] {
	return &zoneList[signedCheckpoint]{e.env.FS, e.dir, fileSigned, maxSigned, func(x *signedCheckpoint) fcp.ZoneID { return x.Zone }}
}

// AppendCheckpoint judges a checkpoint by what was last accepted and appends it.
func (e *Engine) AppendCheckpoint(ctx context.Context, c *authority.UnverifiedZoneCheckpoint) (log.Receipt, error) {
	zone := c.Spec().Zone
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return log.Receipt{}, err
	}
	if err := c.CheckTime(e.env.Now()); err != nil {
		return log.Receipt{}, err
	}
	if _, err := f.Checkpoint.Judge(c, &f.signers); err != nil {
		return log.Receipt{}, err
	}
	body, err := c.Encode()
	if err != nil {
		return log.Receipt{}, err
	}
	return e.AppendSigned(ctx, zone, fcp.KindCheckpointSigned, body)
}

// FeedHead signs the head of one of this node's own feeds as it is on disk.
// CodeUnauthorized for another node's feed.
func (e *Engine) FeedHead(feed fcp.Feed) (*authority.AuditHead, error) {
	no, ok := e.log.FeedNo(feed)
	if !ok || feed.Writer != e.node.Writer() {
		return nil, fcp.Errorf(fcp.CodeUnauthorized, "a node signs the heads of its own feeds")
	}
	h, _ := e.log.Head(no)
	now := e.env.Now()
	return authority.SignHead(e.node, authority.HeadSpec{Feed: feed, Epoch: fcp.TimeFromWall(now).Epoch(), Size: h.Seq, Hash: h.Hash, Root: h.Root, At: now})
}

// CosignHead signs another device's head besides, when it is what this node holds of
// that feed: the same event and the same tree at that size. CodeEquivocation with
// authority.ReasonHeadFork means that the writer signed another history than the
// one that is here: Branch and ProveFork make the proof.
func (e *Engine) CosignHead(h *authority.AuditHead) (*authority.AuditHead, error) {
	s := h.Spec()
	if s.At.Sub(e.env.Now()) > authority.MaxSkew {
		return nil, fcp.Errorf(fcp.CodeFuture, "audit head of %.16s: %w", s.Feed.Writer, authority.ReasonHeadFuture)
	}
	no, ok := e.log.FeedNo(s.Feed)
	if !ok {
		return nil, fcp.Errorf(fcp.CodeNotFound, "feed of %.16s", s.Feed.Writer)
	}
	if mine, _ := e.log.Head(no); mine.Seq < s.Size {
		return nil, fcp.Errorf(fcp.CodeNotFound, "event %d of %.16s: %w", s.Size, s.Feed.Writer, authority.ReasonHeadProof)
	}
	p, err := e.log.Prove(no, s.Size, s.Size)
	if err != nil {
		return nil, err
	}
	if p.Root != s.Root || p.Leaf != s.Hash {
		return nil, fcp.Errorf(fcp.CodeEquivocation, "audit head of %.16s at %d: %w", s.Feed.Writer, s.Size, authority.ReasonHeadFork)
	}
	return h.Cosign(e.node, e.env.Now())
}

// RecordHead appends a head, as signed so far, to this node's feed of the zone.
func (e *Engine) RecordHead(ctx context.Context, h *authority.AuditHead) error {
	body, err := h.Encode()
	if err != nil {
		return err
	}
	_, err = e.AppendSigned(ctx, h.Feed().Zone, fcp.KindAuditHead, body)
	return err
}

// Branch returns this node's side of a feed at an event, under a head of the
// feed's writer that covers it and that is what this node holds.
func (e *Engine) Branch(h *authority.AuditHead, seq uint64) (b authority.Branch, err error) {
	s := h.Spec()
	leaf, path, err := e.Leaf(s.Feed, seq, s.Size)
	return authority.Branch{Head: h, Leaf: leaf, Path: path}, err
}

// Leaf returns the leaf data of an event of a feed that is here, and its audit path in
// the tree of size leaves. Errors: CodeNotFound, and those of log.Log.Prove.
func (e *Engine) Leaf(feed fcp.Feed, seq, size uint64) (leaf []byte, path []fcp.Hash, err error) {
	no, ok := e.log.FeedNo(feed)
	if !ok {
		return nil, nil, fcp.Errorf(fcp.CodeNotFound, "feed of %.16s", feed.Writer)
	}
	p, err := e.log.Prove(no, seq, size)
	if err != nil {
		return nil, nil, err
	}
	ev, _, err := e.log.ReadFull(no, seq)
	if err != nil {
		return nil, nil, err
	}
	content := ev.Content.AppendTo(nil)
	leaf = fcp.AppendLeaf(nil, fcp.ScopeHash(feed.ID(), ev.Under), seq, ev.Time, ev.Prev, fcp.ContentHash(content))
	return leaf, p.Hashes, nil
}

// ProveFork appends the proof that a writer signed two histories that part at seq:
// from there on its feed is void on every node that gets the proof. It also leaves
// an audit entry.
func (e *Engine) ProveFork(ctx context.Context, seq uint64, a, b authority.Branch) error {
	body, err := authority.ProveFork(seq, a, b)
	if err != nil {
		return err
	}
	zone := a.Head.Feed().Zone
	if _, err := e.AppendSigned(ctx, zone, fcp.KindForkProven, body); err != nil {
		return err
	}
	return e.noteAct(ctx, zone, authority.AuditForkDetected, authority.RefOf(body))
}
