package engine

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"fcp"
	"fcp/engine/symbols"
	"fcp/log"
)

// Shares that this node holds for the mesh are files in the store directory, each
// with the minter's signed manifest beside it (docs/format.md "Store directory").
const (
	dirShares   = "shares"
	shareSuffix = ".sym"
	mintSuffix  = ".mint"
	saltSuffix  = ".salts"
)

// HeldShare is a share that this node holds.
type HeldShare struct {
	symbols.Ref
	Card   fcp.Card
	Minter fcp.WriterID // who signed for it
}

// CheckMinted decodes a manifest that is to vouch for one share: of this store,
// by a member, about one segment. It returns the share's root.
func (e *Engine) CheckMinted(manifest []byte, first, count uint32) (h HeldShare, root fcp.Hash, err error) {
	a, err := symbols.DecodeManifest(manifest)
	if err != nil {
		return h, root, err
	}
	bad := func(what string) error { return fcp.Errorf(fcp.CodeManifest, "the manifest of a share: %s", what) }
	if a.Genesis != e.genesis.ID {
		return h, root, bad("of another store")
	}
	if len(a.Cards) != 1 {
		return h, root, bad("several segments")
	}
	h.Minter = fcp.WriterOf(a.Minter[:])
	if err := e.checkMember(h.Minter); err != nil {
		return h, root, err
	}
	h.Card = a.Cards[0]
	info, err := h.Card.Transmission()
	if err != nil {
		return h, root, err
	}
	h.Ref = symbols.Ref{Segment: h.Card.Segment, Size: uint32(info.F), First: first, Count: count}
	for _, r := range a.Segments[0].Ranges {
		if uint32(r.First) == first && uint32(r.Count) == count {
			return h, r.Root, nil
		}
	}
	return h, root, bad("it does not list the share")
}

// memberCache are the members as of a position: signatures are not verified again
// while the state stands still.
type memberCache struct {
	mu       sync.Mutex
	position uint64                // guarded by mu
	known    map[fcp.WriterID]bool // guarded by mu
}

// checkMember fails unless a writer was enrolled. A node that was revoked since
// made its symbols all the same.
func (e *Engine) checkMember(w fcp.WriterID) error {
	c := &e.mesh.members
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := e.Position(); c.known == nil || c.position != at && !c.known[w] {
		members, err := e.Members()
		if err != nil {
			return err
		}
		c.position, c.known = at, map[fcp.WriterID]bool{}
		for _, m := range members {
			c.known[m.Writer] = true
		}
	}
	if !c.known[w] {
		return fcp.Errorf(fcp.CodeUnauthorized, "the minter of a share is no member")
	}
	return nil
}

// KeepShare takes a share in for good. Every symbol in it is checked against the
// root that its minter signed. Errors: those of CheckMinted, CodeChecksum,
// CodeDiskFull, CodeDisk.
func (e *Engine) KeepShare(manifest, file []byte, first, count uint32) (HeldShare, error) {
	h, root, err := e.CheckMinted(manifest, first, count)
	if err != nil {
		return h, err
	}
	if int64(len(file)) != h.FileSize() {
		return h, fcp.Errorf(fcp.CodeChecksum, "a share of %d bytes, not %d", len(file), h.FileSize())
	}
	s, err := symbols.ParseShare(h.Ref, file)
	if err != nil {
		return h, err
	}
	if got, ok := s.Recommit(); !ok || got != root || !s.HeadOK {
		return h, fcp.Errorf(fcp.CodeChecksum, "the share %s does not hold what its minter signed", h.FileName())
	}
	dir := e.env.FS.PathJoin(e.dir, dirShares)
	if err := makeDir(e.env.FS, dir); err != nil {
		return h, fcp.Wrap(fcp.CodeDisk, err, "make the directory of shares")
	}
	if err := writeFile(e.env.FS, dir, h.FileName()+mintSuffix, manifest); err != nil {
		return h, err
	}
	return h, writeFile(e.env.FS, dir, h.FileName(), file)
}

// Shares calls fn for every share held, in the order of their names.
func (e *Engine) Shares(fn func(HeldShare) error) error {
	names, err := e.env.FS.List(e.env.FS.PathJoin(e.dir, dirShares))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "list the shares")
	}
	slices.Sort(names)
	for _, name := range names {
		if !strings.HasSuffix(name, shareSuffix) {
			continue
		}
		_, first, count, err := symbols.ParseFileName(name)
		if err != nil {
			continue // not ours
		}
		manifest, err := e.readShareFile(name+mintSuffix, symbols.MaxManifest)
		if err != nil {
			return err
		}
		h, _, err := e.CheckMinted(manifest, first, count)
		if err != nil {
			e.env.Logger.Warn("a share is not counted", "file", name, "err", err)
			continue
		}
		if err := fn(h); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) readShareFile(name string, limit int) ([]byte, error) {
	b, err := readFile(e.env.FS, e.env.FS.PathJoin(e.dir, dirShares, name), limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fcp.Errorf(fcp.CodeNotFound, "%s", name)
	}
	return b, fcp.Wrap(fcp.CodeDisk, err, "read %s", name)
}

