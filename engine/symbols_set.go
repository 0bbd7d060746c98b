package engine

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"fcp"
	"fcp/authority"
	"fcp/coding"
	"fcp/engine/symbols"
)

// shareSet is several share directories, looked at together: what one lacks or has
// damaged another may have.
type shareSet struct {
	ctx  context.Context
	env  Environment
	dirs []*shareDir

	raw     []byte // genesis
	genesis *authority.GenesisFacts
	m       *backupManifest // newest, or the one asked for; nil: none
	mBytes  []byte
	hash    fcp.Hash
	chain   map[uint64][]byte // the manifests before it, by number
	index   []indexed

	coder  *symbols.Coder
	ranges map[fcp.SegmentID][]allotted // what was minted, by whoever
	cards  map[[16]byte][]byte          // by cardSum
	shares map[string][]byte            // share manifests by name
	carry  map[[16]byte][]string        // the share manifests that have a card

	mu       sync.Mutex
	findings []SymbolFinding // guarded by mu
}

// allotted is one range of symbols that somebody signed for.
type allotted struct {
	first, count uint32
	root         fcp.Hash
	minter       [ed25519.PublicKeySize]byte
	vouched      bool
	need         int
}

func (s *shareSet) find(f SymbolFinding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.findings = append(s.findings, f)
}

// found records a failure to read one file; what keeps everything from going on
// is returned.
func (s *shareSet) found(d *shareDir, file string, err error) error {
	switch c := fcp.CodeOf(err); c {
	case 0:
		return nil
	case fcp.CodeInterrupted, fcp.CodeTimeout, fcp.CodeInternal:
		return err
	default:
		s.find(SymbolFinding{Code: c, Dir: d.path, File: file, What: err.Error()})
	}
	return nil
}

// sorted returns the findings in an order that does not depend on goroutines.
func (s *shareSet) sorted() []SymbolFinding {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortStableFunc(s.findings, func(a, b SymbolFinding) int {
		return cmp.Or(strings.Compare(a.Dir, b.Dir), strings.Compare(a.File, b.File), strings.Compare(a.What, b.What))
	})
	return slices.CompactFunc(s.findings, func(a, b SymbolFinding) bool { return a == b })
}

// checkDirs refuses the same directory twice.
func checkDirs(dirs []string) error {
	if len(dirs) == 0 || len(dirs) > symbols.MaxPlaces {
		return fcp.Errorf(fcp.CodeInvalidArgument, "%d directories; 1 to %d can be used", len(dirs), symbols.MaxPlaces)
	}
	seen := map[string]bool{}
	for _, d := range dirs {
		abs, err := filepath.Abs(d)
		if err != nil {
			return fcp.Errorf(fcp.CodeInvalidArgument, "directory %q: %w", d, err)
		}
		if d == "" || seen[abs] {
			return fcp.Errorf(fcp.CodeInvalidArgument, "directory %q is named twice", d).WithNext("name each directory once")
		}
		seen[abs] = true
	}
	return nil
}

// scanSet lists the directories and finds out whose they are.
func scanSet(ctx context.Context, env Environment, paths []string) (*shareSet, error) {
	if err := checkDirs(paths); err != nil {
		return nil, err
	}
	s := &shareSet{ctx: ctx, env: env, coder: &symbols.Coder{}, chain: map[uint64][]byte{},
		ranges: map[fcp.SegmentID][]allotted{}, cards: map[[16]byte][]byte{}, shares: map[string][]byte{}, carry: map[[16]byte][]string{}}
	for _, p := range paths {
		d := newShareDir(env.FS, p)
		if err := d.scan(ctx); err != nil {
			return nil, err
		}
		s.dirs = append(s.dirs, d)
	}
	return s, s.findStore()
}

