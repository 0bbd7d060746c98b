package main

import (
	"context"
	"encoding/binary"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// badgerGroup is Badger behind the group committer: one transaction per group,
// with SyncWrites.
type badgerGroup struct {
	db   *badger.DB
	next uint64
}

func openBadger(dir string) (*badger.DB, error) {
	return badger.Open(badger.DefaultOptions(dir).WithSyncWrites(true).WithLogger(nil))
}

func openBadgerGroup(dir string) (batchStore, error) {
	db, err := openBadger(dir)
	if err != nil {
		return nil, err
	}
	return &badgerGroup{db: db}, nil
}

func (p *badgerGroup) commit(b *batch) error {
	return p.db.Update(func(tx *badger.Txn) error {
		for i := range b.ends {
			p.next++
			if err := tx.Set(binary.BigEndian.AppendUint64(nil, p.next), b.record(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *badgerGroup) close() error { return p.db.Close() }

// badgerOwn is Badger with a transaction per event, which its own write channel joins.
type badgerOwn struct {
	db   *badger.DB
	next atomic.Uint64
}

func openBadgerOwn(_ context.Context, dir string, _ Workload) (Appender, error) {
	db, err := openBadger(dir)
	if err != nil {
		return nil, err
	}
	return &badgerOwn{db: db}, nil
}

func (p *badgerOwn) Append(_ context.Context, _ int, payload []byte) error {
	key := binary.BigEndian.AppendUint64(nil, p.next.Add(1))
	return p.db.Update(func(tx *badger.Txn) error { return tx.Set(key, payload) })
}

func (p *badgerOwn) Close() error { return p.db.Close() }
