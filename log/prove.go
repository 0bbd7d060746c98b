package log

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"fcp"
)

// Proofs over a feed's Merkle tree (RFC 6962 section 2.1; docs/format.md "Tree
// head" and "Proof"). Nodes at the stored heights are read; between two stored
// heights they are folded from the lower one; below the lowest they are
// recomputed from the events. No proof leaves the store before it was checked
// against the root it claims.

// Inclusion proves that an event is in a feed's tree.
type Inclusion struct {
	Feed   fcp.FeedID
	Seq    uint64 // the event's sequence number; its leaf index is Seq-1
	Size   uint64 // leaves of the tree
	Leaf   fcp.Hash
	Root   fcp.Hash
	Hashes []fcp.Hash // the audit path, from the leaf up
}

// Consistency proves that one tree of a feed is the beginning of a later one.
type Consistency struct {
	Feed     fcp.FeedID
	From, To uint64 // leaves of the two trees
	FromRoot fcp.Hash
	ToRoot   fcp.Hash
	Hashes   []fcp.Hash
}

// SignedHead is a feed's tree head as a C2SP checkpoint
// (https://c2sp.org/tlog-checkpoint): a signed note whose text is the origin,
// the size and the root.
type SignedHead struct {
	Origin string // "fcp.log/feed/" and the feed id
	Size   uint64
	Root   fcp.Hash
	Note   []byte // the signed note
}

// maxProof is the most hashes a proof over 2^63 leaves has.
const maxProof = 64

// headOrigin is the first line of a feed's checkpoints and the name of the key
// that signs them.
func headOrigin(id fcp.FeedID) string { return "fcp.log/feed/" + id.String() }

// Prove returns the proof that event seq of a feed is in the feed's tree of the
// given size; size 0 means the durable head. CodeNotFound when there is no such
// event or tree; CodeWrongPlane for the local plane.
func (l *Log) Prove(no FeedNo, seq, size uint64) (Inclusion, error) {
	r, size, err := l.hashReader(no, size)
	if err != nil {
		return Inclusion{}, err
	}
	if seq == 0 || seq > size {
		return Inclusion{}, fcp.Errorf(fcp.CodeNotFound, "event %d in a tree of %d leaves", seq, size)
	}
	p := Inclusion{Feed: r.feed, Seq: seq, Size: size}
	path, err := tlog.ProveRecord(int64(size), int64(seq-1), r)
	if err != nil {
		return Inclusion{}, proofError(err)
	}
	if p.Root, err = r.root(size); err != nil {
		return Inclusion{}, err
	}
	leaf, err := r.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(seq-1))})
	if err != nil {
		return Inclusion{}, err
	}
	p.Leaf, p.Hashes = fcp.Hash(leaf[0]), fromTlog(path)
	return p, proofError(p.Check())
}

// Check verifies the proof itself; whether Root is to be trusted is the
// caller's question.
func (p *Inclusion) Check() error {
	if p.Size > math.MaxInt64 || p.Seq == 0 || p.Seq > p.Size || len(p.Hashes) > maxProof {
		return fcp.Errorf(fcp.CodeMalformed, "an inclusion proof of event %d in %d leaves", p.Seq, p.Size)
	}
	err := tlog.CheckRecord(toTlog(p.Hashes), int64(p.Size), tlog.Hash(p.Root), int64(p.Seq-1), tlog.Hash(p.Leaf))
	if err != nil {
		return fcp.Errorf(fcp.CodeChecksum, "the inclusion proof of event %d: %w", p.Seq, err)
	}
	return nil
}

// Consistency returns the proof that the feed's tree of m leaves is the
// beginning of its tree of n leaves; n 0 means the durable head.
func (l *Log) Consistency(no FeedNo, m, n uint64) (Consistency, error) {
	r, n, err := l.hashReader(no, n)
	if err != nil {
		return Consistency{}, err
	}
	if m == 0 || m > n {
		return Consistency{}, fcp.Errorf(fcp.CodeNotFound, "a tree of %d leaves inside one of %d", m, n)
	}
	c := Consistency{Feed: r.feed, From: m, To: n}
	path, err := tlog.ProveTree(int64(n), int64(m), r)
	if err != nil {
		return Consistency{}, proofError(err)
	}
	if c.FromRoot, err = r.root(m); err != nil {
		return Consistency{}, err
	}
	if c.ToRoot, err = r.root(n); err != nil {
		return Consistency{}, err
	}
	c.Hashes = fromTlog(path)
	return c, proofError(c.Check())
}

