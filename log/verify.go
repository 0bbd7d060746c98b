package log

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	pebblerecord "github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/internal/gate"
)

// VerifyOptions configure Verify. The zero value is usable.
type VerifyOptions struct {
	FS     vfs.FS // nil: the operating system
	Sealer Sealer // nil: of sealed segments only ciphertext, card and remainder are checked
	// Closed says that the store is known to be closed cleanly (CheckClean): what
	// else would be a trace of a crash is damage then.
	Closed bool
	// Progress is called now and then with the events checked and their number;
	// nil: nobody is told.
	Progress func(done, total uint64)
}

// Finding is one thing that Verify found.
type Finding struct {
	Code  string // one of the Find constants
	What  string // one sentence
	Where string // the feed, event, segment, file or key
	Note  bool   // nothing is wrong: a trace of a crash, or something not checked
}

// String returns the finding on one line.
func (f Finding) String() string { return f.Code + ": " + f.Where + ": " + f.What }

// What a Finding can be about.
const (
	FindOpen        = "open"       // the store does not open
	FindFile        = "file"       // a file of the store is damaged or missing
	FindTable       = "table"      // a block of a table fails its checksum
	FindManifest    = "manifest"   // the table list does not read to its end
	FindKey         = "key"        // a key that the format does not know
	FindMeta        = "meta"       // the meta record
	FindFeed        = "feed"       // a feed record
	FindBlock       = "block"      // a block or event does not decode
	FindChain       = "chain"      // the hash chain breaks
	FindOrder       = "order"      // sequence numbers or times do not continue
	FindHead        = "head"       // a head or end record
	FindPosition    = "position"   // positions and events do not map one to one
	FindNode        = "node"       // a stored tree node
	FindSegment     = "segment"    // card, remainder or index of a segment
	FindCiphertext  = "ciphertext" // a segment's ciphertext
	FindRoot        = "root"       // a segment's Merkle root
	FindLocked      = "locked"     // a segment whose key is not at hand
	FindOrphan      = "orphan"     // frames that belong to no segment
	FindSalts       = "salts"      // the key table
	FindMark        = "mark"       // the high-water mark
	FindTailLost    = "tail-lost"  // the log ends before the mark
	FindInterrupted = "torn"       // an unfinished write of a crash
	FindTooMany     = "more"       // there are more findings than are listed
	maxFindings     = 1000         // listed in one report
	progressEvents  = 50_000       // between calls of Progress

)

// Report is what Verify found.
type Report struct {
	Findings []Finding
	Clean    bool // no finding but notes

	Feeds     int
	Events    uint64 // decoded and hashed
	Blocks    uint64 // hot and sealed
	Segments  int    // ciphertext, card and remainder checked
	Opened    int    // of these decrypted and checked to the event
	Nodes     uint64 // stored tree nodes
	Positions uint64 // records
	Salts     uint64 // records
	Tables    int    // all of whose blocks were read
	Bytes     int64  // of these tables

	Durable uint64 // last position
	Mark    uint64 // position of the high-water mark
	Crashed bool   // the store was not closed cleanly: its WAL holds records
	// Doubt is how many events lie above the mark in a crashed store. Damage
	// there may have removed events without a trace: what is missing above the
	// mark cannot be told from what was never written.
	Doubt uint64
}

// Verify reads the whole log in dir and checks everything that can be checked
// about it, without changing anything. It works on a closed and on a crashed
// store, but not on one that is open: CodeLocked. What is wrong is in the
// report; the error says that Verify could not do its work (CodeNoStore,
// CodeVersion, CodeLocked, CodeInterrupted, CodeDisk).
func Verify(ctx context.Context, dir string, o VerifyOptions) (Report, error) {
	opts := Options{FS: o.FS, Sealer: o.Sealer, ReadOnly: true}
	opts.setDefaults()
	l := &Log{opts: opts, fs: opts.FS, dir: dir, log: opts.Logger, byFeed: map[fcp.Feed]*feed{}, life: gate.New(),
		dead: make(chan struct{})}
	v := &verifier{ctx: ctx, l: l, o: o, feeds: map[FeedNo]*verifiedFeed{}, segments: map[uint64]FeedNo{},
		announced: map[fcp.SegmentID]bool{}}
	err := v.run()
	v.report.Clean = true
	for _, f := range v.report.Findings {
		v.report.Clean = v.report.Clean && f.Note
	}
	return v.report, err
}

