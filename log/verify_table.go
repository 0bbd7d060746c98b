package log

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
)

// checkTables reads every block of every table that the store refers to.
func (v *verifier) checkTables() error {
	levels, err := v.l.db.SSTables()
	if err != nil {
		return readError(err)
	}
	seen := map[string]bool{}
	for _, level := range levels {
		for i := range level {
			t := &level[i]
			name := fmt.Sprintf("%s.sst", t.BackingSSTNum)
			if seen[name] {
				continue
			}
			seen[name] = true
			if v.ctx.Err() != nil {
				return ctxError(v.ctx)
			}
			size, err := checkTable(v.ctx, v.l.fs, v.l.fs.PathJoin(v.l.dir, name))
			if err != nil {
				v.tables++
				v.find(FindTable, name, "%v; the table holds %s to %s", err, describeKey(t.Smallest.UserKey), describeKey(t.Largest.UserKey))
			}
			v.report.Tables++
			v.report.Bytes += size
		}
	}
	return nil
}

// describeKey says what a key of the store is about.
func describeKey(k []byte) string {
	names := map[byte]string{keyMeta: "meta", keyFeed: "feed records", keyHead: "head records", keyEnd: "end records",
		keyHot: "events", keySalts: "salts", keyPosition: "positions", keyNode: "tree nodes", keyFrame: "frames",
		keySegment: "remainders", keySealed: "segment index", keyByID: "segment ids", keyReplaced: "replaced segments", keyHorizon: "horizons"}
	if len(k) == 0 || keyShapes[k[0]] != len(k) {
		return "other keys"
	}
	switch s := names[k[0]]; k[0] {
	case keyHot, keySalts, keySealed:
		no, seq := splitSeqKey(k)
		return fmt.Sprintf("%s of feed %d from %d", s, no, seq)
	case keyPosition, keySegment, keyFrame:
		return fmt.Sprintf("%s of %d", s, binary.BigEndian.Uint64(k[1:]))
	default:
		return s
	}
}

// tableTrailer is the length of what follows a block: how it is compressed, and
// the checksum over both.
const tableTrailer = 5

// checkTable reads every block of a table and accounts for every byte. It
// compares the checksums itself: Pebble spends seconds on a wrong one in search
// of the flipped bit.
func checkTable(ctx context.Context, fs vfs.FS, path string) (size int64, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fcp.Errorf(fcp.CodeCorrupt, "reading the table ends in: %v", r)
		}
	}()
	f, err := fs.Open(path)
	if err != nil {
		return 0, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	size = readable.Size()
	r, err := sstable.NewReader(ctx, readable, sstable.ReaderOptions{})
	if err != nil {
		return size, err // the reader closed the file
	}
	layout, err := r.Layout()
	if err == nil {
		err = checkBlocks(f, size, layout)
	}
	return size, errors.Join(err, r.Close())
}

func checkBlocks(f io.ReaderAt, size int64, l *sstable.Layout) error {
	blocks := []block.Handle{l.TopIndex, l.RangeDel, l.RangeKey, l.ValueIndex, l.Properties, l.MetaIndex, l.BlobReferenceIndex}
	blocks = append(append(blocks, l.Index...), l.ValueBlock...)
	for i := range l.Data {
		blocks = append(blocks, l.Data[i].Handle)
	}
	for i := range l.Filter {
		blocks = append(blocks, l.Filter[i].Handle)
	}
	blocks = slices.DeleteFunc(blocks, func(h block.Handle) bool { return h.Length == 0 })
	slices.SortFunc(blocks, func(a, b block.Handle) int { return cmp.Compare(a.Offset, b.Offset) })
	blocks = slices.Compact(blocks)
	var buf []byte
	next := uint64(0)
	for _, h := range blocks {
		if h.Offset != next || h.Length > uint64(size) {
			return fcp.Errorf(fcp.CodeCorrupt, "the table's blocks do not follow each other at %d", next)
		}
		n := int(h.Length) + tableTrailer
		buf = slices.Grow(buf[:0], n)[:n]
		if _, err := f.ReadAt(buf, int64(h.Offset)); err != nil {
			return err
		}
		sum := crc32.Checksum(buf[:n-4], castagnoli)
		if binary.LittleEndian.Uint32(buf[n-4:]) != (sum>>15|sum<<17)+0xa282ead8 {
			return fcp.Errorf(fcp.CodeCorrupt, "the block of %d bytes at %d fails its checksum", h.Length, h.Offset)
		}
		next += uint64(n)
	}
	if l.Footer.Offset != next || next+l.Footer.Length != uint64(size) {
		return fcp.Errorf(fcp.CodeCorrupt, "the table's blocks end at %d, its footer starts at %d", next, l.Footer.Offset)
	}
	return nil
}