// Check verifies the proof itself; whether the roots are to be trusted is the
// caller's question.
func (c *Consistency) Check() error {
	if c.To > math.MaxInt64 || c.From == 0 || c.From > c.To || len(c.Hashes) > maxProof {
		return fcp.Errorf(fcp.CodeMalformed, "a consistency proof from %d to %d leaves", c.From, c.To)
	}
	err := tlog.CheckTree(toTlog(c.Hashes), int64(c.To), tlog.Hash(c.ToRoot), int64(c.From), tlog.Hash(c.FromRoot))
	if err != nil {
		return fcp.Errorf(fcp.CodeChecksum, "the consistency proof from %d to %d leaves: %w", c.From, c.To, err)
	}
	return nil
}

// TreeHead signs the feed's durable tree head with the node's signing key.
func (l *Log) TreeHead(no FeedNo) (SignedHead, error) {
	if l.opts.Signer == nil {
		return SignedHead{}, fcp.Errorf(fcp.CodeUnauthorized, "a tree head needs the node's signing key")
	}
	h, ok := l.Head(no)
	switch {
	case !ok || h.Seq == 0:
		return SignedHead{}, fcp.Errorf(fcp.CodeNotFound, "feed %d", no)
	case !h.Feed.Plane.Chained():
		return SignedHead{}, fcp.Errorf(fcp.CodeWrongPlane, "the local plane has no tree")
	}
	s := SignedHead{Origin: headOrigin(h.ID), Size: h.Seq, Root: h.Root}
	v, err := headVerifier(s.Origin, l.opts.Signer.Public())
	if err != nil {
		return SignedHead{}, err
	}
	s.Note, err = note.Sign(&note.Note{Text: s.text()}, noteSigner{v, l.opts.Signer})
	return s, fcp.Wrap(fcp.CodeInternal, err, "signing a tree head")
}

func (s *SignedHead) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", s.Origin, s.Size, base64.StdEncoding.EncodeToString(s.Root[:]))
}

// noteSigner makes a Signer sign notes.
type noteSigner struct {
	note.Verifier
	signer Signer
}

func (s noteSigner) Sign(msg []byte) ([]byte, error) { return s.signer.Sign(msg) }

func headVerifier(origin string, key ed25519.PublicKey) (note.Verifier, error) {
	vkey, err := note.NewEd25519VerifierKey(origin, key)
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "the key of a tree head: %w", err)
	}
	v, err := note.NewVerifier(vkey)
	return v, fcp.Wrap(fcp.CodeInternal, err, "the key of a tree head")
}

// maxNote bounds a signed tree head: origin, two numbers and one signature.
const maxNote = 1024

