package node

import (
	"cmp"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"fcp"
)

// Pre-staging brings names that this device reads often before it reads them again. The
// record it goes by is bounded, on this device alone, and can be switched off.

// Constants of the predictor.
const (
	accessHalf  = 7 * 24 * time.Hour // after this time an access counts half
	accessOne   = 1 << 16            // what one access counts when it happens
	accessMost  = 1 << 40            // score at which more accesses make no difference
	maxAccesses = 4096               // names that are remembered: the best
)

// Constants of staging.
const (
	stageEvery  = 10 * time.Minute // rounds
	stageNames  = 256              // names of a round, the best
	stageAtHalf = accessOne / 2    // score below which nothing is staged: one access a week ago
	// StageBudget bounds the bytes of segments that a round brings.
	StageBudget = 256 << 20
)

type accessKey struct {
	zone fcp.ZoneID
	key  string
}

// accessScore counts accesses; each counts half after accessHalf.
type accessScore struct {
	score uint64 // at, of accessOne for each
	at    int64  // unix seconds
}

// now returns the score at a time. It halves each accessHalf, on a straight line in
// between, so it never grows and a common shift of all times changes no order.
func (a accessScore) now(at int64) uint64 {
	const half = int64(accessHalf / time.Second)
	d := max(at-a.at, 0)
	if d/half >= 48 {
		return 0
	}
	s := a.score >> (d / half)
	return s - (s/2)*uint64(d%half)/uint64(half)
}

// accesses is what this device remembers of its reads. Safe for concurrent use.
type accesses struct {
	mu     sync.Mutex
	off    bool                      // guarded by mu
	scores map[accessKey]accessScore // guarded by mu
	dirty  bool                      // guarded by mu
}

// touch notes a read.
func (a *accesses) touch(now time.Time, zone fcp.ZoneID, key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.off || key == "" || len(key) > fcp.MaxKey || !utf8.ValidString(key) || !zone.Valid() {
		return
	}
	at, k := now.Unix(), accessKey{zone, key}
	s, known := a.scores[k]
	if !known && len(a.scores) >= maxAccesses {
		a.forgetLeast(at)
	}
	if a.scores == nil {
		a.scores = map[accessKey]accessScore{}
	}
	a.scores[k] = accessScore{min(s.now(at)+accessOne, accessMost), max(at, s.at)}
	a.dirty = true
}

// forgetLeast makes room: of the eighth that counts least. The caller holds mu.
func (a *accesses) forgetLeast(at int64) {
	all := a.ranked(at)
	for _, x := range all[len(all)-maxAccesses/8:] {
		delete(a.scores, accessKey{x.Zone, x.Key})
	}
}

// Access is a name and how often it was read of late.
type Access struct {
	Zone  fcp.ZoneID
	Key   string
	Score uint64 // 65536 for a read now, half of it for one a week ago, and so on, added up
}

// ranked returns all names, the most wanted first. The caller holds mu.
func (a *accesses) ranked(at int64) []Access {
	out := make([]Access, 0, len(a.scores))
	for k, s := range a.scores {
		out = append(out, Access{k.zone, k.key, s.now(at)})
	}
	slices.SortFunc(out, func(x, y Access) int {
		return cmp.Or(-cmp.Compare(x.Score, y.Score), cmp.Compare(x.Zone, y.Zone), cmp.Compare(x.Key, y.Key))
	})
	return out
}

// accessList is the record on disk.
type accessList struct {
	Off     bool          `cbor:"off,omitempty"`
	Entries []accessEntry `cbor:"entries"` // ascending by zone and key
}

type accessEntry struct {
	Zone  fcp.ZoneID `cbor:"zone"`
	Key   string     `cbor:"key"`
	Score uint64     `cbor:"score"` // at, 65536 for each access
	At    uint64     `cbor:"at"`    // unix seconds
}

func compareAccess(a, b accessEntry) int {
	return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Key, b.Key))
}