// ReadShare returns a share that is held, and the manifest that vouches for it.
// What in it fits its commitments is for the caller to look at.
func (e *Engine) ReadShare(r symbols.Ref) (file, manifest []byte, err error) {
	if file, err = e.readShareFile(r.FileName(), int(r.FileSize())); err != nil {
		return nil, nil, err
	}
	manifest, err = e.readShareFile(r.FileName()+mintSuffix, symbols.MaxManifest)
	return file, manifest, err
}

// DropShare forgets a share.
func (e *Engine) DropShare(r symbols.Ref) error {
	dir := e.env.FS.PathJoin(e.dir, dirShares)
	err := e.env.FS.Remove(e.env.FS.PathJoin(dir, r.FileName()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fcp.Wrap(fcp.CodeDisk, errors.Join(err, e.env.FS.Remove(e.env.FS.PathJoin(dir, r.FileName()+mintSuffix)), syncDir(e.env.FS, dir)), "drop a share")
}

// Minting is a segment whose symbols this node can make. It is for one goroutine.
type Minting struct {
	e     *Engine
	block *symbols.Block
	card  []byte
	Ref   symbols.Ref // First and Count mean nothing
}

// Mint prepares a sealed segment of this store, or one that was rebuilt, to make
// symbols of.
func (e *Engine) Mint(ctx context.Context, coder *symbols.Coder, card, ciphertext []byte) (*Minting, error) {
	c, err := log.CheckCiphertext(card, ciphertext)
	if err != nil {
		return nil, err
	}
	b, err := coder.Block(ctx, c.Segment, ciphertext)
	if err != nil {
		return nil, err
	}
	return &Minting{e, b, card, symbols.Ref{Segment: c.Segment, Size: uint32(len(ciphertext))}}, nil
}

// Share makes one share and a manifest that vouches for it.
func (m *Minting) Share(ctx context.Context, first, count uint32, need int) (file, manifest []byte, err error) {
	file, root, err := m.block.Share(ctx, first, count)
	if err != nil {
		return nil, nil, err
	}
	doc := symbols.Manifest{Format: symbols.ManifestFormat, Genesis: m.e.genesis.ID, Minter: m.e.node.Public().Signing,
		Created: uint64(max(m.e.env.Now().Unix(), 0)), Need: uint64(need),
		Segments: []symbols.Minted{{Card: m.card, Ranges: []symbols.Range{{First: uint64(first), Count: uint64(count), Root: root}}}}}
	manifest, err = doc.Sign(m.e.node.Sign)
	return file, manifest, err
}

// KeepSalts keeps the body salts of a segment whose events are not in this log:
// log.SaltSize bytes for each event. They are useless without the zone's keys.
func (e *Engine) KeepSalts(segment fcp.SegmentID, salts []byte) error {
	if len(salts) == 0 || len(salts)%log.SaltSize != 0 {
		return fcp.Errorf(fcp.CodeInvalidArgument, "salts of %d bytes", len(salts))
	}
	dir := e.env.FS.PathJoin(e.dir, dirShares)
	if err := makeDir(e.env.FS, dir); err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "make the directory of shares")
	}
	return writeFile(e.env.FS, dir, segment.String()+saltSuffix, salts)
}

// maxSaltFile bounds the salts of one segment.
const maxSaltFile = fcp.MaxSegment

// SegmentSalts returns the body salts of a segment: from the key table when its
// events are here, else from KeepSalts. CodeNotFound when this node has none.
func (e *Engine) SegmentSalts(r *log.Remainder) ([]byte, error) {
	no, ok := e.log.FeedNo(r.Feed())
	if ok {
		if head, _ := e.log.Head(no); head.Seq < r.Last {
			ok = false
		}
	}
	if !ok {
		return e.readShareFile(fcp.SegmentID(r.Segment).String()+saltSuffix, maxSaltFile)
	}
	out := make([]byte, 0, int(r.Last-r.First+1)*log.SaltSize)
	for seq := r.First; seq <= r.Last; seq++ {
		s, err := e.log.Salt(no, seq)
		if err != nil {
			return nil, err
		}
		out = append(out, s[:]...)
	}
	return out, nil
}
