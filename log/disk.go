package log

import (
	"errors"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
)

// A full disk must never hang a commit or turn into a crash when it can be
// foreseen. So appends are refused while less than a reserve is free, and a
// ballast file is given up when the disk fills all the same, so that what is
// already on its way can finish. Both come back by themselves.

const ballastName = "BALLAST"

// GiveUpBallast removes the ballast file of the log in dir, if there is one, so that
// a store on a full disk can be opened. Open makes it again when there is room.
func GiveUpBallast(fs vfs.FS, dir string) error {
	if err := fs.Remove(fs.PathJoin(dir, ballastName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return wrapDisk(err, "giving up the ballast file")
	}
	return nil
}

func (l *Log) diskFull() error {
	return fcp.Errorf(fcp.CodeDiskFull, "less than %d MiB is free in %s", l.opts.DiskReserve>>20, l.dir)
}

// Full reports whether appends are refused for want of space. It looks at nothing.
func (l *Log) Full() bool { return l.full.Load() }

func (l *Log) free() (uint64, error) {
	u, err := l.fs.GetDiskUsage(l.dir)
	return u.AvailBytes, err
}

// makeBallast writes the ballast file unless it is there or space is short.
func (l *Log) makeBallast() error {
	path := l.fs.PathJoin(l.dir, ballastName)
	free, err := l.free()
	if err != nil { // some file systems cannot say; then nothing is foreseen
		l.log.Warn("cannot tell the free space", "err", err)
		return nil
	}
	l.full.Store(free < l.opts.DiskReserve)
	if _, err := l.fs.Stat(path); err == nil || l.opts.DisableBallast ||
		free < 4*(l.opts.DiskReserve+uint64(l.opts.BallastBytes)) {
		return nil // a tight disk needs the space more than the ballast
	} else if !errors.Is(err, os.ErrNotExist) {
		return wrapDisk(err, "looking for the ballast file")
	}
	f, err := l.fs.Create(path, "fcp-ballast")
	if err != nil {
		return wrapDisk(err, "making the ballast file")
	}
	err = errors.Join(f.Preallocate(0, l.opts.BallastBytes), f.Close())
	return wrapDisk(err, "making the ballast file")
}

// noteWritten looks at the disk again after a sixteenth of the reserve, because a
// fast writer can use up the reserve between two looks by time: what is appended
// is written once more when the memtable is flushed, and again when it is sealed.
// Only the leader calls it.
func (l *Log) noteWritten(bytes int) {
	if l.unwatched += uint64(bytes); l.unwatched >= l.opts.DiskReserve/16 {
		l.unwatched = 0
		l.watchDisk()
	}
}

// watchDisk refuses and admits appends by the free space.
func (l *Log) watchDisk() {
	if !l.watching.TryLock() {
		return
	}
	defer l.watching.Unlock()
	free, err := l.free()
	if err != nil {
		l.log.Warn("cannot tell the free space", "err", err)
		return
	}
	was := l.full.Load()
	// Some slack between the two thresholds keeps the state from flapping.
	full := free < l.opts.DiskReserve || was && free < l.opts.DiskReserve+l.opts.DiskReserve/4
	if full == was {
		return
	}
	l.full.Store(full)
	if full {
		l.log.Warn("the disk is nearly full; appends are refused", "free", free)
		err := l.fs.Remove(l.fs.PathJoin(l.dir, ballastName))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			l.log.Warn("cannot give up the ballast file", "err", err)
		}
		return
	}
	l.toldFull.Store(false)
	l.log.Info("space is back; appends go on", "free", free)
	if err := l.makeBallast(); err != nil {
		l.log.Warn("cannot remake the ballast file", "err", err)
	}
}