func (a *accesses) encode() ([]byte, error) {
	a.mu.Lock()
	l := accessList{Off: a.off, Entries: make([]accessEntry, 0, len(a.scores))}
	for k, s := range a.scores {
		l.Entries = append(l.Entries, accessEntry{k.zone, k.key, s.score, uint64(max(s.at, 0))})
	}
	a.mu.Unlock()
	slices.SortFunc(l.Entries, compareAccess)
	return fcp.Marshal(&l)
}

// decodeAccesses decodes a record strictly.
func decodeAccesses(b []byte) (*accessList, error) {
	var l accessList
	if err := fcp.Unmarshal(b, &l); err != nil {
		return nil, err
	}
	if len(l.Entries) > maxAccesses {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a record of %d accesses", len(l.Entries))
	}
	for i, x := range l.Entries {
		if !x.Zone.Valid() || x.Key == "" || len(x.Key) > fcp.MaxKey || x.Score > accessMost || x.At > 1<<40 || i > 0 && compareAccess(l.Entries[i-1], x) >= 0 {
			return nil, fcp.Errorf(fcp.CodeMalformed, "entry %d of a record of accesses", i+1)
		}
	}
	return &l, nil
}

func (a *accesses) load(l *accessList) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.off, a.scores = l.Off, map[accessKey]accessScore{}
	for _, x := range l.Entries {
		a.scores[accessKey{x.Zone, x.Key}] = accessScore{x.Score, int64(x.At)}
	}
}

// Accessed notes that a name was read on this device.
func (n *Node) Accessed(zone fcp.ZoneID, key string) { n.accesses.touch(n.now(), zone, key) }

// Accesses returns the names that are remembered, the most wanted first, and whether
// reads are remembered at all.
func (n *Node) Accesses() (list []Access, on bool) {
	n.accesses.mu.Lock()
	defer n.accesses.mu.Unlock()
	return n.accesses.ranked(n.now().Unix()), !n.accesses.off
}

// SetStaging switches pre-staging, and the record that it goes by, on or off. Off
// forgets the record.
func (n *Node) SetStaging(on bool) error {
	n.accesses.mu.Lock()
	n.accesses.off, n.accesses.dirty = !on, true
	if !on {
		clear(n.accesses.scores)
	}
	n.accesses.mu.Unlock()
	return n.keepAccesses()
}

// loadAccesses takes up what was kept. What does not decode is left.
func (n *Node) loadAccesses() error {
	b, err := n.engine.LoadAccesses()
	if err != nil || b == nil {
		return err
	}
	l, err := decodeAccesses(b)
	if err != nil {
		n.logger.Warn("the record of accesses does not decode", "err", err)
		return nil
	}
	n.accesses.load(l)
	return nil
}

// keepAccesses writes the record when it changed.
func (n *Node) keepAccesses() error {
	n.accesses.mu.Lock()
	dirty := n.accesses.dirty
	n.accesses.dirty = false
	n.accesses.mu.Unlock()
	if !dirty {
		return nil
	}
	b, err := n.accesses.encode()
	if err != nil {
		return err
	}
	return n.engine.KeepAccesses(b)
}

// stageLoop brings from time to time what this device is likely to read next, while it
// has mains power or none to speak of, and a network that is not metered.
func (n *Node) stageLoop() {
	t := time.NewTicker(stageEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-n.life.Done():
			return
		}
		if err := n.keepAccesses(); err != nil {
			n.logger.Warn("the record of accesses was not kept", "err", err)
		}
		if p := n.profile(); p.Thrifty() || len(n.everySession()) == 0 {
			continue
		}
		if err := n.stage(); err != nil && n.life.Err() == nil {
			n.logger.Warn("nothing was staged", "err", err)
		}
	}
}

// stage makes one round of staging.
func (n *Node) stage() error {
	list, on := n.Accesses()
	list = list[:min(len(list), stageNames)]
	for i, x := range list {
		if x.Score < stageAtHalf {
			list = list[:i]
			break
		}
	}
	if !on || len(list) == 0 {
		return nil
	}
	p, err := n.planPack(n.life, list, false, false, StageBudget)
	if err != nil {
		return err
	}
	if came := p.fetch(n.life); came > 0 {
		n.logger.Debug("names that are read often were brought", "bytes", came)
	}
	return nil
}