// verifier is one run of Verify.
type verifier struct {
	ctx    context.Context
	l      *Log
	o      VerifyOptions
	report Report

	writer      fcp.WriterID
	incarnation uint64
	before      uint64 // the incarnation before; 0: none
	feeds       map[FeedNo]*verifiedFeed
	order       []FeedNo
	segments    map[uint64]FeedNo              // segments that a feed's index names
	announced   map[fcp.SegmentID]bool         // segments that a segment.sealed event of this store names
	slots       []byte                         // the mark's file
	marked      map[FeedNo]map[uint64]fcp.Hash // hashes that the mark remembers
	tables      int                            // damaged
	told        uint64                         // events at the last call of Progress
	dropped     uint64                         // events without content in the segment being walked
}

// verifiedFeed is what is known about a feed while it is being checked.
type verifiedFeed struct {
	no   FeedNo
	feed fcp.Feed
	id   fcp.FeedID
	own  bool

	head     head // over what was checked
	whole    bool // every event was seen, so that head.tree is meaningful
	sealed   uint64
	ended    int // findings that stopped the walk through this feed
	last     *Remainder
	runs     []positionRange // of hot blocks and index rows
	mapped   []positionRange // of position records
	nodes    []treeNode      // expected
	treed    uint64          // the nodes up to this event are stored
	recorded *head           // head record, until the walk passed it
}

func (v *verifier) find(code, where, format string, args ...any) {
	v.add(Finding{Code: code, Where: where, What: fmt.Sprintf(format, args...)})
}

func (v *verifier) note(code, where, format string, args ...any) {
	v.add(Finding{Code: code, Where: where, What: fmt.Sprintf(format, args...), Note: true})
}

func (v *verifier) add(f Finding) {
	switch n := len(v.report.Findings); {
	case n < maxFindings:
		v.report.Findings = append(v.report.Findings, f)
	case n == maxFindings:
		v.report.Findings = append(v.report.Findings, Finding{Code: FindTooMany, What: "there is more than is listed"})
	}
}

// damage turns damage into a finding; anything else ends the run.
func (v *verifier) damage(code, where string, err error) error {
	if err == nil {
		return nil
	}
	c := fcp.CodeOf(err)
	if c.Class() == fcp.Corrupt || c == fcp.CodeTooLarge || c == fcp.CodeUnknownKind || c == fcp.CodeVersion ||
		c == fcp.CodeZone || c == fcp.CodeMissingField {
		v.find(code, where, "%v", err)
		return nil
	}
	return err
}

func (v *verifier) run() (err error) {
	defer func() { // damaged tables can make Pebble panic
		if r := recover(); r != nil {
			v.find(FindOpen, v.l.dir, "reading ends in: %v", r)
			err = nil
		}
	}()
	desc, err := pebble.Peek(v.l.dir, v.l.fs)
	if errors.Is(err, os.ErrNotExist) || err == nil && !desc.Exists {
		return fcp.Errorf(fcp.CodeNoStore, "%s", v.l.dir)
	}
	opened := v.l.abandonable(v.l.openPebble)
	if errors.Is(opened, fcp.CodeCorrupt) || errors.Is(opened, fcp.CodeDisk) {
		v.find(FindOpen, v.l.dir, "%v", opened)
		return v.checkManifest(desc)
	}
	if opened != nil {
		return opened
	}
	if n := v.l.replayed.Load(); n > 0 && v.o.Closed {
		v.find(FindMark, v.l.dir, "the store was closed cleanly and %d batches wait in its WAL", n)
	} else {
		v.report.Crashed = n > 0
	}
	if err := v.checkManifest(desc); err != nil {
		return errors.Join(err, wrapDisk(v.l.db.Close(), "closing the log"))
	}
	err = v.checkStore()
	if e := v.l.db.Close(); err == nil {
		err = wrapDisk(e, "closing the log")
	}
	return err
}

func (v *verifier) checkStore() error {
	if err := v.checkTables(); err != nil {
		return err
	}
	if v.tables > 0 {
		// Reading on would stumble over the same blocks again and again.
		v.note(FindOpen, v.l.dir, "the events were not checked, because tables are damaged")
		return nil
	}
	for _, step := range []func() error{
		v.checkKeys, v.readMeta, v.readFeeds, v.readPositions, v.readMark,
		v.checkFeeds, v.checkPositions, v.checkSegments, v.checkSalts, v.checkMark,
	} {
		if v.ctx.Err() != nil {
			return ctxError(v.ctx)
		}
		if err := v.damage(FindOpen, v.l.dir, step()); err != nil {
			return err
		}
	}
	v.progress(true)
	return nil
}

