package log

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
)

// The high-water mark is a file outside Pebble that remembers what was
// acknowledged: two 4 KiB slots, written alternately, each with its own checksum
// (docs/format.md "High-water mark"). A recovered log that ends before the mark
// has lost its tail.
//
//	slot: "FCPM" | version u16 = 1 | count u16 | counter u64 | incarnation u64
//	    | position u64 | count x (feed no u32, seq u64, hash[32]) | zeros | crc32c u32

const (
	markName    = "HIGHWATER"
	markSlot    = 4096
	markVersion = 1
	markHeader  = 4 + 2 + 2 + 8 + 8 + 8
	markEntry   = 4 + 8 + fcp.HashSize
	maxMarked   = 80 // own feeds in a mark; those appended to last are taken
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type markedFeed struct {
	no   FeedNo
	seq  uint64
	hash fcp.Hash
}

type mark struct {
	counter     uint64
	incarnation uint64
	position    uint64
	feeds       []markedFeed
}

func (m *mark) encode() []byte {
	b := make([]byte, 0, markSlot)
	b = append(b, "FCPM"...)
	b = binary.BigEndian.AppendUint16(b, markVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.feeds)))
	b = binary.BigEndian.AppendUint64(b, m.counter)
	b = binary.BigEndian.AppendUint64(b, m.incarnation)
	b = binary.BigEndian.AppendUint64(b, m.position)
	for _, f := range m.feeds {
		b = binary.BigEndian.AppendUint32(b, uint32(f.no))
		b = binary.BigEndian.AppendUint64(b, f.seq)
		b = append(b, f.hash[:]...)
	}
	b = b[:markSlot-4]
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeMark decodes one slot; ok is false for anything but a whole valid one.
func decodeMark(b []byte) (m mark, ok bool) {
	if len(b) != markSlot || string(b[:4]) != "FCPM" ||
		binary.BigEndian.Uint32(b[markSlot-4:]) != crc32.Checksum(b[:markSlot-4], castagnoli) {
		return m, false
	}
	n := int(binary.BigEndian.Uint16(b[6:]))
	if binary.BigEndian.Uint16(b[4:]) != markVersion || n > maxMarked {
		return m, false
	}
	m.counter = binary.BigEndian.Uint64(b[8:])
	m.incarnation = binary.BigEndian.Uint64(b[16:])
	m.position = binary.BigEndian.Uint64(b[24:])
	for i := range n {
		e := b[markHeader+i*markEntry:]
		m.feeds = append(m.feeds, markedFeed{FeedNo(binary.BigEndian.Uint32(e)), binary.BigEndian.Uint64(e[4:]), fcp.Hash(e[12:44])})
	}
	return m, true
}

// markFile writes the mark. It is used by one goroutine at a time.
type markFile struct {
	f    vfs.File
	last mark
}

// recoverMark compares the recovered log with the mark and opens the file for
// the next ones.
func (l *Log) recoverMark() error {
	path := l.fs.PathJoin(l.dir, markName)
	slots, err := readMark(l.fs, path)
	if err != nil {
		return err
	}
	m, found := newestMark(slots)
	if found {
		if err := l.compareMark(&m); err != nil {
			l.doubt = err
			l.refusal = err
			return nil
		}
	} else if slots != nil && l.nextPosition > 1 {
		// Both slots unreadable: a crash cannot do that (they hold marks before
		// the first event and are never written together), damage can.
		return fcp.Errorf(fcp.CodeCorrupt, "both slots of the high-water mark are damaged")
	}
	l.mark.last = m
	if l.opts.ReadOnly || l.opts.DisableMark {
		return nil
	}
	if !found {
		if l.mark.last, err = createMark(l.fs, l.dir, path, l.incarnation.Load()); err != nil {
			return err
		}
	}
	l.mark.f, err = l.fs.OpenReadWrite(path, "fcp-mark")
	return wrapDisk(err, "opening the high-water mark")
}

// createMark makes the file with a mark of an empty log in both slots, so that a
// torn write of the first real one leaves a mark behind.
func createMark(fs vfs.FS, dir, path string, incarnation uint64) (mark, error) {
	first, second := mark{incarnation: incarnation}, mark{counter: 1, incarnation: incarnation}
	f, err := fs.Create(path, "fcp-mark")
	if err != nil {
		return mark{}, wrapDisk(err, "making the high-water mark")
	}
	_, err = f.Write(append(first.encode(), second.encode()...))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return mark{}, wrapDisk(err, "making the high-water mark")
	}
	return second, syncDir(fs, dir)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return wrapDisk(err, "syncing a directory")
	}
	return wrapDisk(errors.Join(d.Sync(), d.Close()), "syncing a directory")
}

