package node

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/authority"
	"fcp/gossip"
	"fcp/internal/cddl"
	"fcp/log"
)

// messageSamples has of each message one with every field and one with as few as may be.
func messageSamples(t *testing.T) []any {
	sig := bytes.Repeat([]byte{7}, 64)
	ids, err := gossip.EncodeBitmap(roaring.BitmapOf(2, 5, 900))
	if err != nil {
		t.Fatal(err)
	}
	head := gossip.Head{Zone: fcp.ZoneWork, Writer: fcp.WriterID{1}, Incarnation: 2, Seq: 3, Hash: fcp.Hash{4}, Root: fcp.Hash{5}, Signature: sig}
	ahead := head
	ahead.Extras = ids
	e := fcp.Event{Feed: fcp.Feed{Zone: fcp.ZoneWork, Writer: fcp.WriterID{1}, Incarnation: 2, Plane: fcp.PlaneControl}, Seq: 3, Time: 9}
	e.Kind, e.Body = fcp.KindAuditEntry, []byte{0xa0}
	request := symbolRequest{ID: 1, Segment: fcp.SegmentID{2}, First: 3, Count: 4, Wanted: ids, Max: 5, Carrier: 1, Zone: fcp.Hash{6}, Epoch: 7, At: 8, Deadline: 9, Signature: sig}
	salt := make([]byte, log.SaltSize)
	return []any{
		&capabilities{Versions: []uint64{1}, Layouts: []uint64{2}, Carriers: []uint64{1, 2}, Compress: []string{}, MaxControl: 1 << 20, MaxFrame: maxStreamFrame, Listen: "127.0.0.1:1", Bulk: 1},
		&capabilities{Versions: []uint64{}, Layouts: []uint64{}, Carriers: []uint64{}, Compress: []string{"none"}},
		&gossip.Vector{Heads: []gossip.Head{ahead}, Last: true, Reply: true}, &gossip.Vector{Heads: []gossip.Head{}},
		&gossip.Digest{Feeds: 3, Hash: fcp.Hash{1}},
		&gossip.Update{Entries: []gossip.Entry{{Segment: fcp.SegmentID{1}, Symbols: ids}, {Segment: fcp.SegmentID{2}}}, First: true, Answer: true},
		&gossip.Update{Entries: []gossip.Entry{}},
		&gossip.WhoHas{Segments: []fcp.SegmentID{{1}}}, &gossip.Leave{},
		&addresses{Entries: []addressEntry{{fcp.WriterID{1}, "127.0.0.1:4100"}}},
		&swim{Packet: []byte{1, 2}},
		&pinReports{Entries: []pinReport{{Zone: fcp.ZoneWork, Key: "a/", Prefix: true, Number: 1, At: 2, Names: 3, Whole: 2, Bytes: 5, Missing: 6}}}, &pinReports{Entries: []pinReport{}},
		&want{Zone: fcp.ZoneWork, Writer: fcp.WriterID{1}, Incarnation: 2, Ranges: [][2]uint64{{1, 2}, {4, 4}}},
		&events{Head: head, First: 3, Events: [][]byte{e.AppendTo(nil)}, Proof: []fcp.Hash{{1}}, Salts: salt, Asked: true},
		&events{Head: head, First: 3, Events: [][]byte{e.AppendTo(nil)}, Salts: salt},
		&events{Head: head, Events: [][]byte{}, Salts: []byte{}, Asked: true, None: true},
		&tailPart{ID: 1, Parts: 1, Data: []byte{1}}, &tailPart{ID: 1, Data: []byte{}, Asked: true}, &tailHeld{ID: 1}, &tailHeld{ID: 1, Refused: true},
		&tailWanted{ID: 2, Zone: fcp.ZoneWork, Object: fcp.ObjectID{1}},
		&leafWanted{Zone: fcp.ZoneWork, Seq: 1, Size: 2},
		&checkpointProposal{[]byte{1}},
		&ask{ID: 1, What: askVote, Body: []byte{1}, Lease: []byte{2}}, &ask{ID: 1, What: askShare, Body: []byte{1}},
		&answer{ID: 1, Body: []byte{1}}, &answer{ID: 1, Refused: &refused{Code: fcp.CodeDenied}},
		&answer{ID: 1, Refused: &refused{Code: fcp.CodeLeaseHeld, Reason: authority.ReasonLeaseHeld, Fence: 7, Holder: make([]byte, 32), Until: 8}},
		&leaf{Zone: fcp.ZoneWork, Seq: 1, Size: 2, Leaf: make([]byte, fcp.LeafSize), Path: []fcp.Hash{{1}}},
		&saltsWanted{Segments: []fcp.SegmentID{{1}}}, &salts{Segment: fcp.SegmentID{1}, Salts: salt},
		&possessionChallenge{ID: 1, Segment: fcp.SegmentID{2}, Symbols: []uint32{3}, Keep: 4}, &possessionChallenge{ID: 1, Symbols: []uint32{0, 9}},
		&possessionProof{ID: 1, Segment: fcp.SegmentID{2}, Symbols: []provenSymbol{{Manifest: []byte{1}, First: 2, Count: 3, ESI: 4, Symbol: make([]byte, fcp.SymbolSize), Path: make([]byte, fcp.HashSize)}}, Keep: 4},
		&possessionProof{ID: 1, Symbols: []provenSymbol{}},
		&offer{Manifest: []byte{1}, First: 0, Count: 5},
		&shareQuery{Segment: fcp.SegmentID{1}, First: 2, Count: 3, Try: 1, ID: 9}, &shareQuery{Segment: fcp.SegmentID{1}},
		&shareHeads{Segment: fcp.SegmentID{1}, Shares: []shareHead{{Manifest: []byte{1}, First: 2, Count: 3, Head: []byte{4}}}, ID: 9},
		&shareHeads{Segment: fcp.SegmentID{1}, Shares: []shareHead{}},
		&request,
		&symbolReply{ID: 1, Granted: 2}, &symbolReply{ID: 1, Refused: fcp.CodeNotFound},
		&decodeStatus{ID: 1, Received: 2, Complete: true},
		&decodeStatus{ID: 1, Received: 2, First: 3, Have: []byte{5}, Frame: 6, Frames: 5, At: 7, Held: 8}, &symbolAck{ID: 1, Reason: ackComplete, Final: 3, Carrier: 2},
	}
}