func (v *verifier) progress(end bool) {
	if n := v.report.Events; v.o.Progress != nil && (end || n-v.told >= progressEvents) {
		v.told = n
		v.o.Progress(n, max(n, v.report.Durable))
	}
}

// checkManifest looks at what Pebble passes over: the end of the list of tables.
func (v *verifier) checkManifest(desc *pebble.DBDesc) error {
	if desc == nil || desc.ManifestFilename == "" {
		return nil
	}
	fs, name := v.l.fs, desc.ManifestFilename
	sound, err := soundRecords(fs, name)
	switch {
	case err != nil:
		v.find(FindManifest, fs.PathBase(name), "%v", err)
	case !sound && !v.o.Closed:
		v.note(FindInterrupted, fs.PathBase(name), "the list of tables does not read to its end")
	case !sound:
		v.find(FindManifest, fs.PathBase(name), "the list of tables does not read to its end")
	}
	return nil
}

// noteReplay keeps the one thing that Pebble says in a message only: how many
// batches Open took from the WAL.
func (l *Log) noteReplay(format string, args []any) {
	if n := len(args); n > 0 && strings.HasSuffix(format, "keys in %d batches") {
		if batches, ok := args[n-1].(int64); ok {
			l.replayed.Add(batches)
		}
	}
}

// soundRecords says whether a file of Pebble's record format reads to its end.
func soundRecords(fs vfs.FS, path string) (sound bool, err error) {
	f, err := fs.Open(path)
	if err != nil {
		return false, wrapDisk(err, "reading the list of tables")
	}
	defer func() { err = errors.Join(err, wrapDisk(f.Close(), "reading the list of tables")) }()
	for r := pebblerecord.NewReader(f, 0); ; {
		rec, err := r.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, rec)
		}
		if err != nil {
			return errors.Is(err, io.EOF), nil
		}
	}
}

// keyShapes gives the length of every kind of key.
var keyShapes = map[byte]int{
	keyMeta: 1, keyFeed: 5, keyHead: 5, keyEnd: 5, keyHot: feedSeqKeySize, keySalts: feedSeqKeySize,
	keyPosition: 9, keyNode: 14, keyFrame: 13, keySegment: 9, keySealed: feedSeqKeySize, keyByID: 1 + fcp.HashSize,
	keyReplaced: 1 + fcp.HashSize, keyHorizon: 5,
}

// checkKeys finds keys that the format does not know. It reads every key once.
func (v *verifier) checkKeys() error {
	it, err := v.l.iter(nil, nil)
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) == 0 || keyShapes[k[0]] != len(k) {
			v.find(FindKey, fmt.Sprintf("%.40x", k), "no such key is in the format")
		}
	}
	return readError(errors.Join(it.Error(), it.Close()))
}

func (v *verifier) readMeta() error {
	b, ok, err := v.l.get([]byte{keyMeta})
	if err != nil {
		return err
	}
	switch {
	case !ok:
		v.find(FindMeta, "meta", "the meta record is missing")
	case len(b) != metaSize && len(b) != metaSize+8 || binary.BigEndian.Uint16(b) != Format:
		v.find(FindMeta, "meta", "the meta record does not decode")
	default:
		v.incarnation, v.writer = binary.BigEndian.Uint64(b[2:]), fcp.WriterID(b[10:metaSize])
		if len(b) > metaSize {
			v.before = binary.BigEndian.Uint64(b[metaSize:])
		}
		if v.incarnation == 0 || v.writer.IsZero() {
			v.find(FindMeta, "meta", "the meta record names no writer or no incarnation")
		}
	}
	return nil
}

func (v *verifier) readFeeds() error {
	return v.l.scanPrefix([]byte{keyFeed}, func(k, b []byte) error {
		if len(k) != 5 {
			return nil
		}
		no := FeedNo(binary.BigEndian.Uint32(k[1:]))
		where := fmt.Sprintf("feed %d", no)
		f, err := decodeFeed(b)
		if err != nil {
			return v.damage(FindFeed, where, err)
		}
		v.order = append(v.order, no)
		if int(no) != len(v.order) {
			v.find(FindFeed, where, "feed numbers are not consecutive")
		}
		v.feeds[no] = &verifiedFeed{no: no, feed: f, id: f.ID(), whole: true,
			own: f.Writer == v.writer && f.Incarnation == v.incarnation}
		v.report.Feeds++
		return nil
	})
}

