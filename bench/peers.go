package main

import (
	"context"
	"errors"
)

// batchStore is a log that makes one group durable at a time.
type batchStore interface {
	commit(*batch) error // called by one goroutine
	close() error
}

// grouped is a batchStore with the group committer in front.
type grouped struct {
	store     batchStore
	committer *committer
}

func newGrouped(s batchStore) *grouped {
	return &grouped{store: s, committer: newCommitter(s.commit)}
}

func (g *grouped) Append(_ context.Context, _ int, payload []byte) error {
	return g.committer.submit(payload)
}

func (g *grouped) Close() error {
	g.committer.close()
	return g.store.close()
}

// peer is another project's log, or one way of using it.
type peer struct {
	family string // in row names and in the "peers" field
	name   string
	open   func(ctx context.Context, dir string, w Workload) (Appender, error)
}

// behindCommitter opens a batchStore and puts the group committer in front.
func behindCommitter(open func(dir string) (batchStore, error)) func(context.Context, string, Workload) (Appender, error) {
	return func(_ context.Context, dir string, _ Workload) (Appender, error) {
		s, err := open(dir)
		if err != nil {
			return nil, err
		}
		return newGrouped(s), nil
	}
}

// peers in the order of the report. Pebble, bbolt and Badger come in two ways, of
// which the report takes the better.
func peers() []peer {
	return []peer{
		{family: "etcd-wal", name: "etcd-wal", open: behindCommitter(openEtcdWAL)},
		{family: "raft-wal", name: "raft-wal", open: behindCommitter(openRaftWAL)},
		{family: "pebble", name: "pebble/group", open: behindCommitter(openPebbleGroup)},
		{family: "pebble", name: "pebble/own", open: openPebbleOwn},
		{family: "bbolt", name: "bbolt/group", open: behindCommitter(openBboltGroup)},
		{family: "bbolt", name: "bbolt/own", open: openBboltOwn},
		{family: "badger", name: "badger/group", open: behindCommitter(openBadgerGroup)},
		{family: "badger", name: "badger/own", open: openBadgerOwn},
		{family: "jetstream", name: "jetstream", open: openJetStream},
	}
}

func (p peer) subject(w Workload) Subject {
	s := appendSubject(p.name, w, w.Payload, p.open)
	s.Family = p.family
	return s
}

// peerSubjects are all peers with records of w.Payload bytes.
func peerSubjects(w Workload) []Subject {
	var all []Subject
	for _, p := range peers() {
		all = append(all, p.subject(w))
	}
	return all
}

// peerRows are the peers on their own, for records of exactly the payload size.
func peerRows() []Row {
	var rows []Row
	index := map[string]int{}
	for _, p := range peers() {
		for _, w := range workloads() {
			name := "append/peer-" + p.family + "/" + w.String()
			i, ok := index[name]
			if !ok {
				limit := rawSubject(w)
				i = len(rows)
				index[name] = i
				rows = append(rows, Row{Name: name, Unit: "events/s", Limit: &limit})
			}
			rows[i].Subjects = append(rows[i].Subjects, p.subject(w))
		}
	}
	return rows
}

var errFatal = errors.New("the peer reported a fatal error")
