package authority

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"fcp"
)

func testAuditEvent() AuditEvent {
	return AuditEvent{Zone: "z:work", Type: AuditDenied, Actor: "user:alice", Connector: "mail:imap:1", Operation: "mail.send",
		Reason: "token.expired", Token: fcp.Hash{1}, Request: fcp.Hash{2}, Correlation: [16]byte{3}, At: testNow}
}

func TestAuditEventSaysWhatItWasGiven(t *testing.T) {
	b, err := EncodeAuditEvent(testAuditEvent())
	must(t, b, err)
	e, err := DecodeAuditEvent(b)
	equal(t, must(t, e, err), testAuditEvent())
	for name, change := range map[string]func(*AuditEvent){
		"unknown type":   func(e *AuditEvent) { e.Type = "x" },
		"no actor":       func(e *AuditEvent) { e.Actor = "" },
		"control actor":  func(e *AuditEvent) { e.Actor = "a\x00" },
		"bad connector":  func(e *AuditEvent) { e.Connector = "Mail" },
		"bad operation":  func(e *AuditEvent) { e.Operation = "!" },
		"bad zone":       func(e *AuditEvent) { e.Zone = "work" },
		"before 1970":    func(e *AuditEvent) { e.At = time.Unix(-1, 0) },
		"control reason": func(e *AuditEvent) { e.Reason = "a\n" },
	} {
		e := testAuditEvent()
		change(&e)
		if _, err := EncodeAuditEvent(e); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

// testChain is a feed in memory: leaf data, hashes and the tree over them.
type testChain struct {
	feed   fcp.Feed
	node   *NodeKeys
	leaves [][]byte
	hashes []fcp.Hash
	stored []tlog.Hash
}

func (c *testChain) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = c.stored[x]
	}
	return out, nil
}

// newChain makes a feed of n events that is the same for all branches up to the
// event common.
func newChain(t testing.TB, node *NodeKeys, common, n int, branch string) *testChain {
	t.Helper()
	c := &testChain{node: node, feed: fcp.Feed{Zone: fcp.ZoneWork, Writer: node.Writer(), Incarnation: 1, Plane: fcp.PlaneControl}}
	scope := fcp.ScopeHash(c.feed.ID(), fcp.Hash{})
	prev := fcp.Hash{}
	for seq := 1; seq <= n; seq++ {
		name := branch
		if seq <= common {
			name = ""
		}
		leaf := fcp.AppendLeaf(nil, scope, uint64(seq), fcp.Time(seq), prev, sha256.Sum256(fmt.Append(nil, name, seq)))
		hashes, err := tlog.StoredHashes(int64(seq-1), leaf, c)
		must(t, hashes, err)
		c.stored = append(c.stored, hashes...)
		prev = fcp.Hash(tlog.RecordHash(leaf))
		c.leaves, c.hashes = append(c.leaves, leaf), append(c.hashes, prev)
	}
	return c
}

func (c *testChain) head(t testing.TB, size int) *AuditHead {
	t.Helper()
	root, err := tlog.TreeHash(int64(size), c)
	must(t, root, err)
	h, err := SignHead(c.node, HeadSpec{Feed: c.feed, Epoch: 1, Size: uint64(size), Hash: c.hashes[size-1], Root: fcp.Hash(root), At: testNow})
	return must(t, h, err)
}

func (c *testChain) branch(t testing.TB, seq, size int) Branch {
	t.Helper()
	p, err := tlog.ProveRecord(int64(size), int64(seq-1), c)
	must(t, p, err)
	return Branch{Head: c.head(t, size), Leaf: c.leaves[seq-1], Path: hashesOf(p)}
}

func (c *testChain) consistency(t testing.TB, from, to int) []fcp.Hash {
	t.Helper()
	p, err := tlog.ProveTree(int64(to), int64(from), c)
	must(t, p, err)
	return hashesOf(p)
}

func hashesOf[T ~[]tlog.Hash](in T) (out []fcp.Hash) {
	for _, h := range in {
		out = append(out, fcp.Hash(h))
	}
	return out
}

func testHead(t testing.TB, node *NodeKeys, size int, branch string) *AuditHead {
	return newChain(t, node, 0, size, branch).head(t, size)
}

func testForkProof(t testing.TB) []byte {
	t.Helper()
	n := testNode(t, 1)
	b, err := ProveFork(6, newChain(t, n, 5, 9, "a").branch(t, 6, 9), newChain(t, n, 5, 12, "b").branch(t, 6, 12))
	return must(t, b, err)
}

