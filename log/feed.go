package log

import (
	"encoding/binary"
	"math/bits"

	"fcp"
)

// head is a point in a feed: everything needed to append behind it.
type head struct {
	seq  uint64
	hash fcp.Hash
	time fcp.Time
	tree tree
}

func (h *head) copyFrom(o *head) {
	h.seq, h.hash, h.time = o.seq, o.hash, o.time
	h.tree.copyFrom(&o.tree)
}

// appendTo appends the head record's encoding: seq, time, hash, subtree roots.
func (h *head) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, h.seq)
	b = binary.AppendUvarint(b, uint64(h.time))
	b = append(b, h.hash[:]...)
	for i := range h.tree.roots {
		b = append(b, h.tree.roots[i][:]...)
	}
	return b
}

func parseHead(b []byte, chained bool) (h head, err error) {
	r := reader{b: b}
	h.seq = r.uvarint()
	h.time = fcp.Time(r.uvarint())
	h.hash = r.hash()
	if chained {
		h.tree.size = h.seq
		for range bits.OnesCount64(h.seq) {
			h.tree.roots = append(h.tree.roots, r.hash())
		}
	}
	if !r.done() {
		return head{}, fcp.Errorf(fcp.CodeCorrupt, "a feed head record does not decode")
	}
	return h, nil
}

// feed is the log's state of one feed.
type feed struct {
	no   FeedNo
	feed fcp.Feed
	id   fcp.FeedID
	own  bool

	next              head       // owned by the committer: head over everything assigned; hash and tree over what is settled
	recorded          uint64     // owned by the committer: seq of the last head record
	recordBytes       int        // owned by the committer: content bytes since then
	openBlock         *openBlock // owned by the committer: block of the group in work
	scope, scopeUnder fcp.Hash   // owned by the committer: ScopeHash under the last checkpoint
	stored            bool       // owned by the committer: the feed record is in the store
	grown             []treeNode // owned by the committer: nodes of next.tree that are not stored yet

	cutBytes int64 // owned by the committer: record bytes since the last cut
	cutNow   bool  // owned by the committer: the next event starts a new block and run
	newCuts  []cut // owned by the committer: made in this group

	durable   head          // guarded by Log.mu: head over everything acknowledged
	unstored  []treeNode    // guarded by Log.mu: nodes of durable.tree that may not be stored yet
	sealed    uint64        // guarded by Log.mu: last sealed seq
	sealedID  fcp.SegmentID // guarded by Log.mu
	cuts      []cut         // guarded by Log.mu: where the unsealed part is to be cut
	hotBytes  int64         // guarded by Log.mu: record bytes appended and not sealed
	hotSince  fcp.Time      // guarded by Log.mu: time of the oldest unsealed event; 0: none
	lastOther uint64        // guarded by Log.mu: last event that is not segment.sealed
	horizon   fcp.Time      // guarded by Log.mu: events were dropped that reads as of then may need; 0: none
	compacted uint64        // guarded by Log.mu: local number of the last compacted segment; 0: none
}

func (f *feed) chained() bool { return f.feed.Plane.Chained() }

func encodeFeed(f fcp.Feed) []byte {
	b := []byte{byte(len(f.Zone))}
	b = append(b, f.Zone...)
	b = append(b, f.Writer[:]...)
	b = binary.BigEndian.AppendUint64(b, f.Incarnation)
	return append(b, byte(f.Plane))
}

func decodeFeed(b []byte) (f fcp.Feed, err error) {
	r := reader{b: b}
	n := r.take(1)
	if r.bad {
		return f, fcp.Errorf(fcp.CodeCorrupt, "a feed record does not decode")
	}
	zone := string(r.take(int(n[0])))
	f.Writer = fcp.WriterID(r.hash())
	rest := r.take(9)
	if !r.done() {
		return f, fcp.Errorf(fcp.CodeCorrupt, "a feed record does not decode")
	}
	f.Incarnation = binary.BigEndian.Uint64(rest)
	f.Plane = fcp.Plane(rest[8])
	if f.Zone, err = fcp.ParseZoneID(zone); err != nil {
		return f, err
	}
	if f.Plane < fcp.PlaneControl || f.Plane > fcp.PlaneLocal {
		return f, fcp.Errorf(fcp.CodeCorrupt, "a feed record names plane %d", f.Plane)
	}
	return f, nil
}

// state returns the durable state. The caller holds Log.mu.
func (f *feed) state() FeedState {
	s := FeedState{No: f.no, Feed: f.feed, ID: f.id, Own: f.own,
		Seq: f.durable.seq, Hash: f.durable.hash, Time: f.durable.time, Sealed: f.sealed, Horizon: f.horizon, Compacted: f.compacted}
	if f.chained() {
		s.Root = f.durable.tree.root()
	}
	return s
}