// OpenHead verifies a signed tree head of a feed against the key that must have
// signed it. It accepts exactly the bytes that TreeHead makes.
func OpenHead(feed fcp.FeedID, signed []byte, key ed25519.PublicKey) (SignedHead, error) {
	bad := fcp.Errorf(fcp.CodeSignature, "the tree head of feed %s", feed.String()[:16])
	if len(signed) > maxNote || len(key) != ed25519.PublicKeySize {
		return SignedHead{}, bad
	}
	s := SignedHead{Origin: headOrigin(feed), Note: signed}
	v, err := headVerifier(s.Origin, key)
	if err != nil {
		return SignedHead{}, err
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil || len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 0 {
		return SignedHead{}, bad
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 {
		return SignedHead{}, bad
	}
	if _, err := fmt.Sscanf(lines[1], "%d", &s.Size); err != nil {
		return SignedHead{}, bad
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != fcp.HashSize {
		return SignedHead{}, bad
	}
	s.Root = fcp.Hash(root)
	// The note's base64 has spare bits: only the one canonical form is taken.
	sig, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	whole := fmt.Sprintf("%s\n\u2014 %s %s\n", s.text(), s.Origin, base64.StdEncoding.EncodeToString(sig))
	if err != nil || s.Size == 0 || whole != string(signed) {
		return SignedHead{}, bad
	}
	return s, nil
}

// proofFormat names the version of the bundle.
const proofFormat = "fcp-proof/1"

// Proof is everything somebody needs to check, with no store and no network,
// that a writer's feed holds an event: a bundle of one JSON object.
type Proof struct {
	Format string   `json:"format"`
	Event  []byte   `json:"event"`  // canonical encoding, with the previous event's hash
	Leaf   []byte   `json:"leaf"`   // the Merkle leaf data that follow from it
	Index  uint64   `json:"index"`  // of the leaf: sequence number - 1
	Size   uint64   `json:"size"`   // leaves of the tree
	Hashes [][]byte `json:"hashes"` // the audit path, from the leaf up
	Head   string   `json:"head"`   // the signed tree head
	Key    []byte   `json:"key"`    // the Ed25519 key that signed it
}

// maxBundle bounds a bundle: its event with all it may hold, in base64.
const maxBundle = 2*fcp.MaxBody + 1<<20

// Bundle makes a self-contained proof of one event against the durable head,
// signed by this node.
func (l *Log) Bundle(no FeedNo, seq uint64) ([]byte, error) {
	head, err := l.TreeHead(no)
	if err != nil {
		return nil, err
	}
	in, err := l.Prove(no, seq, head.Size)
	if err != nil {
		return nil, err
	}
	if in.Root != head.Root {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "the stored nodes of feed %d do not give its root", no)
	}
	e, hash, err := l.ReadFull(no, seq)
	if err != nil {
		return nil, err
	}
	if hash != in.Leaf {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "event %d of feed %d is not the leaf of its tree", seq, no)
	}
	p := Proof{Format: proofFormat, Event: e.AppendTo(nil), Leaf: leafOf(&e), Index: seq - 1, Size: head.Size,
		Hashes: make([][]byte, len(in.Hashes)), Head: string(head.Note), Key: l.opts.Signer.Public()}
	for i := range in.Hashes {
		p.Hashes[i] = in.Hashes[i][:]
	}
	b, err := p.encode()
	if err != nil {
		return nil, err
	}
	return b, CheckProof(b, l.opts.Signer.Public())
}

func leafOf(e *fcp.Event) []byte {
	content := e.Content.AppendTo(nil)
	return fcp.AppendLeaf(nil, fcp.ScopeHash(e.Feed.ID(), e.Under), e.Seq, e.Time, e.Prev, fcp.ContentHash(content))
}

func (p *Proof) encode() ([]byte, error) {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "encoding a proof")
	}
	return append(b, '\n'), nil
}

// CheckProof verifies a bundle offline: event, leaf, path and signed head fit
// together, and the head is signed by the event's own writer or by one of the
// trusted keys. It refuses any other bytes than those Bundle makes.
func CheckProof(bundle []byte, trusted ...ed25519.PublicKey) error {
	_, err := OpenProof(bundle, trusted...)
	return err
}

// OpenProof is CheckProof that also returns the proven event.
func OpenProof(bundle []byte, trusted ...ed25519.PublicKey) (fcp.Event, error) {
	none := fcp.Event{}
	if len(bundle) > maxBundle {
		return none, fcp.Errorf(fcp.CodeTooLarge, "a proof of %d bytes", len(bundle))
	}
	var p Proof
	if err := json.Unmarshal(bundle, &p); err != nil {
		return none, fcp.Errorf(fcp.CodeMalformed, "the proof is not JSON of the expected shape")
	}
	if p.Format != proofFormat {
		return none, fcp.Errorf(fcp.CodeVersion, "proof format %.32q, this build knows %q", p.Format, proofFormat)
	}
	if again, err := p.encode(); err != nil || !bytes.Equal(again, bundle) {
		return none, fcp.Errorf(fcp.CodeNonCanonical, "the proof is not in its one canonical form")
	}
	e, err := fcp.DecodeEvent(p.Event)
	if err != nil {
		return none, err
	}
	if !e.Feed.Plane.Chained() || !bytes.Equal(p.Leaf, leafOf(&e)) || p.Index != e.Seq-1 {
		return none, fcp.Errorf(fcp.CodeChecksum, "the proof's leaf is not that of its event")
	}
	if err := p.checkKey(e.Feed.Writer, trusted); err != nil {
		return none, err
	}
	id := e.Feed.ID()
	head, err := OpenHead(id, []byte(p.Head), p.Key)
	if err != nil {
		return none, err
	}
	if head.Size != p.Size {
		return none, fcp.Errorf(fcp.CodeChecksum, "the proof is for %d leaves, its head has %d", p.Size, head.Size)
	}
	in := Inclusion{Feed: id, Seq: e.Seq, Size: p.Size, Leaf: e.Hash(), Root: head.Root}
	for _, h := range p.Hashes {
		if len(h) != fcp.HashSize || len(in.Hashes) >= maxProof {
			return none, fcp.Errorf(fcp.CodeMalformed, "the proof's audit path")
		}
		in.Hashes = append(in.Hashes, fcp.Hash(h))
	}
	return e, in.Check()
}