// readPositions checks that position records follow each other without a gap
// and sorts them by feed.
func (v *verifier) readPositions() error {
	next := uint64(1)
	err := v.l.scanPrefix([]byte{keyPosition}, func(k, b []byte) error {
		p, err := parsePosition(k, b)
		where := fmt.Sprintf("position %d", next)
		if err != nil {
			return v.damage(FindPosition, where, err)
		}
		v.report.Positions++
		if p.position != next || p.position+p.count < p.position {
			v.find(FindPosition, where, "the next record is of position %d", p.position)
		}
		next = p.position + p.count
		f := v.feeds[p.feed]
		if f == nil {
			v.find(FindPosition, where, "the record names feed %d, which has no record", p.feed)
			return nil
		}
		f.mapped = mergeRuns(f.mapped, []positionRange{p})
		return nil
	})
	v.report.Durable = next - 1
	return err
}

// mergeFeedRuns joins runs that continue each other in position and sequence.
func mergeFeedRuns(runs []positionRange) []positionRange {
	var out []positionRange
	for _, r := range runs {
		if n := len(out); n > 0 && out[n-1].position+out[n-1].count == r.position && out[n-1].first+out[n-1].count == r.first {
			out[n-1].count += r.count
			continue
		}
		out = append(out, positionRange{position: r.position, first: r.first, count: r.count})
	}
	return out
}

// checkPositions compares both directions of the map between positions and
// events: each feed's position records against its blocks and index rows.
func (v *verifier) checkPositions() error {
	for _, no := range v.order {
		f := v.feeds[no]
		if f.ended > 0 {
			continue
		}
		where := fmt.Sprintf("feed %d", no)
		mapped, runs := mergeFeedRuns(f.mapped), mergeFeedRuns(f.runs)
		if !slices.Equal(mapped, runs) {
			v.find(FindPosition, where, "its events and the position records do not agree")
		}
		next := uint64(1)
		for _, r := range mapped {
			if r.first != next {
				v.find(FindPosition, where, "position %d is of event %d, not of %d", r.position, r.first, next)
				break
			}
			next += r.count
		}
		if next != f.head.seq+1 {
			v.find(FindPosition, where, "%d events have positions, the feed has %d", next-1, f.head.seq)
		}
	}
	return nil
}