// readMark returns the file's bytes; nil when there is none.
func readMark(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, wrapDisk(err, "reading the high-water mark")
	}
	b, err := io.ReadAll(io.LimitReader(f, 2*markSlot+1))
	return b, wrapDisk(errors.Join(err, f.Close()), "reading the high-water mark")
}

func newestMark(slots []byte) (m mark, found bool) {
	for i := 0; i+markSlot <= len(slots); i += markSlot {
		if s, ok := decodeMark(slots[i : i+markSlot]); ok && (!found || s.counter > m.counter) {
			m, found = s, true
		}
	}
	return m, found
}

// compareMark returns an error when the log ends before the mark.
func (l *Log) compareMark(m *mark) *fcp.Error {
	if end := l.nextPosition - 1; end < m.position {
		return fcp.Errorf(fcp.CodeTailLost, "the log ends at position %d, %d was acknowledged", end, m.position)
	}
	for _, w := range m.feeds {
		f := l.feedLocked(w.no)
		if f == nil || f.durable.seq < w.seq {
			return fcp.Errorf(fcp.CodeTailLost, "feed %d lacks event %d, which was acknowledged", w.no, w.seq)
		}
		if f.durable.seq == w.seq && f.durable.hash != w.hash {
			return fcp.Errorf(fcp.CodeTailLost, "feed %d has another event %d than the one acknowledged", w.no, w.seq)
		}
	}
	return nil
}

// writeMark records the durable state, if it moved.
func (l *Log) writeMark() error {
	if l.mark.f == nil || l.Durable() == l.mark.last.position {
		return nil
	}
	m := mark{counter: l.mark.last.counter + 1, incarnation: l.incarnation.Load()}
	l.mu.Lock()
	m.position = l.Durable() // heads are at least this far: publish moves them first
	for _, f := range l.feeds {
		if f.own && f.chained() && f.durable.seq > 0 && len(m.feeds) < maxMarked {
			m.feeds = append(m.feeds, markedFeed{f.no, f.durable.seq, f.durable.hash})
		}
	}
	l.mu.Unlock()
	off := int64(m.counter%2) * markSlot
	if _, err := l.mark.f.WriteAt(m.encode(), off); err != nil {
		return wrapDisk(err, "writing the high-water mark")
	}
	if err := l.mark.f.SyncData(); err != nil {
		return wrapDisk(err, "writing the high-water mark")
	}
	l.mark.last = m
	return nil
}

func (l *Log) finalMark() error {
	if l.mark.f == nil {
		return nil
	}
	return errors.Join(l.writeMark(), wrapDisk(l.mark.f.Close(), "closing the high-water mark"))
}

// start begins the background work: marks, disk watch, sealing.
func (l *Log) start() error {
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	if l.opts.ReadOnly {
		l.refusal = fcp.Errorf(fcp.CodeReadOnly, "%s", l.dir)
		return nil
	}
	if l.doubt != nil {
		return nil
	}
	if err := l.makeBallast(); err != nil {
		stop()
		return err
	}
	l.wg.Go(func() { l.watch(ctx) })
	l.background = ctx
	if l.opts.Applier == nil {
		l.Serve()
	}
	return nil
}

// Serve starts background sealing, which appends events of its own. Open does so
// by itself, unless there is an Applier: then it is called once, when the Applier
// has caught up with the log and can take events.
func (l *Log) Serve() {
	if l.background == nil || l.opts.Sealer == nil || l.opts.Signer == nil {
		return
	}
	l.wg.Go(func() { l.sealLoop(l.background) })
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// watchIdle is how often the free space is looked at while nothing is appended.
const watchIdle = 500 * time.Millisecond

// watch writes marks and looks at the free space. While nothing is appended there is
// no mark to write, and it looks less often.
func (l *Log) watch(ctx context.Context) {
	tick := time.NewTimer(l.opts.MarkInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.grew:
			tick.Reset(l.opts.MarkInterval)
			continue
		case <-tick.C:
		}
		if l.crashed.Load() != nil {
			return
		}
		l.watchDisk()
		if err := l.writeMark(); err != nil {
			if !fcp.IsDiskFull(err) {
				l.crash(err)
				return
			}
			l.full.Store(true)
		}
		next := max(watchIdle, l.opts.MarkInterval)
		if l.idle.Store(true); l.Durable() != l.mark.last.position && l.mark.f != nil { // in this order: publish looks at idle last
			l.idle.Store(false)
			next = l.opts.MarkInterval
		}
		tick.Reset(next)
	}
}