// TestMessagesMatchTheCDDL holds each message against conformance/cddl, and breaks
// each of them in every field. It fails for a message without a sample.
func TestMessagesMatchTheCDDL(t *testing.T) {
	names, err := filepath.Glob("../conformance/cddl/*.cddl")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	rules, err := cddl.Parse(texts...)
	if err != nil {
		t.Fatal(err)
	}
	ruleOf := map[fcp.Hash]string{}
	for _, r := range rules.Rules() {
		for _, s := range r.Says("schema") {
			ruleOf[fcp.MustSchema(s).Hash()] = r.Name
		}
	}
	seen := map[fcp.Hash]bool{}
	for _, m := range messageSamples(t) {
		b, err := encodeMessage(m)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if _, err := decodeMessage(b); err != nil {
			t.Errorf("%T: %v", m, err)
		}
		schema, body := fcp.Hash(b[:fcp.HashSize]), b[fcp.HashSize:]
		seen[schema] = true
		matchAndBreak(t, rules, ruleOf[schema], body)
	}
	for _, k := range messages {
		if !seen[k.schema.Hash()] {
			t.Errorf("%s has no sample", k.schema)
		}
	}
	for rule, v := range map[string]any{
		"TransportAttestation": attestation{Enrollment: make([]byte, 100), Until: 5, Signature: make([]byte, 64)},
		"SeenList":             seenList{Entries: []seenEntry{{fcp.WriterID{1}, 5}}},
		"AccessList":           accessList{Off: true, Entries: []accessEntry{{fcp.ZoneWork, "a", 5, 6}}},
		"MemberMeta":           meta{Vector: fcp.Hash{1}, Feeds: 2, Segments: 3, Profile: Profile{4, 5, PowerBattery, 6, true}},
	} {
		b, err := fcp.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		matchAndBreak(t, rules, rule, b)
	}
}

// matchAndBreak checks that an encoding fits its rule and, changed in any field that
// must be there, does not.
func matchAndBreak(t *testing.T, rules *cddl.Schema, rule string, b []byte) {
	t.Helper()
	if err := rules.Match(rule, b); err != nil {
		t.Errorf("%v\n%x", err, b)
		return
	}
	optional := []string{}
	for k, opt := range rules.Keys(rule) {
		if opt {
			optional = append(optional, k)
		}
	}
	for _, m := range cddl.Mutations(b) {
		if !slices.Contains(optional, m.Lost) && rules.Match(rule, m.Bytes) == nil {
			t.Errorf("%s: matches with %s", rule, m.What)
		}
	}
}
