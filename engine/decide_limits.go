package engine

import (
	"errors"
	"io/fs"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
)

// spent is what was used of one token or grant.
type spent struct {
	calls, bytes, until uint64
	root                fcp.Hash // of a narrowed token: the ref of the first of its chain; else zero
}

// MaxNarrowed is how many limited tokens, narrowed from one that a node minted, can be
// in use here at a time. A holder narrows as often as it likes, and each of its
// tokens is remembered until it ends: more than these are refused, so that no holder
// fills the memory that the limits of others are in.
const MaxNarrowed = 1024

// limits implements authority.Limits over what this node spent, for one request.
type limits struct {
	e *Engine
	f *ZoneFacts
	r *authority.Request
}

const usedUp = 1<<64 - 1

func (l limits) Used(ref fcp.Hash) (calls, bytes uint64) {
	s := &l.e.decisions
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.e.loadSpent() != nil {
		return usedUp, usedUp // what cannot be read counts as used up
	}
	return locked{l}.Used(ref)
}

// RateExceeded implements authority.Limits: no policy of this build has a rate.
func (limits) RateExceeded(*authority.Request) bool { return false }

// locked is limits for whoever holds decisions.mu.
type locked struct{ limits }

func (l locked) Used(ref fcp.Hash) (calls, bytes uint64) {
	s := &l.e.decisions
	if s.restored > 0 && !l.issued(ref).After(time.Unix(int64(s.restored), 0)) {
		return usedUp, usedUp // the backup does not know what was used before and since
	}
	u, known := s.used[ref]
	if !known && l.crowded(ref) {
		return usedUp, usedUp
	}
	return u.calls, u.bytes
}

// root returns the ref of the first token of the chain for one narrowed from it; zeros
// for any other ref.
func (l limits) root(ref fcp.Hash) (root fcp.Hash) {
	if refs := l.r.Token.Refs(); slices.Index(refs, ref) > 0 {
		root = refs[0]
	}
	return root
}

// crowded reports whether too many narrowed tokens of the same origin are in use.
func (l locked) crowded(ref fcp.Hash) bool {
	root, now, n := l.root(ref), l.e.env.Now().Unix(), 0
	if root.IsZero() {
		return false
	}
	for _, u := range l.e.decisions.used {
		if u.root == root && int64(u.until) >= now {
			n++
		}
	}
	return n >= MaxNarrowed
}

// issued returns when a token of the request or a grant was signed; long ago for
// anything else.
func (l limits) issued(ref fcp.Hash) time.Time {
	if g := l.f.grants[ref]; g != nil {
		return g.IssuedAt()
	}
	if i := slices.Index(l.r.Token.Refs(), ref); i >= 0 {
		if t, err := authority.InspectToken(l.r.Token.Tokens()[i]); err == nil {
			return t.IssuedAt
		}
	}
	return time.Time{}
}

// spend decides again with the counters standing still, and counts the use. A token
// or grant without limits costs nothing.
func (e *Engine) spend(f *ZoneFacts, r *authority.Request, d authority.Decision) (authority.Decision, error) {
	limited := e.limited(f, r, &d)
	if len(limited) == 0 {
		return d, nil
	}
	s := &e.decisions
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := e.loadSpent(); err != nil {
		return d, err
	}
	now := e.env.Now()
	facts, _, err := f.Facts(r.Principal, r.Tier, now)
	if err != nil {
		return d, err
	}
	facts.Executor, facts.Limits, facts.Leases, facts.Cache = e.executor(f, now), locked{limits{e, f, r}}, leasesView{e, f}, s.cache
	if d = authority.Decide(facts, r); !d.Allowed() {
		return d, nil
	}
	for ref, until := range e.limited(f, r, &d) {
		u := s.used[ref]
		s.used[ref] = spent{u.calls + 1, u.bytes + r.Bytes, max(u.until, until), limits{e, f, r}.root(ref)}
	}
	return d, e.saveSpent(now)
}

