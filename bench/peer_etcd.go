package main

import (
	"path/filepath"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
)

// etcdWAL is etcd's write-ahead log: one Save per group, which ends with an
// fdatasync. Its entries are kept and filled anew for each group.
type etcdWAL struct {
	wal     *wal.WAL
	next    uint64
	entries []*raftpb.Entry
}

func openEtcdWAL(dir string) (batchStore, error) {
	w, err := wal.Create(nil, filepath.Join(dir, "wal"), nil)
	if err != nil {
		return nil, err
	}
	return &etcdWAL{wal: w, next: 1}, nil
}

func (e *etcdWAL) commit(b *batch) error {
	n := len(b.ends)
	for len(e.entries) < n {
		e.entries = append(e.entries, &raftpb.Entry{Term: new(uint64(1)), Index: new(uint64)})
	}
	for i, entry := range e.entries[:n] {
		*entry.Index = e.next
		entry.Data = b.record(i)
		e.next++
	}
	return e.wal.Save(&raftpb.HardState{}, e.entries[:n])
}

func (e *etcdWAL) close() error { return e.wal.Close() }