// findStore reads the genesis checkpoints. The store of most directories is the
// one that is meant; directories of others are left out and named.
func (s *shareSet) findStore() error {
	votes := map[fcp.Hash]int{}
	of := map[*shareDir]fcp.Hash{}
	facts := map[fcp.Hash]*authority.GenesisFacts{}
	raws := map[fcp.Hash][]byte{}
	for _, d := range s.dirs {
		if _, ok := d.small[backupGenesis]; !ok {
			continue
		}
		b, err := d.read(s.ctx, backupGenesis, authority.MaxSignedObject)
		var g *authority.GenesisFacts
		if err == nil {
			g, err = authority.VerifyGenesis(b)
		}
		if err != nil {
			if err := s.found(d, backupGenesis, err); err != nil {
				return err
			}
			continue
		}
		votes[g.ID]++
		of[d], facts[g.ID], raws[g.ID] = g.ID, g, b
	}
	var best fcp.Hash
	tie := false
	for id, n := range votes {
		switch {
		case n > votes[best]:
			best, tie = id, false
		case n == votes[best] && id != best:
			tie = true
		}
	}
	if tie {
		return fcp.Errorf(fcp.CodeGuess, "the directories hold %d stores, none of them in most", len(votes)).WithNext("name the directories of one store only")
	}
	s.genesis, s.raw = facts[best], raws[best]
	for _, d := range s.dirs {
		if id, ok := of[d]; ok && id != best {
			d.foreign = true
			d.small, d.shares, d.whole = map[string]int64{}, map[fcp.SegmentID][]heldShare{}, map[fcp.SegmentID]int64{}
			s.find(SymbolFinding{Code: fcp.CodeManifest, Dir: d.path, What: "the directory holds another store"})
		}
	}
	return nil
}

// load reads what the directories say about themselves. want, unless zero, is the
// backup manifest that is meant.
func (s *shareSet) load(want fcp.Hash) error {
	for _, d := range s.dirs {
		switch {
		case !d.there:
			s.find(SymbolFinding{Code: fcp.CodeNotFound, Dir: d.path, What: "there is no such directory"})
		case d.empty:
			s.find(SymbolFinding{Code: fcp.CodeNotFound, Dir: d.path, What: "the directory is empty"})
		}
		s.mu.Lock()
		s.findings = append(s.findings, d.odd...)
		s.mu.Unlock()
	}
	if s.genesis == nil {
		return fcp.Errorf(fcp.CodeNotFound, "no directory has a genesis checkpoint").WithNext("name directories that `fcpctl segment scatter` wrote to")
	}
	if err := s.findManifest(want); err != nil {
		return err
	}
	if s.m == nil {
		return fcp.Errorf(fcp.CodeNotFound, "no directory has a backup manifest that verifies").WithNext("name more directories that `fcpctl segment scatter` wrote to")
	}
	if err := s.findChain(); err != nil {
		return err
	}
	b, err := s.small(indexName(s.m.Index.Hash), s.m.Index.Hash, s.m.Index.Size)
	if err != nil {
		return err
	}
	if s.index, err = decodeIndex(b); err != nil {
		return err
	}
	var total uint64
	for i := range s.index {
		total += uint64(s.index[i].size)
	}
	if uint64(len(s.index)) != s.m.Segments || total != s.m.Bytes {
		return fcp.Errorf(fcp.CodeManifest, "the index does not have the segments that manifest %d counts", s.m.Seq)
	}
	return s.loadShares(s.dirs)
}

// findManifest finds the newest backup manifest that verifies.
func (s *shareSet) findManifest(want fcp.Hash) error {
	for _, d := range s.dirs {
		var seqs []uint64
		for n := range d.small {
			if q, ok := manifestSeq(n); ok {
				seqs = append(seqs, q)
			}
		}
		slices.Sort(seqs)
		for i := len(seqs) - 1; i >= 0; i-- {
			m, b, err := s.readManifest(d, seqs[i])
			if err == nil && !want.IsZero() && fileHash(b) != want {
				continue
			}
			if err == nil {
				d.newest, d.head = m.Seq, fileHash(b)
				if s.m == nil || m.Seq > s.m.Seq || m.Seq == s.m.Seq && m.Created > s.m.Created {
					s.m, s.mBytes, s.hash = m, b, fileHash(b)
				}
				break
			}
			if err := s.found(d, manifestName(seqs[i]), err); err != nil {
				return err
			}
		}
	}
	for _, d := range s.dirs {
		if s.m != nil && d.newest > 0 && d.newest < s.m.Seq {
			s.find(SymbolFinding{Code: fcp.CodeManifest, Dir: d.path,
				What: fmt.Sprintf("the directory holds backup %d, the newest is %d: scatter to it again", d.newest, s.m.Seq)})
		}
	}
	return nil
}

func (s *shareSet) readManifest(d *shareDir, seq uint64) (*backupManifest, []byte, error) {
	b, err := d.read(s.ctx, manifestName(seq), maxBackupManifest)
	if err != nil {
		return nil, nil, err
	}
	m, err := decodeBackupManifest(b)
	if err != nil {
		return nil, nil, err
	}
	if m.Seq != seq {
		return nil, nil, fcp.Errorf(fcp.CodeManifest, "%s holds manifest %d", manifestName(seq), m.Seq)
	}
	if m.Store != Format {
		return nil, nil, fcp.Errorf(fcp.CodeVersion, "the backup is of a store of format %d, this build knows %d", m.Store, Format)
	}
	return m, b, m.authorised(s.genesis)
}

