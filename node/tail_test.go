package node

import (
	"bytes"
	"testing"

	"fcp"
	"fcp/engine"
)

// TestOnePeerAnswersOnceForATail: a peer that says again and again that it has nothing
// does not speak for the others.
func TestOnePeerAnswersOnceForATail(t *testing.T) {
	n := &Node{}
	n.tails.init()
	liar, honest := &Session{node: n, peer: engine.Member{Writer: fcp.WriterID{1}}}, &Session{node: n, peer: engine.Member{Writer: fcp.WriterID{2}}}
	q := &tailAsk{join: map[fcp.WriterID]*tailJoin{}, done: make(chan []byte, 2)}
	for _, s := range []*Session{liar, honest} {
		q.join[s.peer.Writer] = &tailJoin{}
	}
	n.tails.asked[7] = q
	for range 5 {
		if err := n.takeTail(liar, &tailPart{ID: 7, Asked: true}); err != nil {
			t.Fatal(err)
		}
	}
	stranger := &Session{node: n, peer: engine.Member{Writer: fcp.WriterID{3}}} // was not asked
	for _, s := range []*Session{stranger, honest} {
		if err := n.takeTail(s, &tailPart{ID: 7, Parts: 1, Data: s.peer.Writer[:], Asked: true}); err != nil {
			t.Fatal(err)
		}
	}
	if b := <-q.done; b != nil {
		t.Fatalf("%x before the first answer", b)
	}
	select {
	case b := <-q.done:
		if !bytes.Equal(b, honest.peer.Writer[:]) {
			t.Errorf("an answer of %x", b)
		}
	default:
		t.Error("the answer of an honest peer was lost")
	}
}