// checkKey accepts the writer's own key and the trusted ones.
func (p *Proof) checkKey(writer fcp.WriterID, trusted []ed25519.PublicKey) error {
	if len(p.Key) == ed25519.PublicKeySize {
		if fcp.WriterOf(p.Key) == writer {
			return nil
		}
		for _, k := range trusted {
			if bytes.Equal(k, p.Key) {
				return nil
			}
		}
	}
	return fcp.Errorf(fcp.CodeSignature, "the proof's tree head is signed by neither the event's writer nor a trusted key")
}

// hashReader is a tlog.HashReader over one feed at one moment.
type hashReader struct {
	l    *Log
	no   FeedNo
	feed fcp.FeedID
	size uint64 // durable leaves when it was made
	top  fcp.Hash
}

var _ tlog.HashReader = (*hashReader)(nil)

func (l *Log) hashReader(no FeedNo, size uint64) (*hashReader, uint64, error) {
	h, ok := l.Head(no)
	if !ok {
		return nil, 0, fcp.Errorf(fcp.CodeNotFound, "feed %d", no)
	}
	if !h.Feed.Plane.Chained() {
		return nil, 0, fcp.Errorf(fcp.CodeWrongPlane, "the local plane has no tree")
	}
	if size == 0 {
		size = h.Seq
	}
	if size == 0 || size > h.Seq {
		return nil, 0, fcp.Errorf(fcp.CodeNotFound, "a tree of %d leaves; feed %d has %d", size, no, h.Seq)
	}
	return &hashReader{l: l, no: no, feed: h.ID, size: h.Seq, top: h.Root}, size, nil
}

// root returns the tree hash over the first size leaves.
func (r *hashReader) root(size uint64) (fcp.Hash, error) {
	h, err := tlog.TreeHash(int64(size), r)
	if err != nil {
		return fcp.Hash{}, proofError(err)
	}
	if size == r.size && fcp.Hash(h) != r.top {
		return fcp.Hash{}, fcp.Errorf(fcp.CodeCorrupt, "the stored nodes of feed %d do not give its root", r.no)
	}
	return fcp.Hash(h), nil
}

// ReadHashes implements tlog.HashReader.
func (r *hashReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		h, err := r.node(uint8(level), uint64(n))
		if err != nil {
			return nil, err
		}
		out[i] = tlog.Hash(h)
	}
	return out, nil
}

// node returns the root of the complete subtree of 2^level leaves with that
// index.
func (r *hashReader) node(level uint8, index uint64) (fcp.Hash, error) {
	if (index+1)<<level > r.size {
		return fcp.Hash{}, fcp.Errorf(fcp.CodeInternal, "node %d/%d of a tree of %d leaves was asked for", level, index, r.size)
	}
	base := uint8(0)
	for _, s := range nodeLevels {
		if s <= level {
			base = s
		}
	}
	first, count := index<<(level-base), uint64(1)<<(level-base)
	var hashes []fcp.Hash
	var err error
	if base == 0 {
		hashes, err = r.leaves(first, count)
	} else {
		hashes, err = r.l.storedNodes(r.no, base, first, count)
	}
	if err != nil {
		return fcp.Hash{}, err
	}
	return foldNodes(hashes), nil
}

// foldNodes returns the root over a power of two of nodes. It works in place.
func foldNodes(h []fcp.Hash) fcp.Hash {
	for len(h) > 1 {
		for i := range len(h) / 2 {
			h[i] = fcp.NodeHash(h[2*i], h[2*i+1])
		}
		h = h[:len(h)/2]
	}
	return h[0]
}

