package log

import (
	"bytes"
	"context"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// ForgottenSalt stands in the key table where a salt was forgotten, so that it can
// be told from one that is missing: sixteen bytes of ones, which no writer draws.
var ForgottenSalt = [SaltSize]byte(bytes.Repeat([]byte{0xff}, SaltSize))

// Place names an event of this store.
type Place struct {
	Feed FeedNo
	Seq  uint64
}

// ForgetSalts destroys key-table entries: in one synced batch each becomes
// ForgottenSalt, then the tables that hold the old ones are rewritten. What had
// been synced to the disk before is unlinked, not overwritten.
func (l *Log) ForgetSalts(ctx context.Context, places []Place) error {
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	if err := l.writable(); err != nil || len(places) == 0 {
		return err
	}
	b := l.db.NewIndexedBatch() // a row may hold several of the entries
	defer b.Close()
	low, high := []byte{keySalts + 1}, []byte{keySalts}
	for _, p := range places {
		key, err := forgetSalt(b, p)
		if err != nil {
			return err
		}
		if bytes.Compare(key, low) < 0 {
			low = key
		}
		if bytes.Compare(key, high) > 0 {
			high = key
		}
	}
	if err := l.db.Apply(b, pebble.Sync); err != nil {
		return l.crash(err)
	}
	err := l.abandonable(func() error {
		if err := l.db.Flush(); err != nil {
			return err
		}
		return l.db.Compact(context.WithoutCancel(ctx), low, append(high, 0), false)
	})
	return wrapDisk(err, "rewriting the key table")
}

// forgetSalt marks one entry and returns the key of its row.
func forgetSalt(b *pebble.Batch, p Place) ([]byte, error) {
	it, err := b.NewIter(&pebble.IterOptions{LowerBound: keyOfSeq(keySalts, p.Feed, 0), UpperBound: keyOfSeq(keySalts, p.Feed, p.Seq+1)})
	if err != nil {
		return nil, readError(err)
	}
	key, row := keyOfSeq(keySalts, p.Feed, p.Seq), bytes.Clone(ForgottenSalt[:])
	if it.Last() {
		_, first := splitSeqKey(it.Key())
		if off := int(p.Seq-first) * SaltSize; off+SaltSize <= len(it.Value()) {
			key, row = bytes.Clone(it.Key()), bytes.Clone(it.Value())
			copy(row[off:], ForgottenSalt[:])
		}
	}
	if err := readError(it.Close()); err != nil {
		return nil, err
	}
	return key, fcp.Wrap(fcp.CodeDisk, b.Set(key, row, nil), "writing the key table")
}
