package engine

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/engine/blob"
	"fcp/engine/symbols"
)

// Besides the small files of a backup a share directory has these.
const (
	sharePrefix  = "shares/"  // share manifests, by their hash
	symbolPrefix = "symbols/" // share files, spread by segment id
)

// Bounds of what is read of one directory, whoever filled it.
const (
	maxDirFiles     = 1 << 21
	maxDirManifests = 256 << 20 // bytes of share manifests
	maxShareFiles   = 64        // of one segment in one directory
)

// smallPrefixes are the folders of a backup whose files every share directory has
// whole.
var smallPrefixes = []string{manifestPrefix, backupIndexPrefix, keyTablePrefix, tailPrefix, zoneKeyPrefix}

func shareManifestName(h fcp.Hash) string { return sharePrefix + h.String() + ".share" }

func symbolFileName(r *symbols.Ref) string {
	return symbolPrefix + hex.EncodeToString(r.Segment[:1]) + "/" + r.FileName()
}

// heldShare is a share file by its name.
type heldShare struct {
	first, count uint32
	size         int64
}

// shareDir is a directory of shares, as a listing shows it. Only regular files
// under names that belong there are looked at.
type shareDir struct {
	path  string
	fs    vfs.FS
	files *blob.Files

	there    bool // a listing was possible
	foreign  bool // it holds another store
	empty    bool
	small    map[string]int64 // size by name, share manifests and genesis included
	shares   map[fcp.SegmentID][]heldShare
	whole    map[fcp.SegmentID]int64
	odd      []SymbolFinding
	entries  int
	lock     io.Closer
	newest   uint64   // number of the newest backup manifest in it that verifies
	head     fcp.Hash // its hash
	manifest int64    // bytes of share manifests listed
}

func newShareDir(files vfs.FS, path string) *shareDir {
	return &shareDir{path: path, fs: files, files: blob.NewFiles(files, path), small: map[string]int64{},
		shares: map[fcp.SegmentID][]heldShare{}, whole: map[fcp.SegmentID]int64{}}
}

func (d *shareDir) note(code fcp.Code, file, what string) {
	if len(d.odd) < maxOddFiles {
		d.odd = append(d.odd, SymbolFinding{Code: code, Dir: d.path, File: file, What: what})
	}
}

// maxOddFiles bounds how many useless files of one directory are named.
const maxOddFiles = 1000

// scan lists the folders that a share directory has, none deeper, so that a
// symbolic link leads no further than to what is checked by its content.
func (d *shareDir) scan(ctx context.Context) error {
	names, err := d.fs.List(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		d.empty = true
		return nil
	}
	if err != nil {
		d.note(fcp.CodeDisk, "", "the directory cannot be listed")
		return nil
	}
	d.there = true
	d.empty = true
	for _, n := range names {
		d.empty = d.empty && n == ".tmp"
	}
	d.add("", genesisName(names))
	for _, p := range append([]string{sharePrefix}, smallPrefixes...) {
		if err := d.scanFolder(ctx, p, 0); err != nil {
			return err
		}
	}
	for _, p := range []string{symbolPrefix, segmentPrefix, cardPrefix} {
		if err := d.scanFolder(ctx, p, 1); err != nil {
			return err
		}
	}
	if d.manifest > maxDirManifests {
		d.note(fcp.CodeTooLarge, sharePrefix, "too many bytes of share manifests; none is read")
		for n := range d.small {
			if strings.HasPrefix(n, sharePrefix) {
				delete(d.small, n)
			}
		}
	}
	return nil
}

func genesisName(names []string) []string {
	if slices.Contains(names, backupGenesis) {
		return []string{backupGenesis}
	}
	return nil
}

func (d *shareDir) scanFolder(ctx context.Context, prefix string, deeper int) error {
	if ctx.Err() != nil {
		return interrupted(ctx)
	}
	names, err := d.fs.List(d.fs.PathJoin(d.path, strings.TrimSuffix(prefix, "/")))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.note(fcp.CodeDisk, prefix, "the folder cannot be listed")
		}
		return nil
	}
	if deeper == 0 {
		d.add(prefix, names)
		return nil
	}
	for _, n := range names {
		if b, err := hex.DecodeString(n); err != nil || len(b) != 1 || hex.EncodeToString(b) != n {
			d.note(fcp.CodeManifest, prefix+n, "it does not belong here")
			continue
		}
		if err := d.scanFolder(ctx, prefix+n+"/", 0); err != nil {
			return err
		}
	}
	return nil
}

func (d *shareDir) add(prefix string, names []string) {
	slices.Sort(names)
	for _, n := range names {
		name := prefix + n
		if d.entries++; d.entries > maxDirFiles {
			d.note(fcp.CodeTooLarge, prefix, "too many files; the rest is not looked at")
			return
		}
		i, err := d.fs.Stat(d.fs.PathJoin(append([]string{d.path}, strings.Split(name, "/")...)...))
		if err != nil || !i.Mode().IsRegular() || blob.CheckName(name) != nil {
			d.note(fcp.CodeManifest, name, "it is no ordinary file of a share directory")
			continue
		}
		if !d.place(name, i.Size()) {
			d.note(fcp.CodeManifest, name, "it does not belong here")
		}
	}
}

// place files a name where it belongs.
func (d *shareDir) place(name string, size int64) bool {
	if id, ok := unspread(name, segmentPrefix, ".seg"); ok {
		d.whole[id] = size
		return true
	}
	if _, ok := unspread(name, cardPrefix, ".card"); ok { // of a plain backup folder
		d.small[name] = size
		return true
	}
	rest, ok := strings.CutPrefix(name, symbolPrefix)
	if !ok {
		if strings.HasPrefix(name, sharePrefix) {
			d.manifest += min(size, symbols.MaxManifest+1)
		}
		d.small[name] = size
		return name == backupGenesis || strings.Contains(name, "/")
	}
	_, file, _ := strings.Cut(rest, "/")
	segment, first, count, err := symbols.ParseFileName(file)
	if err != nil || symbolPrefix+hex.EncodeToString(segment[:1])+"/"+file != name {
		return false
	}
	if len(d.shares[segment]) >= maxShareFiles {
		return false
	}
	d.shares[segment] = append(d.shares[segment], heldShare{first, count, size})
	return true
}

// read returns a file of at most max bytes.
func (d *shareDir) read(ctx context.Context, name string, max int64) ([]byte, error) {
	return blob.ReadAll(ctx, d.files, name, max)
}

// readUpTo returns the beginning of a file, at most max bytes.
func (d *shareDir) readUpTo(ctx context.Context, name string, size, max int64) ([]byte, error) {
	r, err := d.files.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(size, max))
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], fcp.Wrap(fcp.CodeDisk, errors.Join(err, r.Close()), "read %s", name)
}

// putBytes writes a small file unless it is there as it should be.
func (d *shareDir) putBytes(ctx context.Context, name string, b []byte) (written int64, err error) {
	if size, ok := d.small[name]; ok {
		if size == int64(len(b)) {
			if have, err := d.read(ctx, name, size); err == nil && bytes.Equal(have, b) {
				return 0, nil
			}
		}
		if err := d.remove(ctx, name); err != nil {
			return 0, err
		}
	}
	if written, err = d.files.Put(ctx, name, bytes.NewReader(b)); err == nil {
		d.small[name] = written
	}
	return written, err
}

func (d *shareDir) remove(ctx context.Context, name string) error {
	delete(d.small, name)
	err := d.files.Delete(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