// limited returns which of the refs that a decision charges have limits, and until
// when (unix seconds) they can be used.
func (e *Engine) limited(f *ZoneFacts, r *authority.Request, d *authority.Decision) map[fcp.Hash]uint64 {
	out := map[fcp.Hash]uint64{}
	add := func(ref fcp.Hash, c *authority.Constraints, until time.Time) {
		if (c.MaxCalls != 0 || c.MaxBytes != 0) && slices.Contains(d.Charge, ref) {
			out[ref] = max(out[ref], uint64(until.Add(authority.TokenSkew).Unix()))
		}
	}
	for _, ref := range d.Charge {
		if g := f.grants[ref]; g != nil {
			s := g.Spec()
			add(ref, &s.Constraints, s.NotAfter)
		}
	}
	for i, b := range r.Token.Tokens() {
		if t, err := authority.InspectToken(b); err == nil {
			add(r.Token.Refs()[i], &t.Constraints, t.Expires)
		}
	}
	return out
}

// fileSpent holds what was used of limited tokens and grants on this node
// (docs/format.md "SPENT"). It is on disk before the effect, so that no crash gives
// a call back. Limits count per executing node.
const (
	fileSpent = "SPENT"
	maxSpent  = 16 << 20
)

// spentFile is that file, in canonical CBOR.
type spentFile struct {
	Used     []spentEntry `cbor:"used"`        // strictly ascending by ref
	Restored uint64       `cbor:"restored_at"` // unix seconds; 0: the store was not made from a backup
}

type spentEntry struct {
	Ref   fcp.Hash `cbor:"ref"`
	Calls uint64   `cbor:"calls"`
	Bytes uint64   `cbor:"bytes"`
	Until uint64   `cbor:"until"` // unix seconds; behind it the entry is dropped
	Root  fcp.Hash `cbor:"root"`  // of a narrowed token, else zeros
}

// loadSpent reads the file once. The caller holds decisions.mu.
func (e *Engine) loadSpent() error {
	s := &e.decisions
	if s.loaded {
		return nil
	}
	b, err := readFile(e.env.FS, e.env.FS.PathJoin(e.dir, fileSpent), maxSpent)
	used, restored := map[fcp.Hash]spent{}, uint64(0)
	if err == nil {
		if used, restored, err = decodeSpent(b); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fcp.Wrap(fcp.CodeDisk, err, "read what was spent")
	}
	s.used, s.restored, s.loaded = used, restored, true
	return nil
}

func decodeSpent(b []byte) (map[fcp.Hash]spent, uint64, error) {
	var file spentFile
	if err := fcp.Unmarshal(b, &file); err != nil {
		return nil, 0, fcp.Wrap(fcp.CodeCorrupt, err, "the file %s", fileSpent)
	}
	if file.Restored > 1<<40 {
		return nil, 0, fcp.Errorf(fcp.CodeCorrupt, "the file %s has a time far ahead", fileSpent)
	}
	used := map[fcp.Hash]spent{}
	for i, x := range file.Used {
		if i > 0 && slices.Compare(file.Used[i-1].Ref[:], x.Ref[:]) >= 0 {
			return nil, 0, fcp.Errorf(fcp.CodeCorrupt, "the file %s is not in order", fileSpent)
		}
		used[x.Ref] = spent{x.Calls, x.Bytes, x.Until, x.Root}
	}
	return used, file.Restored, nil
}

// saveSpent drops what cannot be used any more and writes the rest. The caller
// holds decisions.mu.
func (e *Engine) saveSpent(now time.Time) error {
	file := spentFile{Used: []spentEntry{}, Restored: e.decisions.restored}
	for ref, u := range e.decisions.used {
		if int64(u.until) < now.Unix() {
			delete(e.decisions.used, ref)
			continue
		}
		file.Used = append(file.Used, spentEntry{ref, u.calls, u.bytes, u.until, u.root})
	}
	slices.SortFunc(file.Used, func(a, b spentEntry) int { return slices.Compare(a.Ref[:], b.Ref[:]) })
	b, err := fcp.Marshal(file)
	if err != nil {
		return err
	}
	return writeFile(e.env.FS, e.dir, fileSpent, b)
}

// forgetLimits makes every limited token and grant that was signed until now count
// as used up: after a restore nobody here knows what was used of them.
func (e *Engine) forgetLimits(now time.Time) error {
	s := &e.decisions
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used, s.restored, s.loaded = map[fcp.Hash]spent{}, uint64(max(now.Unix(), 0)), true
	return e.saveSpent(now)
}
