package enginetest

import (
	"testing"

	"fcp"
	"fcp/authority"
)

// TestMembersSignWhatTheyHeldThen: a proposal names how far feeds reached; who holds
// that signs it, whatever it wrote since, and who does not hold it does not.
func TestMembersSignWhatTheyHeldThen(t *testing.T) {
	m := New(t, 31, 3)
	a, b, c := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	first, err := a.ProposeCheckpoint(zone)
	m.check(err)
	_, err = a.AppendCheckpoint(ctx, first)
	m.check(err)
	m.Sync(zone)

	draft, err := a.DraftCheckpoint(zone)
	m.check(err)
	put(t, b, "later", "x")
	signed, enough, err := b.SignProposal(draft)
	if err != nil || enough {
		t.Fatal("one of three:", enough, err)
	}
	b.Reopen()
	kept, ok, err := b.SignedProposal(zone)
	if err != nil || !ok || kept.Checkpoint.Ref() != draft.Checkpoint.Ref() || len(kept.Checkpoint.Signers()) != 1 {
		t.Fatal("what it signed is not kept:", ok, err)
	}
	// Another draft of that number: b gives out the one that it signed.
	m.Sync(zone)
	other, err := c.DraftCheckpoint(zone)
	m.check(err)
	if other.Checkpoint.Ref() == draft.Checkpoint.Ref() {
		t.Fatal("the drafts say the same")
	}
	_, _, err = b.SignProposal(other)
	wantReason(t, "two of one number", err, authority.ReasonCheckpointForked)
	encoded, err := signed.Encode()
	m.check(err)
	if signed, enough, err = c.SignProposal(kept); err != nil || !enough {
		t.Fatal("two of three:", enough, err)
	}
	if again, err := signed.Encode(); err != nil || len(again) <= len(encoded) {
		t.Fatal("no signature was added:", err)
	}
	_, err = c.AppendCheckpoint(ctx, signed.Checkpoint)
	m.check(err)
	m.Sync(zone)
	if f := facts(t, a, zone); f.Checkpoint.Seq != 2 || f.Checkpoint.Ref != draft.Checkpoint.Ref() {
		t.Fatalf("checkpoint %d", f.Checkpoint.Seq)
	}
	_, _, err = b.SignProposal(signed)
	wantReason(t, "an old number", err, authority.ReasonCheckpointRollback)

	put(t, a, "only here", "x")
	ahead, err := a.DraftCheckpoint(zone)
	m.check(err)
	_, _, err = b.SignProposal(ahead)
	wantCode(t, "what is not here", err, fcp.CodeNotFound)
	ahead.Heads = ahead.Heads[1:]
	_, _, err = b.SignProposal(ahead)
	wantReason(t, "heads that are not those of the checkpoint", err, authority.ReasonCheckpointUnsignable)
}
