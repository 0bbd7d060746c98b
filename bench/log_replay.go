package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// replayEvents is the length of the log that the replay rows read.
const replayEvents = 1_000_000

// benchSeal seals segments as the engine does: with a zone's real keys.
type benchSeal struct {
	keys *authority.ZoneKeys
	key  ed25519.PrivateKey
}

func newBenchSeal() (*benchSeal, error) {
	keys, err := authority.NewZoneKeys(rand.Reader, fcp.ZonePrivate)
	return &benchSeal{keys, benchKey()}, err
}

func (s *benchSeal) Public() ed25519.PublicKey           { return s.key.Public().(ed25519.PublicKey) }
func (s *benchSeal) Sign(message []byte) ([]byte, error) { return ed25519.Sign(s.key, message), nil }

func runAddress(r log.Run) []byte { return fmt.Appendf(nil, "%s/%d/%d", r.Feed.ID(), r.First, r.Last) }

func (s *benchSeal) NewSegment(r log.Run) (log.SegmentCipher, []byte, fcp.Hash, error) {
	k, err := authority.NewSegmentKey(rand.Reader)
	if err != nil {
		return nil, nil, fcp.Hash{}, err
	}
	wrapped, err := s.keys.WrapSegmentKey(rand.Reader, k, runAddress(r))
	if err != nil {
		return nil, nil, fcp.Hash{}, err
	}
	c, err := k.Cipher(runAddress(r))
	return c, wrapped[:], s.keys.IDs().Zone.Hash(), err
}

func (s *benchSeal) OpenSegment(r log.Run, wrapped []byte, _ fcp.Hash) (log.SegmentCipher, error) {
	k, err := s.keys.UnwrapSegmentKey(wrapped, runAddress(r))
	if err != nil {
		return nil, err
	}
	return k.Cipher(runAddress(r))
}

// logOptions are those of all rows over a filled log.
func logOptions(seal *benchSeal) log.Options {
	o := log.Options{Writer: benchWriter(), Create: true}
	if seal != nil {
		o.Sealer, o.Signer = seal, seal
	}
	return o
}

// fillLog appends n opaque events of the given size, in large groups.
func fillLog(ctx context.Context, dir string, o log.Options, n, size int) (err error) {
	l, err := log.Open(dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	const batch = 256
	drafts := make([]log.Draft, batch)
	body := randomBytes(1, size)
	for i := range drafts {
		drafts[i] = log.Draft{Zone: fcp.ZonePrivate, Plane: fcp.PlaneData, Content: fcp.Content{Kind: fcp.KindOpaque, Body: body}}
	}
	for ; n > 0; n -= batch {
		if _, err := l.Append(ctx, drafts[:min(batch, n)]); err != nil {
			return err
		}
	}
	if o.Sealer == nil {
		return nil
	}
	_, err = l.Seal(ctx, log.SealOptions{All: true})
	return err
}

// logReplays are the ways to read a log.
var logReplays = []struct {
	name   string
	sealed bool
	scan   log.ScanOptions
	cores  int
}{
	{"hot", false, log.ScanOptions{}, 1},
	{"sealed", true, log.ScanOptions{}, 1},
	{"verified", false, log.ScanOptions{Verify: log.VerifyChain}, 1},
	{"tree", false, log.ScanOptions{Verify: log.VerifyTree}, 1},
	{"hot/cores=2", false, log.ScanOptions{Workers: 2}, 2},
	{"sealed/cores=2", true, log.ScanOptions{Workers: 2}, 2},
	{"verified/cores=2", false, log.ScanOptions{Verify: log.VerifyChain, Workers: 2}, 2},
	{"tree/cores=2", false, log.ScanOptions{Verify: log.VerifyTree, Workers: 2}, 2},
}

// logReplayRows read a filled log from end to end: events a second.
func logReplayRows() []Row {
	const size = 256
	var rows []Row
	for _, r := range logReplays {
		limit := readLimit(int64(replayEvents)*(size+20), replayEvents)
		rows = append(rows, Row{Name: fmt.Sprintf("replay/log/%dB/%s", size, r.name), Unit: "events/s", Limit: &limit,
			Subjects: []Subject{logSubject(r.sealed, func(ctx context.Context, l *log.Log) Session {
				return onCores{r.cores, perSecond(func() (int64, int64, error) { return scanAll(ctx, l, replayEvents, r.scan) })}
			})}})
	}
	return rows
}

// logSubject is a row over a log of replayEvents events of 256 bytes.
func logSubject(sealed bool, session func(context.Context, *log.Log) Session) Subject {
	var seal *benchSeal
	return Subject{Name: "log",
		Setup: func(ctx context.Context, dirs Dirs) (err error) {
			if sealed {
				if seal, err = newBenchSeal(); err != nil {
					return err
				}
			}
			return fillLog(ctx, filepath.Join(dirs.Row, "log"), logOptions(seal), replayEvents, 256)
		},
		Open: func(ctx context.Context, dirs Dirs) (Session, error) {
			l, err := log.Open(filepath.Join(dirs.Row, "log"), logOptions(seal))
			if err != nil {
				return nil, err
			}
			return closingLog{l, session(ctx, l)}, nil
		},
	}
}

// scanAll scans a log of at least so many events.
func scanAll(ctx context.Context, l *log.Log, least int64, o log.ScanOptions) (events, bytes int64, err error) {
	err = l.Scan(ctx, o, func(batch []log.Applied) error {
		events += int64(len(batch))
		for i := range batch {
			bytes += int64(len(batch[i].Content.Body))
		}
		return nil
	})
	if err == nil && events < least {
		err = fmt.Errorf("the scan gave %d events", events)
	}
	return events, bytes, err
}

type closingLog struct {
	l *log.Log
	Session
}

func (c closingLog) Close() error { return errors.Join(c.Session.Close(), c.l.Close()) }

// onCores runs a session on so many processors.
type onCores struct {
	n int
	Session
}

func (o onCores) Run(ctx context.Context, d time.Duration) (Sample, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(o.n))
	return o.Session.Run(ctx, d)
}