func TestHeadsAreSignedByTheirWriterAndWitnesses(t *testing.T) {
	n, w := testNode(t, 1), testNode(t, 2)
	keys := func(id fcp.WriterID) (SigningPublic, bool) { return w.Public().Signing, id == w.Writer() }
	h := testHead(t, n, 9, "a")
	c, err := h.Cosign(w, testNow.Add(time.Second))
	must(t, c, err)
	b, err := c.Encode()
	must(t, b, err)
	got, err := VerifyHead(b, keys)
	must(t, got, err)
	equal(t, got.Spec(), h.Spec())
	equal(t, got.Ref(), h.Ref())
	if !slices.Equal(got.Witnesses(), []fcp.WriterID{w.Writer()}) {
		t.Error("witnesses")
	}
	_, err = VerifyHead(b, nil)
	wantReason(t, "an unknown witness", err, ReasonSignerUnknown)
	_, err = c.Cosign(w, testNow)
	wantReason(t, "twice", err, ReasonSignatureDuplicate)
	m, err := h.Merge(c)
	if must(t, m, err); len(m.Witnesses()) != 1 {
		t.Error("merge")
	}
	if _, err := h.Merge(testHead(t, n, 8, "a")); err == nil {
		t.Error("two heads become one")
	}
	stranger := *h
	stranger.o.Signatures = &signatureSet{[]NodeSignature{signNode(w, h.message, 1)}}
	b, err = stranger.Encode()
	must(t, b, err)
	_, err = VerifyHead(b, keys)
	wantReason(t, "without the writer", err, ReasonSignatureMissing)
	none := *h
	none.o.Signatures = nil
	b, err = none.Encode()
	must(t, b, err)
	_, err = VerifyHead(b, keys)
	wantReason(t, "without signatures", err, ReasonSignatureMissing)

	// Whatever bit is flipped, it does not pass as another head. The time beside a
	// signature is not signed.
	good, err := h.Encode()
	must(t, good, err)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if x, err := VerifyHead(bad, nil); err == nil && x.Ref() != h.Ref() {
			t.Fatalf("byte %d makes another head", i)
		}
	}
	for name, change := range map[string]func(*HeadSpec){
		"empty":        func(s *HeadSpec) { s.Size = 0 },
		"no hash":      func(s *HeadSpec) { s.Hash = fcp.Hash{} },
		"no root":      func(s *HeadSpec) { s.Root = fcp.Hash{} },
		"local plane":  func(s *HeadSpec) { s.Feed.Plane = fcp.PlaneLocal },
		"future epoch": func(s *HeadSpec) { s.Epoch = uint64(testNow.Unix())/300 + 1 },
		"not its feed": func(s *HeadSpec) { s.Feed.Writer[0] ^= 1 },
		"bad zone":     func(s *HeadSpec) { s.Feed.Zone = "work" },
	} {
		s := h.Spec()
		change(&s)
		if _, err := SignHead(n, s); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

// TestAWitnessSignsOneHistory is the attack table of co-signing.
func TestAWitnessSignsOneHistory(t *testing.T) {
	n := testNode(t, 1)
	a, b := newChain(t, n, 5, 12, "a"), newChain(t, n, 5, 12, "b")
	var w Witness
	check := func(name string, h *AuditHead, proof []fcp.Hash, want fcp.Reason) {
		t.Helper()
		wantReason(t, name, w.Check(h, proof, testNow), want)
	}
	check("the first", a.head(t, 4), nil, "")
	check("a continuation", a.head(t, 7), a.consistency(t, 4, 7), "")
	check("the same", a.head(t, 7), nil, "")
	check("without proof", a.head(t, 9), nil, ReasonHeadProof)
	check("with another proof", a.head(t, 9), a.consistency(t, 6, 9), ReasonHeadProof)
	check("too many hashes", a.head(t, 9), make([]fcp.Hash, maxTreeProof+1), ReasonHeadProof)
	check("another branch", b.head(t, 9), b.consistency(t, 7, 9), ReasonHeadProof)
	check("another branch of the same size", b.head(t, 7), nil, ReasonHeadFork)
	check("an older one", a.head(t, 6), nil, ReasonHeadRollback)
	if w.Last(a.feed).Spec().Size != 7 {
		t.Error("a refused head is remembered")
	}
	check("go on", a.head(t, 12), a.consistency(t, 7, 12), "")
	s := a.head(t, 12).Spec()
	s.At = testNow.Add(MaxSkew + time.Second)
	late, err := SignHead(n, s)
	check("a far-future clock", must(t, late, err), nil, ReasonHeadFuture)
}

// meshBranch is a branch under a head as nodes of a mesh sign it.
func (c *testChain) meshBranch(t testing.TB, seq, size int) Branch {
	t.Helper()
	b := c.branch(t, seq, size)
	s := b.Head.Spec()
	sig := c.node.Sign(fcp.FeedHeadMessage(c.feed.ID(), s.Size, s.Hash, s.Root))
	head, err := MeshHead(c.feed, s.Size, s.Hash, s.Root, c.node.Public().Signing, sig)
	b.Head = head
	must(t, b.Head, err)
	return b
}

// TestHeadsOfTheMeshProveForks: what nodes sign to each other convicts them, alone
// and beside an audit head, and every byte of it counts.
func TestHeadsOfTheMeshProveForks(t *testing.T) {
	n := testNode(t, 1)
	a, b := newChain(t, n, 5, 12, "a"), newChain(t, n, 5, 12, "b")
	for _, c := range [][2]Branch{{a.meshBranch(t, 6, 9), b.meshBranch(t, 6, 12)}, {a.branch(t, 6, 9), b.meshBranch(t, 6, 12)}} {
		x, err := ProveFork(6, c[0], c[1])
		must(t, x, err)
		f, err := VerifyFork(x)
		must(t, f, err)
		if f.Feed() != a.feed || f.Seq() != 6 {
			t.Errorf("%+v at %d", f.Feed(), f.Seq())
		}
		for i := range x {
			bad := bytes.Clone(x)
			bad[i] ^= 1 << (i % 8)
			if g, err := VerifyFork(bad); err == nil && (g.Feed() != f.Feed() || g.Seq() != f.Seq()) {
				t.Fatalf("byte %d proves something else", i)
			}
		}
	}
	s := a.head(t, 9).Spec()
	if _, err := MeshHead(a.feed, s.Size, s.Hash, s.Root, n.Public().Signing, make([]byte, 64)); !errors.Is(err, fcp.CodeSignature) {
		t.Error("a head that nobody signed:", err)
	}
	for i := range 40 {
		if _, err := openEvidence([]byte(feedHeadMark + strings.Repeat("\x01", i))); err == nil {
			t.Error("a cut head opens")
		}
	}
}

// TestForkProofs: only two signed histories that part exactly there are a proof.
func TestForkProofs(t *testing.T) {
	n := testNode(t, 1)
	a, b := newChain(t, n, 5, 12, "a"), newChain(t, n, 5, 12, "b")
	x, err := ProveFork(6, a.branch(t, 6, 9), b.branch(t, 6, 12))
	must(t, x, err)
	y, err := ProveFork(6, b.branch(t, 6, 12), a.branch(t, 6, 9))
	if must(t, y, err); !bytes.Equal(x, y) {
		t.Error("the proof depends on the order of the branches")
	}
	f, err := VerifyFork(x)
	must(t, f, err)
	if f.Feed() != a.feed || f.Seq() != 6 {
		t.Errorf("%+v at %d", f.Feed(), f.Seq())
	}
	first := newChain(t, n, 0, 3, "a").branch(t, 1, 3)
	z, err := ProveFork(1, first, newChain(t, n, 0, 3, "b").branch(t, 1, 3))
	must(t, z, err)

	other := newChain(t, testNode(t, 2), 5, 12, "b")
	wrongPath := b.branch(t, 6, 12)
	wrongPath.Path = slices.Clone(wrongPath.Path)
	wrongPath.Path[0][0] ^= 1
	wrongLeaf := b.branch(t, 6, 12)
	wrongLeaf.Leaf = bytes.Clone(wrongLeaf.Leaf)
	wrongLeaf.Leaf[len(wrongLeaf.Leaf)-1] ^= 1
	short := b.branch(t, 6, 12)
	short.Leaf = short.Leaf[1:]
	for name, c := range map[string]struct {
		seq  uint64
		a, b Branch
	}{
		"one history twice":       {6, a.branch(t, 6, 9), a.branch(t, 6, 12)},
		"the same event":          {5, a.branch(t, 5, 9), b.branch(t, 5, 12)},
		"above the fork":          {7, a.branch(t, 7, 9), b.branch(t, 7, 12)},
		"another feed":            {6, a.branch(t, 6, 9), other.branch(t, 6, 12)},
		"another number":          {5, a.branch(t, 6, 9), b.branch(t, 6, 12)},
		"number 0":                {0, a.branch(t, 6, 9), b.branch(t, 6, 12)},
		"a path that leads away":  {6, a.branch(t, 6, 9), wrongPath},
		"an event that was never": {6, a.branch(t, 6, 9), wrongLeaf},
		"a short leaf":            {6, a.branch(t, 6, 9), short},
	} {
		_, err := ProveFork(c.seq, c.a, c.b)
		wantReason(t, name, err, ReasonForkUnproven)
	}
	for i := range x {
		bad := bytes.Clone(x)
		bad[i] ^= 1 << (i % 8)
		if g, err := VerifyFork(bad); err == nil && (g.Feed() != f.Feed() || g.Seq() != f.Seq()) {
			t.Fatalf("byte %d proves something else", i)
		}
	}
}
