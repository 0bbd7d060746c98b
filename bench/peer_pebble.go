package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// openPlainPebble opens Pebble as it is shipped, but silent.
func openPlainPebble(dir string) (*pebble.DB, error) {
	return pebble.Open(dir, &pebble.Options{Logger: quiet{}})
}

// quiet drops Pebble's messages; what is fatal to it is fatal to the run.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

// Fatalf panics, since Pebble relies on it not returning.
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Errorf("%w: pebble: %s", errFatal, fmt.Sprintf(format, args...)))
}

// pebbleGroup is Pebble behind the group committer: one batch per group with a
// Set per event under its position, committed with Sync.
type pebbleGroup struct {
	db   *pebble.DB
	next uint64
}

func openPebbleGroup(dir string) (batchStore, error) {
	db, err := openPlainPebble(dir)
	if err != nil {
		return nil, err
	}
	return &pebbleGroup{db: db}, nil
}

func (p *pebbleGroup) commit(b *batch) error {
	wb := p.db.NewBatch()
	defer wb.Close()
	var key [8]byte
	for i := range b.ends {
		binary.BigEndian.PutUint64(key[:], p.next)
		p.next++
		if err := wb.Set(key[:], b.record(i), nil); err != nil {
			return err
		}
	}
	return wb.Commit(pebble.Sync)
}

func (p *pebbleGroup) close() error { return p.db.Close() }

// pebbleOwn is Pebble with every writer committing for itself, so that Pebble's
// own commit pipeline forms the groups.
type pebbleOwn struct {
	db   *pebble.DB
	next atomic.Uint64
}

func openPebbleOwn(_ context.Context, dir string, _ Workload) (Appender, error) {
	db, err := openPlainPebble(dir)
	if err != nil {
		return nil, err
	}
	return &pebbleOwn{db: db}, nil
}

func (p *pebbleOwn) Append(_ context.Context, _ int, payload []byte) error {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], p.next.Add(1))
	return p.db.Set(key[:], payload, pebble.Sync)
}

func (p *pebbleOwn) Close() error { return p.db.Close() }