// storedNodes returns neighbouring nodes of a stored height.
func (l *Log) storedNodes(no FeedNo, level uint8, first, count uint64) ([]fcp.Hash, error) {
	l.mu.Lock() // before the store is read: what is taken off this list is there
	var unstored []treeNode
	if f := l.feedLocked(no); f != nil {
		unstored = slices.Clone(f.unstored)
	}
	l.mu.Unlock()
	it, err := l.iter(keyOfNode(no, level, first), keyOfNode(no, level, first+count))
	if err != nil {
		return nil, err
	}
	out, err := readNodes(it, no, level, first, count)
	if err := readError(errors.Join(err, it.Close())); err != nil {
		return nil, err
	}
	for _, n := range unstored { // each height in order
		if n.level == level && n.index == first+uint64(len(out)) && uint64(len(out)) < count {
			out = append(out, n.hash)
		}
	}
	if uint64(len(out)) != count {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "feed %d lacks the tree node %d/%d", no, level, first+uint64(len(out)))
	}
	return out, nil
}

// readNodes reads those of the nodes that are stored, up to the first that is not.
func readNodes(it *iterator, no FeedNo, level uint8, first, count uint64) ([]fcp.Hash, error) {
	out := make([]fcp.Hash, 0, count)
	for ok := it.First(); ok; ok = it.Next() {
		want := keyOfNode(no, level, first+uint64(len(out)))
		if !bytes.Equal(it.Key(), want) || len(it.Value()) != fcp.HashSize {
			break
		}
		out = append(out, fcp.Hash(it.Value()))
	}
	return out, it.Error()
}

// leafRun is the number of leaves under one node of the lowest stored height.
const leafRun = 1 << 8

// leaves returns neighbouring event hashes of one aligned run. The caller may
// change the result.
func (r *hashReader) leaves(first, count uint64) ([]fcp.Hash, error) {
	run := first / leafRun
	off := first % leafRun
	if h := r.l.leaves.get(r.no, run); off+count <= uint64(len(h)) {
		return append([]fcp.Hash(nil), h[off:off+count]...), nil
	}
	from := run*leafRun + 1
	to := min(from+leafRun-1, r.size)
	h := make([]fcp.Hash, 0, to-from+1)
	err := r.l.ScanFeed(context.Background(), r.no, from, to, VerifyChain, func(events []Applied) error {
		for i := range events {
			if events[i].Seq != from+uint64(len(h)) {
				return fcp.Errorf(fcp.CodeCorrupt, "feed %d: event %d stands where %d belongs", r.no, events[i].Seq, from+uint64(len(h)))
			}
			h = append(h, events[i].Hash)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if off+count > uint64(len(h)) {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "feed %d ends at event %d", r.no, from+uint64(len(h))-1)
	}
	r.l.leaves.put(r.no, run, h)
	return append([]fcp.Hash(nil), h[off:off+count]...), nil
}

// leafCache keeps the event hashes of a few aligned runs, for proofs. The zero
// value is ready.
type leafCache struct {
	mu   sync.Mutex
	runs []leafRunEntry // most recent last; guarded by mu
}

type leafRunEntry struct {
	no     FeedNo
	run    uint64
	hashes []fcp.Hash // never changed
}

// maxLeafRuns bounds the cache to 256 KiB.
const maxLeafRuns = 32

func (c *leafCache) get(no FeedNo, run uint64) []fcp.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.runs {
		if e.no == no && e.run == run {
			copy(c.runs[i:], c.runs[i+1:])
			c.runs[len(c.runs)-1] = e
			return e.hashes
		}
	}
	return nil
}

func (c *leafCache) put(no FeedNo, run uint64, hashes []fcp.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.runs {
		if e.no == no && e.run == run {
			c.runs[i].hashes = hashes
			return
		}
	}
	if len(c.runs) == maxLeafRuns {
		c.runs = append(c.runs[:0], c.runs[1:]...)
	}
	c.runs = append(c.runs, leafRunEntry{no, run, hashes})
}

func toTlog(in []fcp.Hash) []tlog.Hash {
	out := make([]tlog.Hash, len(in))
	for i := range in {
		out[i] = tlog.Hash(in[i])
	}
	return out
}

func fromTlog(in []tlog.Hash) []fcp.Hash {
	out := make([]fcp.Hash, len(in))
	for i := range in {
		out[i] = fcp.Hash(in[i])
	}
	return out
}

// proofError classifies what tlog reports: with a sound store it never fails.
func proofError(err error) error {
	return fcp.Wrap(fcp.CodeCorrupt, err, "proving")
}
