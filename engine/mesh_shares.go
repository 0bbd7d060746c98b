package engine

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

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
// made its symbols all the same. This node is one, also while the event of its own
// enrollment is still on its way.
func (e *Engine) checkMember(w fcp.WriterID) error {
	if w == e.log.Writer() {
		return nil
	}
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

// NewShare is a share that came from elsewhere.
type NewShare struct {
	Manifest     []byte // signed by its minter
	File         []byte // KeepShares may change it
	First, Count uint32
	// Checked says that the caller compared every symbol with its commitment, and
	// the commitments with the root that the minter signed.
	Checked bool
}

// KeepShare takes a share in for good. Every symbol in it is checked against the
// root that its minter signed. Errors: those of CheckMinted, CodeChecksum,
// CodeDiskFull, CodeDisk.
func (e *Engine) KeepShare(manifest, file []byte, first, count uint32) (HeldShare, error) {
	held, err := e.KeepShares([]NewShare{{manifest, file, first, count, false}})
	if err != nil {
		return HeldShare{}, err
	}
	return held[0], nil
}

// KeepShares takes shares in for good, all or, after an error, perhaps some. It
// returns when they are on disk; many at once cost fewer syncs. Errors are those of
// KeepShare.
func (e *Engine) KeepShares(shares []NewShare) ([]HeldShare, error) {
	held := make([]HeldShare, len(shares))
	files := make([]namedFile, 0, 2*len(shares))
	for i := range shares {
		x := &shares[i]
		h, err := e.checkShare(x)
		if err != nil {
			return nil, err
		}
		held[i] = h
		files = append(files, namedFile{h.FileName() + mintSuffix, bytes.Clone(x.Manifest)}, namedFile{h.FileName(), x.File})
	}
	dir := e.env.FS.PathJoin(e.dir, dirShares)
	if err := makeDir(e.env.FS, dir); err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "make the directory of shares")
	}
	return held, writeFiles(e.env.FS, dir, files)
}

// checkShare checks a share as far as its caller did not.
func (e *Engine) checkShare(x *NewShare) (HeldShare, error) {
	h, root, err := e.CheckMinted(x.Manifest, x.First, x.Count)
	if err != nil {
		return h, err
	}
	if int64(len(x.File)) != h.FileSize() {
		return h, fcp.Errorf(fcp.CodeChecksum, "a share of %d bytes, not %d", len(x.File), h.FileSize())
	}
	s, err := symbols.ParseShare(h.Ref, x.File)
	if err != nil {
		return h, err
	}
	commit := s.Recommit
	if x.Checked {
		commit = s.Root
	}
	if got, ok := commit(); !ok || got != root || !s.HeadOK {
		return h, fcp.Errorf(fcp.CodeChecksum, "the share %s does not hold what its minter signed", h.FileName())
	}
	return h, nil
}

type namedFile struct {
	name string
	data []byte // a vfs.File may change it
}

// writeFiles makes or replaces files of a directory. Of a file that is there after a
// crash all is there; which are there is not said.
func writeFiles(files vfs.FS, dir string, list []namedFile) error {
	temp := func(name string) string { return files.PathJoin(dir, name+".tmp") }
	errs := make([]error, len(list))
	var syncs sync.WaitGroup
	for i, x := range list {
		f, err := files.Create(temp(x.name), vfs.WriteCategoryUnspecified)
		if err != nil {
			errs[i] = err
			break
		}
		_, err = f.Write(x.data)
		syncs.Go(func() { // syncs at one time share a commit of the file system's journal
			if err == nil {
				err = f.Sync()
			}
			errs[i] = errors.Join(err, f.Close())
		})
	}
	syncs.Wait()
	if err := errors.Join(errs...); err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "write %d files", len(list))
	}
	for _, x := range list {
		if err := files.Rename(temp(x.name), files.PathJoin(dir, x.name)); err != nil {
			return fcp.Wrap(fcp.CodeDisk, err, "write %s", x.name)
		}
	}
	return fcp.Wrap(fcp.CodeDisk, syncDir(files, dir), "write %d files", len(list))
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
		if errors.Is(err, fcp.CodeNotFound) {
			e.env.Logger.Warn("a share without its manifest is not counted", "file", name)
			continue
		}
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
	manifest, err = m.e.mintManifest(m.card, uint64(first), uint64(count), root, need)
	return file, manifest, err
}

// OwnSource completes the file of a share of all source symbols of a segment, whose
// symbols are there, and signs for it. CodeChecksum when they are not the segment.
func (e *Engine) OwnSource(card []byte, r symbols.Ref, file []byte, need int) (NewShare, error) {
	if int64(len(file)) != r.FileSize() {
		return NewShare{}, fcp.Errorf(fcp.CodeInvalidArgument, "a share of %d bytes, not %d", len(file), r.FileSize())
	}
	c, err := log.CheckCiphertext(card, file[r.HeadSize():][:r.Size])
	if err != nil {
		return NewShare{}, err
	}
	root, err := r.FillSource(file)
	if err == nil && root != c.Source {
		err = fcp.Errorf(fcp.CodeChecksum, "the source symbols of segment %s are not those of its card", c.Segment)
	}
	if err != nil {
		return NewShare{}, err
	}
	manifest, err := e.mintManifest(card, uint64(r.First), uint64(r.Count), root, need)
	return NewShare{Manifest: manifest, File: file, First: r.First, Count: r.Count, Checked: true}, err
}

// mintManifest signs for one share.
func (e *Engine) mintManifest(card []byte, first, count uint64, root fcp.Hash, need int) ([]byte, error) {
	doc := symbols.Manifest{Format: symbols.ManifestFormat, Genesis: e.genesis.ID, Minter: e.node.Public().Signing,
		Created: uint64(max(e.env.Now().Unix(), 0)), Need: uint64(need),
		Segments: []symbols.Minted{{Card: card, Ranges: []symbols.Range{{First: first, Count: count, Root: root}}}}}
	return doc.Sign(e.node.Sign)
}

// KeepSalts keeps the body salts of a segment whose events are not in this log:
// log.SaltSize bytes for each event. They are useless without the zone's keys. Those of
// what the owner ordered to be forgotten are destroyed first, in salts too.
func (e *Engine) KeepSalts(r *log.Remainder, salts []byte) error {
	if len(salts) == 0 || len(salts)%log.SaltSize != 0 {
		return fcp.Errorf(fcp.CodeInvalidArgument, "salts of %d bytes", len(salts))
	}
	dir := e.env.FS.PathJoin(e.dir, dirShares)
	if err := makeDir(e.env.FS, dir); err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "make the directory of shares")
	}
	// Two messages may bring the same at once, and a file that is replaced has one
	// temporary name.
	e.mesh.salts <- struct{}{}
	defer func() { <-e.mesh.salts }()
	for {
		known := e.forgotten.Load()
		e.forgets().mask(r, salts)
		err := writeFile(e.env.FS, dir, fcp.SegmentID(r.Segment).String()+saltSuffix, salts)
		if err != nil || e.forgotten.Load() == known {
			return err
		}
	}
}

// maxSaltFile bounds the salts of one segment.
const maxSaltFile = fcp.MaxSegment

// SegmentSalts returns the body salts of a segment: from the key table when its
// events are here, else from KeepSalts. CodeNotFound when this node has none. Those of
// what the owner ordered to be forgotten are not among them.
func (e *Engine) SegmentSalts(r *log.Remainder) ([]byte, error) {
	salts, err := e.segmentSalts(r)
	e.forgets().mask(r, salts)
	return salts, err
}

func (e *Engine) segmentSalts(r *log.Remainder) ([]byte, error) {
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
