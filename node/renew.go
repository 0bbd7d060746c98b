package node

import (
	"errors"
	"slices"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// Checkpoints stay fresh while the mesh runs: before the newest one of a zone is as old
// as the policy allows, a member drafts the next and asks those who are there for their
// signatures (engine.SignProposal). It needs as many as the members' quorum, and nobody
// else's key.

// Times of renewal.
const (
	renewEvery = 5 * time.Second  // between looks whether a checkpoint is due
	draftsLast = 20 * time.Second // that a draft of this node waits for signatures
)

// checkpointProposal asks for a signature, or answers with one.
type checkpointProposal struct {
	Proposal []byte `cbor:"proposal"` // engine.Proposal
}

var schemaProposal = fcp.MustSchema("fcp.mesh:CheckpointProposal@1.0.0")

func (m *checkpointProposal) ok() bool {
	return len(m.Proposal) > 0 && len(m.Proposal) <= engine.MaxProposal
}

// renewTable is what this node drafted and nobody signed yet.
type renewTable struct {
	turn chan struct{} // of one: in it while a proposal is looked at

	mu     sync.Mutex
	due    map[fcp.ZoneID]time.Time // since when a zone's checkpoint is due; guarded by mu
	drafts map[fcp.ZoneID]draft     // guarded by mu
}

type draft struct {
	engine.Proposal
	at time.Time
}

func (t *renewTable) init() {
	t.turn = make(chan struct{}, 1)
	t.due, t.drafts = map[fcp.ZoneID]time.Time{}, map[fcp.ZoneID]draft{}
}

// renewLoop sees to it that checkpoints do not get old.
func (n *Node) renewLoop() {
	t := time.NewTicker(renewEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-n.life.Done():
			return
		}
		for _, zone := range n.engine.Zones() {
			if err := n.renewCheckpoint(zone); err != nil && n.life.Err() == nil {
				n.logger.Warn("a checkpoint was not renewed", "zone", zone, "err", err)
			}
		}
	}
}

// renewCheckpoint drafts a zone's next checkpoint when it is this node's turn.
func (n *Node) renewCheckpoint(zone fcp.ZoneID) error {
	due, members, next, err := n.engine.CheckpointDue(zone)
	if err != nil {
		return err
	}
	now := n.now()
	var there []fcp.WriterID
	n.mu.Lock()
	for _, m := range members {
		if m.Writer == n.self || n.sessions[m.Writer] != nil {
			there = append(there, m.Writer)
		}
	}
	n.mu.Unlock()
	t := &n.renewals
	t.mu.Lock()
	since, known := t.due[zone]
	switch {
	case !due:
		delete(t.due, zone)
		delete(t.drafts, zone)
	case !known:
		since = now
		t.due[zone] = now
	}
	pending := now.Sub(t.drafts[zone].at) < draftsLast
	t.mu.Unlock()
	if !due || pending || len(there) < 2 || now.Sub(since) < n.engine.CheckpointTurn(zone, next, there) {
		return nil
	}
	p, signed, err := n.engine.SignedProposal(zone)
	if err != nil {
		return err
	}
	if !signed || p.Checkpoint.Spec().Seq != next {
		if p, err = n.engine.DraftCheckpoint(zone); err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.drafts[zone] = draft{p, now}
	t.mu.Unlock()
	return n.propose(p, there)
}

// propose asks members for their signatures.
func (n *Node) propose(p engine.Proposal, to []fcp.WriterID) error {
	b, err := p.Encode()
	if err != nil {
		return err
	}
	for _, w := range to {
		s := n.session(w)
		if s == nil {
			continue
		}
		if err := s.send(normal, &checkpointProposal{b}); err != nil {
			n.logger.Debug("a checkpoint was not proposed", "peer", w, "err", err)
		}
	}
	return nil
}

// takeProposal signs what a member proposes, or takes a signature on what this node
// did.
func (n *Node) takeProposal(s *Session, m *checkpointProposal) {
	s.spawn(func() {
		done, err := s.budget.serve()
		if err != nil {
			return
		}
		defer done()
		select {
		case n.renewals.turn <- struct{}{}:
			defer func() { <-n.renewals.turn }()
		case <-s.ctx.Done():
			return
		}
		p, err := engine.DecodeProposal(m.Proposal)
		if err == nil {
			err = n.answerProposal(s, p)
		}
		if err != nil && n.life.Err() == nil {
			n.logger.Debug("a proposal was not signed", "peer", s.peer.Writer, "err", err)
		}
	})
}

func (n *Node) answerProposal(s *Session, p engine.Proposal) error {
	spec := p.Checkpoint.Spec()
	t := &n.renewals
	t.mu.Lock()
	mine, drafted := t.drafts[spec.Zone]
	t.mu.Unlock()
	drafted = drafted && n.now().Sub(mine.at) < draftsLast && mine.Checkpoint.Spec().Seq == spec.Seq
	if drafted && mine.Checkpoint.Ref() != p.Checkpoint.Ref() && len(p.Checkpoint.Signers()) == 0 && n.before(spec, s.peer.Writer) {
		return nil // this node's own draft goes first
	}
	signed, ok, err := n.engine.SignedProposal(spec.Zone)
	if err != nil {
		return err
	}
	asked := slices.Contains(p.Checkpoint.Signers(), n.self.String()) // its signature got there
	if ok && signed.Checkpoint.Ref() == p.Checkpoint.Ref() {          // one more signature, perhaps
		if p.Checkpoint, err = p.Checkpoint.Merge(signed.Checkpoint); err != nil {
			return err
		}
	}
	out, enough, err := n.engine.SignProposal(p)
	switch {
	case authority.ReasonOf(err) == authority.ReasonCheckpointForked && ok && signed.Checkpoint.Spec().Seq == spec.Seq:
		return n.propose(signed, []fcp.WriterID{s.peer.Writer})
	case err != nil:
		return err
	case enough:
		_, err := n.engine.AppendCheckpoint(n.life, out.Checkpoint)
		if errors.Is(err, fcp.CodeDenied) && authority.ReasonOf(err) == authority.ReasonCheckpointRollback {
			err = nil // somebody else did meanwhile
		}
		return err
	case asked:
		return nil // who drafted it waits for others
	}
	return n.propose(out, []fcp.WriterID{s.peer.Writer})
}

// before reports whether this node is to draft a checkpoint before a peer.
func (n *Node) before(spec authority.ZoneCheckpointSpec, peer fcp.WriterID) bool {
	return n.engine.CheckpointTurn(spec.Zone, spec.Seq, []fcp.WriterID{n.self, peer}) == 0
}
