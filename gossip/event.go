package gossip

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
)

// Event is something that happened to a node.
type Event interface{ event() }

// Effect is something that a node should do.
type Effect interface{ effect() }

// Message is what one node's Core says to another's.
type Message interface {
	Encode() ([]byte, error)
	message()
}

// The events.
type (
	// Members replaces the set of members: the enrolled writers that are not
	// revoked, this node among them or not. Known counts those whose heads can be
	// verified, revoked ones too: their feeds are fetched all the same.
	Members struct {
		Writers []fcp.WriterID
		Known   int
	}
	// PeerUp says that an authenticated session with a peer began; PeerDown that
	// the last one ended.
	PeerUp   struct{ Peer fcp.WriterID }
	PeerDown struct{ Peer fcp.WriterID }
	// Received is a message of a peer. Every head in a Vector was verified.
	Received struct {
		Peer    fcp.WriterID
		Message Message
	}
	// LocalHead says that a control feed grew here, or begins to be known. From is
	// the peer that the events came from; zero for own feeds.
	LocalHead struct {
		Head Head
		From fcp.WriterID
	}
	// LocalSymbols says what this node holds of a segment now; nil for nothing.
	LocalSymbols struct {
		Segment fcp.SegmentID
		Symbols *roaring.Bitmap
	}
	// Held says that a feed cannot grow before Until: its next event lies in the
	// future, or its writer is not known yet.
	Held struct {
		Feed  fcp.Feed
		Until time.Time
	}
	// Progress says that events of a feed came from a peer, though not all of a Fetch.
	Progress struct {
		Peer fcp.WriterID
		Feed fcp.Feed
	}
	// Failed says that a peer did not deliver what Fetch asked for.
	Failed struct {
		Peer fcp.WriterID
		Feed fcp.Feed
	}
	// Contradicts answers Compare: the head is of another branch than the log's.
	Contradicts struct {
		Peer         fcp.WriterID
		Mine, Theirs Head
	}
	// Renewed says that this node began a new incarnation: its feeds of others are
	// from now on fetched like anybody's.
	Renewed struct{ Incarnation uint64 }
	// Leaving says that this node goes.
	Leaving struct{}
	// Tick lets time pass. Call it every Options.Flush or so.
	Tick struct{}
)

func (Members) event()      {}
func (PeerUp) event()       {}
func (PeerDown) event()     {}
func (Received) event()     {}
func (LocalHead) event()    {}
func (LocalSymbols) event() {}
func (Held) event()         {}
func (Failed) event()       {}
func (Progress) event()     {}
func (Contradicts) event()  {}
func (Renewed) event()      {}
func (Leaving) event()      {}
func (Tick) event()         {}

// The effects.
type (
	// Send sends a message to a peer.
	Send struct {
		Peer    fcp.WriterID
		Message Message
	}
	// Push sends events First to Head.Seq of an own feed to a peer that has those
	// before.
	Push struct {
		Peer  fcp.WriterID
		First uint64
		Head  Head
	}
	// Fetch asks a peer for the ranges of a feed that this node lacks. Head is what
	// the peer said it has.
	Fetch struct {
		Peer   fcp.WriterID
		Ranges []Range
		Head   Head
	}
	// Compare asks for the hash at Head.Seq in the log; when it is another one,
	// Contradicts is the answer.
	Compare struct {
		Peer fcp.WriterID
		Head Head
	}
	// Forked says that two heads of one feed contradict each other: A is of this
	// node's branch, B came from Peer. It comes once for a feed.
	Forked struct {
		Peer fcp.WriterID
		A, B Head
	}
	// Drop ends the session with a peer that is no member.
	Drop struct{ Peer fcp.WriterID }
	// Reached says that a peer has every event of an own feed up to Seq.
	Reached struct {
		Peer fcp.WriterID
		Feed fcp.Feed
		Seq  uint64
	}
	// Ahead says that a peer has events of an own feed that this node does not have:
	// its tail was lost, or an older image of it runs.
	Ahead struct {
		Peer fcp.WriterID
		Head Head
	}
	// Gone says that a peer took its leave.
	Gone struct{ Peer fcp.WriterID }
)

func (Send) effect()    {}
func (Push) effect()    {}
func (Fetch) effect()   {}
func (Compare) effect() {}
func (Forked) effect()  {}
func (Drop) effect()    {}
func (Reached) effect() {}
func (Gone) effect()    {}
func (Ahead) effect()   {}

// Leave says goodbye.
type Leave struct{}

// Encode returns the canonical encoding.
func (*Leave) Encode() ([]byte, error) { return fcp.Marshal(struct{}{}) }

func (*Vector) message() {}
func (*Digest) message() {}
func (*Update) message() {}
func (*WhoHas) message() {}
func (*Leave) message()  {}

// Range is a stretch of sequence numbers, both ends included.
type Range struct{ First, Last uint64 }