// checkSegments looks for segments that no feed names, and frames without a
// segment.
func (v *verifier) checkSegments() error {
	ids := map[fcp.SegmentID]bool{}
	err := v.l.scanPrefix([]byte{keySegment}, func(k, b []byte) error {
		no := binary.BigEndian.Uint64(k[1:])
		where := fmt.Sprintf("segment number %d", no)
		rem, err := DecodeRemainder(b)
		if err != nil {
			return v.damage(FindSegment, where, err)
		}
		ids[fcp.SegmentID(rem.Segment)] = true
		owner, ok := v.segments[no]
		if !ok {
			v.find(FindSegment, where, "no feed's index names it")
			return nil
		}
		if f := v.feeds[owner]; f.own && v.readable(f.feed.Zone) && !v.announced[fcp.SegmentID(rem.Segment)] {
			v.find(FindSegment, where, "no event announces it")
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = v.l.scanPrefix([]byte{keyByID}, func(k, _ []byte) error {
		if !ids[fcp.SegmentID(k[1:])] {
			v.find(FindSegment, fmt.Sprintf("segment %.8x", k[1:]), "the index by id names it, there is no such segment")
		}
		return nil
	})
	if err != nil {
		return err
	}
	replaced, err := v.checkReplaced(ids)
	if err != nil {
		return err
	}
	for id := range v.announced {
		if !ids[id] && !replaced[id] {
			v.find(FindSegment, "segment "+id.String()[:16], "an event announces it, there is no such segment")
		}
	}
	last := uint64(0)
	return v.l.scanPrefix([]byte{keyFrame}, func(k, _ []byte) error {
		no := binary.BigEndian.Uint64(k[1:])
		if _, ok := v.segments[no]; !ok && no != last {
			last = no
			v.note(FindOrphan, fmt.Sprintf("segment number %d", no), "frames of a seal that was not finished")
		}
		return nil
	})
}

// checkReplaced follows the records of replaced segments to segments that are
// there, and returns the ids that lead to one.
func (v *verifier) checkReplaced(ids map[fcp.SegmentID]bool) (map[fcp.SegmentID]bool, error) {
	by := map[fcp.SegmentID]fcp.SegmentID{}
	err := v.l.scanPrefix([]byte{keyReplaced}, func(k, b []byte) error {
		if len(k) == 1+fcp.HashSize && len(b) == fcp.HashSize {
			by[fcp.SegmentID(k[1:])] = fcp.SegmentID(b)
			return nil
		}
		v.find(FindSegment, fmt.Sprintf("segment %.8x", k[1:]), "the record of what replaced it does not decode")
		return nil
	})
	out := map[fcp.SegmentID]bool{}
	for id := range by {
		end := id
		for steps := 0; !ids[end] && steps <= len(by); steps++ {
			end = by[end]
		}
		if out[id] = ids[end]; !out[id] || ids[id] {
			v.find(FindSegment, "segment "+id.String()[:16], "it is said to be replaced, and is there or leads to no segment")
		}
	}
	return out, err
}

// readable says whether every event of this store's control feed of a zone was
// seen.
func (v *verifier) readable(zone fcp.ZoneID) bool {
	for _, f := range v.feeds {
		if f.own && f.feed.Zone == zone && f.feed.Plane == fcp.PlaneControl {
			return f.ended == 0 && (f.last == nil || v.o.Sealer != nil && v.allOpened())
		}
	}
	return true
}

func (v *verifier) allOpened() bool { return v.report.Opened == v.report.Segments }

func (v *verifier) checkSalts() error {
	return v.l.scanPrefix([]byte{keySalts}, func(k, b []byte) error {
		no, first := splitSeqKey(k)
		where := fmt.Sprintf("salts of feed %d, event %d", no, first)
		v.report.Salts++
		f := v.feeds[no]
		switch {
		case f == nil:
			v.find(FindSalts, where, "there is no such feed")
		case len(b) == 0 || len(b)%SaltSize != 0:
			v.find(FindSalts, where, "the record has %d bytes", len(b))
		case f.ended == 0 && (first == 0 || first+uint64(len(b)/SaltSize)-1 > f.head.seq):
			v.find(FindSalts, where, "salts for events that do not exist")
		}
		return nil
	})
}

func (v *verifier) readMark() error {
	var err error
	if v.slots, err = readMark(v.l.fs, v.l.fs.PathJoin(v.l.dir, markName)); err != nil {
		return err
	}
	v.marked = map[FeedNo]map[uint64]fcp.Hash{}
	for i := 0; i+markSlot <= len(v.slots); i += markSlot {
		m, ok := decodeMark(v.slots[i : i+markSlot])
		if !ok {
			continue
		}
		for _, w := range m.feeds {
			if v.marked[w.no] == nil {
				v.marked[w.no] = map[uint64]fcp.Hash{}
			}
			v.marked[w.no][w.seq] = w.hash
		}
	}
	return nil
}

// checkMark compares the log with the high-water mark.
func (v *verifier) checkMark() error {
	m, found := newestMark(v.slots)
	v.report.Mark = m.position
	if found && v.report.Durable > m.position && !v.o.Closed {
		v.report.Crashed = true // a clean close writes the mark last
	}
	torn := v.find
	if v.report.Crashed {
		torn = func(_, where, format string, args ...any) { v.note(FindInterrupted, where, format, args...) }
	}
	switch {
	case v.slots == nil && v.report.Durable > 0:
		v.find(FindMark, markName, "the file is missing")
	case v.slots != nil && len(v.slots) != 2*markSlot:
		torn(FindMark, markName, "the file has %d bytes", len(v.slots))
	case !found && v.report.Durable > 0 && !v.report.Crashed:
		v.find(FindMark, markName, "no slot holds a mark")
	}
	for i := 0; i+markSlot <= len(v.slots); i += markSlot {
		s := v.slots[i : i+markSlot]
		if _, ok := decodeMark(s); !ok && (v.report.Durable > 0 || !allZeros(s)) {
			torn(FindMark, fmt.Sprintf("%s slot %d", markName, i/markSlot), "the slot fails its checksum")
		}
	}
	if found && m.incarnation != v.incarnation && (v.before == 0 || m.incarnation != v.before) {
		v.find(FindMark, markName, "the mark is of another incarnation")
	}
	if m.position > v.report.Durable {
		v.find(FindTailLost, markName, "the log ends at position %d, %d was acknowledged", v.report.Durable, m.position)
	}
	for _, w := range m.feeds {
		if f := v.feeds[w.no]; f == nil || f.ended == 0 && f.head.seq < w.seq {
			v.find(FindTailLost, fmt.Sprintf("feed %d", w.no), "event %d was acknowledged and is missing", w.seq)
		}
	}
	switch {
	case v.report.Durable <= m.position:
	case v.report.Crashed:
		v.report.Doubt = v.report.Durable - m.position
	default:
		v.find(FindMark, markName, "the store was closed at position %d, the mark says %d", v.report.Durable, m.position)
	}
	return nil
}

func allZeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
