package main

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"sync/atomic"

	"go.etcd.io/bbolt"
)

var bboltBucket = []byte("events")

// bboltGroup is bbolt behind the group committer: one read-write transaction per
// group with a Put per event under its position, which ends with an fdatasync.
type bboltGroup struct {
	db   *bbolt.DB
	next uint64
}

func openBbolt(dir string) (*bbolt.DB, error) {
	db, err := bbolt.Open(filepath.Join(dir, "bolt"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	return db, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bboltBucket)
		return err
	})
}

func openBboltGroup(dir string) (batchStore, error) {
	db, err := openBbolt(dir)
	if err != nil {
		return nil, err
	}
	return &bboltGroup{db: db}, nil
}

func (p *bboltGroup) commit(b *batch) error {
	return p.db.Update(func(tx *bbolt.Tx) error {
		events := tx.Bucket(bboltBucket)
		events.FillPercent = 1 // positions ascend: pages are filled and left
		for i := range b.ends {
			p.next++
			if err := events.Put(binary.BigEndian.AppendUint64(nil, p.next), b.record(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *bboltGroup) close() error { return p.db.Close() }

// bboltOwn is bbolt with its own way of joining writers, Batch.
type bboltOwn struct {
	db   *bbolt.DB
	next atomic.Uint64
}

func openBboltOwn(_ context.Context, dir string, _ Workload) (Appender, error) {
	db, err := openBbolt(dir)
	if err != nil {
		return nil, err
	}
	db.MaxBatchDelay = 0 // it waits 10 ms for company otherwise
	return &bboltOwn{db: db}, nil
}

func (p *bboltOwn) Append(_ context.Context, _ int, payload []byte) error {
	key := binary.BigEndian.AppendUint64(nil, p.next.Add(1))
	return p.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bboltBucket).Put(key, payload) })
}

func (p *bboltOwn) Close() error { return p.db.Close() }
