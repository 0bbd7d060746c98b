package walfs

import (
	"encoding/binary"
	"hash/crc32"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
)

// wal is a WAL being written. Like every vfs.File it takes one Write or Sync at
// a time; the counters are atomic because some callers sync from a second
// goroutine.
type wal struct {
	vfs.File
	fs      *FS
	written atomic.Int64 // bytes Pebble wrote, from offset 0
	durable atomic.Int64 // bytes covered by a sync that returned
	zeroed  int64        // end of the file; owned by the writer
}

// Write puts p behind what was written before and keeps zeros ahead of it. It
// may raise the sync offsets inside p.
func (w *wal) Write(p []byte) (int, error) {
	off := w.written.Load()
	if !w.fs.o.KeepOffsets {
		raiseSyncOffsets(p, off, w.durable.Load())
	}
	n, err := w.File.Write(p)
	end := w.written.Add(int64(n))
	if err != nil || end <= w.zeroed {
		return n, err
	}
	w.zeroed = end
	// The next sync makes this chunk durable together with p.
	chunk := w.fs.o.Chunk
	err = writeZeros(chunk-end%chunk, func(b []byte) (int, error) {
		k, err := w.File.WriteAt(b, w.zeroed)
		w.zeroed += int64(k)
		return k, err
	})
	if fcp.IsDiskFull(err) {
		err = nil // the record itself is in the file
	}
	w.fs.extended.Add(1)
	return n, err
}

func (w *wal) Sync() error     { return w.synced(w.File.Sync) }
func (w *wal) SyncData() error { return w.synced(w.File.SyncData) }

func (w *wal) synced(sync func() error) error {
	written := w.written.Load()
	if err := sync(); err != nil {
		return err
	}
	w.durable.Store(max(w.durable.Load(), written))
	return nil
}

// SyncTo implements vfs.File.
func (w *wal) SyncTo(length int64) (fullSync bool, err error) {
	written := w.written.Load()
	fullSync, err = w.File.SyncTo(length)
	if fullSync && err == nil {
		w.durable.Store(max(w.durable.Load(), written))
	}
	return fullSync, err
}

// Preallocate does nothing where there are zeros already.
func (w *wal) Preallocate(offset, length int64) error {
	if offset+length <= w.zeroed {
		return nil
	}
	return w.File.Preallocate(offset, length)
}

// The chunk format of Pebble's record package with sync offsets: checksum (4),
// payload length (2), type (1), log number (4), sync offset (8), payload. All
// little-endian; the checksum covers everything from the type on.
const (
	blockSize       = 32 << 10
	chunkHeaderSize = 19
	firstSyncChunk  = 9  // walSyncFullChunkEncoding
	lastSyncChunk   = 12 // walSyncLastChunkEncoding
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunkChecksum is Pebble's internal/crc.
func chunkChecksum(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// raiseSyncOffsets sets the sync offset of each chunk in p, which will be
// written at off, to durable where it is lower. Pebble writes whole chunks. At
// the first thing that is not a sound chunk with a sync offset (the end-of-log
// mark, an older format, damage) it leaves the rest of the block alone.
func raiseSyncOffsets(p []byte, off, durable int64) {
	for len(p) > 0 {
		n := min(len(p), blockSize-int(off%blockSize))
		raiseInBlock(p[:n], uint64(durable))
		p, off = p[n:], off+int64(n)
	}
}

func raiseInBlock(b []byte, durable uint64) {
	for len(b) >= chunkHeaderSize {
		end := chunkHeaderSize + int(binary.LittleEndian.Uint16(b[4:]))
		if b[6] < firstSyncChunk || b[6] > lastSyncChunk || end > len(b) {
			return
		}
		if binary.LittleEndian.Uint64(b[11:]) < durable {
			if binary.LittleEndian.Uint32(b) != chunkChecksum(b[6:end]) {
				return
			}
			binary.LittleEndian.PutUint64(b[11:], durable)
			binary.LittleEndian.PutUint32(b, chunkChecksum(b[6:end]))
		}
		b = b[end:]
	}
}
