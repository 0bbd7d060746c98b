package log

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"fcp/internal/directio"
)

// frameTable is a sorted table of frames on its way into the store: written under a
// name of its own, then taken in.
type frameTable struct {
	path  string
	w     *sstable.Writer
	file  *tableFile
	bytes int64 // of frames
}

// tableFile is what a table is written to. It hashes what it writes, so that the
// list of a clean close need not read it again.
type tableFile struct {
	io.Writer
	buf  *bufio.Writer // before file; nil when that has its own
	file interface {
		io.WriteCloser
		Sync() error
	}
	hash *xxh3.Hasher
	size int64
}

// Write implements objstorage.Writable.
func (f *tableFile) Write(p []byte) error {
	f.hash.Write(p)
	f.size += int64(len(p))
	_, err := f.Writer.Write(p)
	return err
}

// Finish implements objstorage.Writable: the table is durable then.
func (f *tableFile) Finish() (err error) {
	if f.buf != nil {
		err = f.buf.Flush()
	}
	if err == nil {
		err = f.file.Sync()
	}
	return errors.Join(err, f.file.Close())
}

// Abort implements objstorage.Writable.
func (f *tableFile) Abort() { _ = f.file.Close() } // it is given up

const tableBuffer = 64 << 10

// bulkTableFormat is the newest format by rows, for large tables: a row of one frame gains nothing from
// columns, and their writer hands each block to another goroutine, which on busy
// processors waits longer for its turn than the block takes to write.
const bulkTableFormat = sstable.TableFormatPebblev4

// tablePaths is how many tables can be on their way at once.
const tablePaths = 2

// tablePath is where a table of frames is written, the ith at once. The caller holds
// sealMu.
func (l *Log) tablePath(i int) string {
	if i == 0 {
		return l.fs.PathJoin(l.dir, "sealing.tmp")
	}
	return l.fs.PathJoin(l.dir, fmt.Sprintf("sealing-%d.tmp", i))
}

// frameTable begins a table of frames. With past it is written past the page cache
// where there is one.
func (l *Log) frameTable(path string, past bool) (*frameTable, error) {
	f := &tableFile{hash: xxh3.New()}
	format := l.db.TableFormat()
	if past && l.fs == vfs.Default {
		format = bulkTableFormat
		w, err := directio.Create(path)
		if err != nil {
			return nil, wrapDisk(err, "writing a segment")
		}
		f.Writer, f.file = w, w
	} else {
		w, err := l.fs.Create(path, "fcp-seal")
		if err != nil {
			return nil, wrapDisk(err, "writing a segment")
		}
		w = vfs.NewSyncingFile(w, vfs.SyncingFileOptions{BytesPerSync: 1 << 20}) // the disk begins before the end
		f.buf, f.file = bufio.NewWriterSize(w, tableBuffer), w
		f.Writer = f.buf
	}
	return &frameTable{path: path, file: f, w: sstable.NewWriter(f, sstable.WriterOptions{
		TableFormat: format, BlockSize: frameSize + 1024, IndexBlockSize: 256 << 10,
		Compression: block.NoCompression,
	})}, nil
}

// add writes the frames of a segment.
func (t *frameTable) add(d *segmentDraft) error {
	for i, frame := range d.frames {
		if err := t.w.Set(keyOfFrame(d.no, uint32(i)), frame); err != nil {
			return wrapDisk(err, "writing a segment")
		}
		t.bytes += int64(len(frame))
	}
	return nil
}

// dropTable ends a table that is not taken in and removes its file.
func (l *Log) dropTable(t *frameTable) error {
	_ = t.w.Close() // an error changes nothing: the file goes
	return wrapDisk(l.fs.Remove(t.path), "giving up a table of frames")
}

// takeIn syncs a table and links it into the store. Until a commit refers to its
// segments they are not there. Calls do not overlap.
func (l *Log) takeIn(ctx context.Context, t *frameTable) error {
	if err := t.w.Close(); err != nil { // syncs
		return wrapDisk(err, "writing a segment")
	}
	l.taking.Store(t.file)
	defer l.taking.Store(nil)
	err := l.abandonable(func() error { return l.db.Ingest(context.WithoutCancel(ctx), []string{t.path}) })
	return wrapDisk(err, "taking in a segment")
}

// tableTaken hears under which number a table came into the store.
func (l *Log) tableTaken(i pebble.TableIngestInfo) {
	f := l.taking.Load()
	if f == nil || i.Err != nil || len(i.Tables) != 1 {
		return
	}
	l.tablesMu.Lock()
	defer l.tablesMu.Unlock()
	l.tableSums[fmt.Sprintf("%06d%s", i.Tables[0].FileNum, tableSuffix)] = FileSum{f.size, f.hash.Sum64()}
}

// tableGone forgets a table.
func (l *Log) tableGone(i pebble.TableDeleteInfo) {
	l.tablesMu.Lock()
	defer l.tablesMu.Unlock()
	delete(l.tableSums, fmt.Sprintf("%06d%s", i.FileNum, tableSuffix))
}

// FileSum is the length and the XXH3-64 of a file that never changes.
type FileSum struct {
	Size int64
	Hash uint64
}

// TableSums returns what is known of tables by their names in the log's directory:
// those that were written whole and not read since.
func (l *Log) TableSums() map[string]FileSum {
	l.tablesMu.Lock()
	defer l.tablesMu.Unlock()
	out := make(map[string]FileSum, len(l.tableSums))
	for name, s := range l.tableSums {
		out[name] = s
	}
	return out
}

// dropTables removes tables that a crash left on their way.
func (l *Log) dropTables() error {
	for i := range tablePaths {
		if err := l.fs.Remove(l.tablePath(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return wrapDisk(err, "dropping a table that was never taken in")
		}
	}
	return nil
}

// dropFrames drops the frames of segments [first, end), to which nothing refers.
func (l *Log) dropFrames(first, end uint64) error {
	return wrapDisk(l.db.DeleteRange(keyOfFrame(first, 0), keyOfFrame(end, 0), pebble.Sync), "dropping unfinished segments")
}
