// Package walfs is a vfs.FS for Pebble that makes each synced append cheaper
// and each flipped bit in the write-ahead log (WAL) count.
//
// # Zeros first
//
// Pebble reserves WAL space with fallocate(KEEP_SIZE), so every append grows
// the file and every fdatasync also commits the new size in the file system's
// journal. Here a WAL is a file that already holds real, synced zeros: appends
// overwrite them in place, and fdatasync writes data only.
//
// Measured on 2 cores under load 3 to 4, ext4 on virtio, one synced record per
// commit, medians of alternating runs: a bare file with fdatasync 3,588 -> 4,414
// appends/s at 1 KiB and 2,592 -> 3,556 at 80 KiB; Pebble (BenchmarkAppend)
// 3,527 -> 4,232 at 1 KiB and 1,652 -> 1,842 at 80 KiB. The exact offsets below
// cost 7 us per 80 KiB of that.
//
// Where the zeros come from:
//
//   - A spare of Options.Size bytes per WAL directory is zeroed and synced in
//     the background, chunk by chunk. Creating a WAL renames the spare into
//     place and starts the next one. So nobody waits for zeros.
//   - If the spare is not ready, as at Open, the new WAL gets one chunk of
//     zeros at once, and further chunks as writes pass their end. One in about
//     twelve 80 KiB appends then pays for a chunk of 1 MiB.
//   - Pebble recycles WALs by ReuseForWrite: the old file is renamed and
//     overwritten, its size stays, nothing is zeroed. An old file smaller than
//     Size is replaced by the spare when that is ready. Recycling starts after
//     the first flushes of a process; logs of an earlier process are deleted,
//     never recycled.
//
// The alternative, zeroing the whole file inside Create, stalls all commits
// behind the memtable rotation for the time of 17 MiB, and Open as well.
//
// # Exact sync offsets
//
// With FormatWALSyncChunks each chunk of the WAL carries the offset up to which
// the log was synced when the chunk was made. On replay, an invalid chunk below
// an offset promised by a later chunk is corruption; without such a promise it
// is taken for the torn end of the log and everything after it is dropped in
// silence. Pebble v2.1.7 counts only partly filled 32 KiB blocks towards that
// offset (record.LogWriter.flushLoop leaves out the pending full ones), so with
// records of 80 KiB the promise lags far behind and most flipped bits silently
// cost acknowledged commits. This package knows what was synced, and puts the
// exact offset and the chunk's new checksum into each chunk as it is written
// (Options.KeepOffsets leaves them alone). A chunk whose checksum is wrong when
// it gets here is passed on as it is.
//
// # Invariants
//
//   - A WAL's bytes are what Pebble wrote, apart from raised sync offsets, then
//     zeros or the remains of a recycled log.
//   - A promised offset never exceeds what a returned Sync covered.
//   - Every WAL name is made by a create or rename in its directory before
//     Create returns; Pebble syncs the directory before it writes the first
//     record, so a cut finds either a durable name or no acknowledged record.
//   - A spare holds only zeros and is used once. Spares of an earlier process
//     are removed, not used: a rename lost in a power cut could have left log
//     data under a spare's name.
//   - Zeroing adds no failure of its own when the disk is full: the file is then
//     shorter, and the write that does not fit fails by itself. Any other error
//     is returned.
//   - Files that are not WALs pass through untouched.
//
// # Known limits
//
// A flipped bit in the last block of the log, past which no later chunk
// promises anything, cannot be told from a torn write; nor can one in the
// lowest bit of a chunk's log number when that number is even, which replay
// takes for the end-of-log mark. The high-water mark outside of Pebble covers
// both.
package walfs
