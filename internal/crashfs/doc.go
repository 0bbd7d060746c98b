// Package crashfs is an in-memory file system that knows what a power cut
// leaves behind. It implements Pebble's vfs.FS, so a whole store can run on it,
// be stopped at any I/O, and be opened again from the image that the disk would
// have held at that moment.
//
// # The model
//
// Everything written is volatile until it is synced:
//
//   - A write, and the growth of the file that comes with it, is durable after
//     Sync or SyncData on any handle of that file. SyncTo promises nothing and
//     makes nothing durable.
//   - A directory entry (create, link, remove, rename, mkdir) is durable after
//     Sync on a handle from OpenDir of that directory. Syncing a file does not
//     make its name durable: a synced file whose directory was never synced can
//     be missing after the cut. This is what POSIX promises, and less than ext4
//     gives.
//   - A rename is one step: after the cut either both of its halves happened or
//     neither (Options.SplitRenames breaks this).
//
// Crash makes the image of a power cut now: of each unsynced write and entry it
// keeps, drops or tears, as Options and the given random source say. CrashClone
// is the image with nothing unsynced. Both leave the running file system as it
// was. An image is itself an FS with everything durable, no locks held, no hook
// and no stop set, and the same disk space.
//
// # Invariants
//
//   - What was synced before Crash is in the image bit for bit, unless Options
//     asks for rot, flips or misdirected writes, or the sync was pretended.
//   - The same operations in the same order and the same seed give the same
//     image: nothing is decided by Go's map order, by time or by addresses.
//   - Images share unchanged 4 KiB pages with their source; making one costs
//     about the number of files and the unsynced bytes, not the size of the store.
//
// # What it leaves out
//
// Permissions, symbolic links and access times do not exist. Preallocate takes
// no space. Space is counted as file sizes rounded up to pages, holes included.
// Paths are slash-separated; a relative path starts at the root.
package crashfs
