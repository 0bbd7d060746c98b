package main

import (
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
)

// raftWAL is hashicorp's raft-wal: one StoreLogs per group, which ends with an
// fsync. Its entries are kept and filled anew for each group.
type raftWAL struct {
	wal  *raftwal.WAL
	next uint64
	logs []*raft.Log
}

func openRaftWAL(dir string) (batchStore, error) {
	w, err := raftwal.Open(dir, raftwal.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		return nil, err
	}
	return &raftWAL{wal: w, next: 1}, nil
}

func (r *raftWAL) commit(b *batch) error {
	n := len(b.ends)
	for len(r.logs) < n {
		r.logs = append(r.logs, &raft.Log{Term: 1, Type: raft.LogCommand})
	}
	for i, l := range r.logs[:n] {
		l.Index = r.next
		l.Data = b.record(i)
		r.next++
	}
	return r.wal.StoreLogs(r.logs[:n])
}

func (r *raftWAL) close() error { return r.wal.Close() }