// logSealRows measure sealing: MB/s of plaintext records.
func logSealRows() []Row {
	const events, size = 200_000, 256
	limit := writeLimit(events*(size+20), 0)
	return []Row{{Name: "seal/log/256B", Unit: "MB/s", Limit: &limit, Subjects: []Subject{{Name: "log", NoWarmUp: true,
		Open: func(ctx context.Context, dirs Dirs) (Session, error) {
			seal, err := newBenchSeal()
			if err != nil {
				return nil, err
			}
			n := 0
			return sessionFunc(func(ctx context.Context, _ time.Duration) (Sample, error) {
				n++
				dir := filepath.Join(dirs.Round, fmt.Sprint(n))
				if err := fillLog(ctx, dir, logOptions(nil), events, size); err != nil {
					return Sample{}, err
				}
				l, err := log.Open(dir, logOptions(seal))
				if err != nil {
					return Sample{}, err
				}
				start := time.Now()
				_, err = l.Seal(ctx, log.SealOptions{All: true})
				took := time.Since(start)
				var plain int64
				err = errors.Join(err, l.Segments(func(s log.SegmentInfo) error {
					plain += int64(s.Remainder.Plain)
					return nil
				}), l.Close())
				return Sample{Value: float64(plain) / 1e6 / took.Seconds(), Ops: events, Bytes: plain}, err
			}), nil
		}}}}}
}

// logGetRows measure reading one event by its place, warm.
func logGetRows() []Row {
	limit := scanLimit(64<<10, 1)
	var seal *benchSeal
	return []Row{{Name: "get/log/256B/sealed-warm", Unit: "events/s", Limit: &limit, Subjects: []Subject{{Name: "log",
		Setup: func(ctx context.Context, dirs Dirs) (err error) {
			if seal, err = newBenchSeal(); err != nil {
				return err
			}
			return fillLog(ctx, filepath.Join(dirs.Row, "log"), logOptions(seal), 50_000, 256)
		},
		Open: func(ctx context.Context, dirs Dirs) (Session, error) {
			l, err := log.Open(filepath.Join(dirs.Row, "log"), logOptions(seal))
			if err != nil {
				return nil, err
			}
			seq := uint64(0)
			return closingLog{l, perSecond(func() (int64, int64, error) {
				seq = (seq*48271 + 11) % 50_000
				_, _, err := l.Read(1, seq+1)
				return 1, 256, err
			})}, nil
		}}}}}
}
