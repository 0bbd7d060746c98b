package state

import (
	"context"
	"fmt"
	"log/slog"

	"fcp"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable/block"
)

// formatVersion is part of the product's format version: the newest of the
// pinned module, because the default one drops damaged tails in silence.
const formatVersion = pebble.FormatNewest

const (
	tableBlock = 16 << 10
	indexBlock = 256 << 10
	tableFile  = 32 << 20 // a compaction's output file
	l0Tables   = 8        // tables in the top level before they are merged down
)

func (s *Store) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                          s.fs,
		Cache:                       s.cache,
		FormatMajorVersion:          formatVersion,
		ReadOnly:                    s.opts.ReadOnly,
		DisableWAL:                  true, // nothing is ever written through the memtable
		MemTableSize:                256 << 10,
		L0CompactionThreshold:       l0Tables,
		L0CompactionFileThreshold:   1 << 20,
		L0StopWritesThreshold:       1 << 20, // backpressure is the store's own
		LBaseMaxBytes:               1 << 30,
		MaxOpenFiles:                1000,
		Logger:                      &logger{s},
		EventListener:               s.events(),
		DisableTableStats:           true,
		DisableAutomaticCompactions: s.opts.noCompactions,
	}
	o.Experimental.CompactionScheduler = s.sched
	for i := range o.Levels {
		l := &o.Levels[i]
		l.BlockSize = tableBlock
		l.IndexBlockSize = indexBlock
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.FilterType = pebble.TableFilter
		l.Compression = func() *block.CompressionProfile { return block.NoCompression }
	}
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = tableFile
	}
	return o
}

func (s *Store) events() *pebble.EventListener {
	return &pebble.EventListener{
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.report(fcp.Errorf(fcp.CodeCorrupt, "the state table %s: %w", i.Path, i.Details))
		},
		BackgroundError: func(err error) {
			err = coded(err, "background work on the state")
			s.report(err)
			if s.opening.Load() {
				s.abandoned <- err
				select {} // Pebble would try again at once, for ever
			}
		},
	}
}

// report tells the owner of a fault; it decides nothing.
func (s *Store) report(err error) {
	s.opts.Logger.Error("state store fault", "err", err)
	if s.opts.OnFault != nil {
		s.opts.OnFault(err)
	}
}

// poison stops the store: whatever comes after is refused with this error.
func (s *Store) poison(err error) {
	s.fs.stopped.Store(true)
	if s.fault.CompareAndSwap(nil, &err) {
		s.report(err)
		s.view.mu.Lock()
		s.view.changed.Broadcast()
		s.view.mu.Unlock()
	}
}

// A logger never exits the process. Pebble's fatal errors (a failed manifest
// write or sync) stop the store instead, as an fsync error must.
type logger struct{ s *Store }

func (l *logger) Infof(format string, args ...any) {
	if log := l.s.opts.Logger; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("state tables", "msg", fmt.Sprintf(format, args...))
	}
}

func (l *logger) Errorf(format string, args ...any) {
	l.s.opts.Logger.Warn("state tables", "msg", fmt.Sprintf(format, args...))
}

func (l *logger) Fatalf(format string, args ...any) {
	l.s.fs.stop(fcp.Errorf(fcp.CodeCrashed, "state tables: %s", fmt.Sprintf(format, args...)))
}

// coded gives a storage error its code. A full disk passes; anything else that
// the disk says is final.
func coded(err error, doing string) error {
	switch {
	case err == nil:
		return nil
	case fcp.IsDiskFull(err):
		return fcp.Wrap(fcp.CodeDiskFull, err, "%s", doing)
	case pebble.IsCorruptionError(err):
		return fcp.Wrap(fcp.CodeCorrupt, err, "%s", doing)
	}
	return fcp.Wrap(fcp.CodeDisk, err, "%s", doing)
}