// findChain reads the manifests before the newest, each by the hash in the next.
func (s *shareSet) findChain() error {
	s.chain[s.m.Seq] = s.mBytes
	previous := s.m.Previous
	for seq := s.m.Seq - 1; seq > 0; seq-- {
		b, err := s.small(manifestName(seq), fcp.Hash(previous), 0)
		if err == nil {
			var m *backupManifest
			if m, err = decodeBackupManifest(b); err == nil {
				s.chain[seq], previous = b, m.Previous
				continue
			}
		}
		if err := s.found(s.dirs[0], manifestName(seq), err); err != nil {
			return err
		}
		return nil // a restore does not need those before
	}
	return nil
}

// small reads a small file that has a known hash, from the first directory that
// has it undamaged. size 0: not known.
func (s *shareSet) small(name string, hash fcp.Hash, size uint64) ([]byte, error) {
	d, b, err := s.smallFrom(name, hash, size)
	if err == nil && d == nil {
		err = fcp.Errorf(fcp.CodeNotEnough, "no directory has an undamaged %s", name)
	}
	return b, err
}

func (s *shareSet) smallFrom(name string, hash fcp.Hash, size uint64) (*shareDir, []byte, error) {
	for _, d := range s.dirs {
		have, ok := d.small[name]
		if !ok {
			continue
		}
		limit := int64(size)
		if size == 0 {
			limit = min(have, maxBackupManifest)
		}
		b, err := d.read(s.ctx, name, limit)
		if err == nil && fileHash(b) != hash {
			err = fcp.Errorf(fcp.CodeChecksum, "%s", name)
		}
		if err == nil {
			return d, b, nil
		}
		if err := s.found(d, name, err); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, nil
}

// loadShares reads every share manifest once. Those of unknown minters count too:
// what they allotted is allotted.
func (s *shareSet) loadShares(dirs []*shareDir) error {
	total := int64(0)
	for _, d := range dirs {
		names := make([]string, 0, 8)
		for n := range d.small {
			if strings.HasPrefix(n, sharePrefix) && s.shares[n] == nil {
				names = append(names, n)
			}
		}
		slices.Sort(names)
		for _, n := range names {
			if total += min(d.small[n], symbols.MaxManifest); total > maxDirManifests {
				s.find(SymbolFinding{Code: fcp.CodeTooLarge, Dir: d.path, File: n, What: "too many bytes of share manifests; it is not read"})
				break
			}
			b, err := d.read(s.ctx, n, symbols.MaxManifest)
			if err == nil && shareManifestName(fileHash(b)) != n {
				err = fcp.Errorf(fcp.CodeChecksum, "%s", n)
			}
			if err == nil {
				err = s.takeShares(n, b)
			}
			if err := s.found(d, n, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeShares decodes a share manifest and files what it says.
func (s *shareSet) takeShares(name string, b []byte) error {
	m, err := symbols.DecodeManifest(b)
	if err != nil {
		return err
	}
	if m.Genesis != s.genesis.ID {
		return fcp.Errorf(fcp.CodeManifest, "a share manifest of another store")
	}
	vouched := vouchedFor(s.genesis, m.Minter, m.Device)
	s.shares[name] = b
	for i := range m.Segments {
		id := m.Cards[i].Segment
		sum := cardSum(m.Segments[i].Card)
		s.cards[sum] = m.Segments[i].Card
		s.carry[sum] = append(s.carry[sum], name)
		for _, r := range m.Segments[i].Ranges {
			if !vouched && len(s.ranges[id]) >= symbols.MaxRanges {
				break
			}
			s.ranges[id] = append(s.ranges[id], allotted{uint32(r.First), uint32(r.Count), r.Root, m.Minter, vouched, int(m.Need)})
		}
	}
	return nil
}

// vouchedFor reports whether the owner enrolled a minter. Whether it was revoked
// since is behind the zone keys; a share of a revoked node is still judged by the
// ciphertext hash.
func vouchedFor(g *authority.GenesisFacts, minter [ed25519.PublicKeySize]byte, device []byte) bool {
	if len(device) == 0 {
		return authority.SigningPublic(minter) == g.Node.Signing
	}
	d, err := authority.OpenDevice(device)
	return err == nil && d.Issuer() == g.Owner && d.Node().Signing == authority.SigningPublic(minter)
}

// card returns the card that the index means, decoded.
func (s *shareSet) card(x *indexed) (b []byte, c fcp.Card, err error) {
	b = s.cards[x.card]
	for _, d := range s.dirs {
		if b != nil {
			break
		}
		name := cardName(x.id)
		if _, ok := d.small[name]; !ok {
			continue
		}
		got, err := d.read(s.ctx, name, fcp.MaxCard)
		if err == nil && cardSum(got) != x.card {
			err = fcp.Errorf(fcp.CodeChecksum, "%s", name)
		}
		if err == nil {
			b = got
		} else if err := s.found(d, name, err); err != nil {
			return nil, c, err
		}
	}
	if b == nil {
		return nil, c, fcp.Errorf(fcp.CodeNotEnough, "no directory has the card of segment %s", x.id)
	}
	if c, err = fcp.DecodeCard(b); err != nil {
		return nil, c, err
	}
	info, err := c.Transmission()
	if err == nil && (c.Segment != x.id || info != fcp.SegmentTransmission(uint64(x.size))) {
		err = fcp.Errorf(fcp.CodeManifest, "the card of segment %s is of other bytes", x.id)
	}
	return b, c, err
}

// nextRange returns where count symbols that nobody was allotted begin: above the
// highest allotted id, or, when a liar claimed the end of the space, in the first
// gap.
func nextRange(ranges []allotted, count uint32) (first uint32, ok bool) {
	taken := slices.Clone(ranges)
	slices.SortFunc(taken, func(a, b allotted) int { return cmp.Compare(a.first, b.first) })
	gap, end := -1, uint32(0)
	for _, r := range taken {
		if gap < 0 && r.first > end && r.first-end >= count {
			gap = int(end)
		}
		end = max(end, r.first+r.count)
	}
	if end <= coding.MaxESI && coding.MaxESI-end >= count {
		return end, true
	}
	return uint32(max(gap, 0)), gap >= 0
}

// smallFiles lists the files of the newest backup that each directory has whole,
// in the order in which a backup is written; manifests come after them. size 0: the
// hash alone says it.
func (s *shareSet) smallFiles() []smallFile {
	out := make([]smallFile, 0, len(s.m.ZoneKeys)+len(s.m.Tail)+2)
	for _, h := range s.m.ZoneKeys {
		out = append(out, smallFile{zoneKeyName(h), h, 0})
	}
	k := &s.m.KeyTable
	out = append(out, smallFile{keyTableName(k.Number), k.Hash, k.Size})
	for i := range s.m.Tail {
		t := &s.m.Tail[i]
		out = append(out, smallFile{tailName(t.Hash), t.Hash, t.Size})
	}
	return append(out, smallFile{indexName(s.m.Index.Hash), s.m.Index.Hash, s.m.Index.Size})
}

type smallFile struct {
	name string
	hash fcp.Hash
	size uint64
}

// chainSeqs are the numbers of the manifests at hand, ascending.
func (s *shareSet) chainSeqs() []uint64 {
	out := make([]uint64, 0, len(s.chain))
	for q := range s.chain {
		out = append(out, q)
	}
	slices.Sort(out)
	return out
}

// syncTo writes what a directory lacks of the small files, the manifests last, and
// removes those that were replaced.
func (s *shareSet) syncTo(d *shareDir) (written uint64, err error) {
	put := func(name string, b []byte) error {
		n, err := d.putBytes(s.ctx, name, b)
		written += uint64(n)
		return err
	}
	if err := put(backupGenesis, s.raw); err != nil {
		return written, err
	}
	keep := map[string]bool{}
	for _, f := range s.smallFiles() {
		keep[f.name] = true
		if s.checkSmall(d, &f) == nil {
			continue
		}
		b, err := s.small(f.name, f.hash, f.size)
		if err != nil {
			return written, err
		}
		if err := put(f.name, b); err != nil {
			return written, err
		}
	}
	for _, q := range s.chainSeqs() {
		if err := put(manifestName(q), s.chain[q]); err != nil {
			return written, err
		}
	}
	for name := range d.small {
		replaced := strings.HasPrefix(name, keyTablePrefix) || strings.HasPrefix(name, tailPrefix) || strings.HasPrefix(name, backupIndexPrefix)
		if replaced && !keep[name] {
			if err := d.remove(s.ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return written, err
			}
		}
	}
	return written, nil
}
