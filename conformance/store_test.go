package conformance

import (
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
	"fcp/conformance/internal/catalog"
	"fcp/engine"
	"fcp/engine/blob"
	"fcp/engine/enginetest"
	"fcp/engine/symbols"
	"fcp/log"
)

// storeEncodings runs stores through their life and returns what they wrote, by
// rule: the clear bodies of all events, objects, backup manifests and share
// manifests, and the files of the store directory.
func storeEncodings(t testing.TB, rules map[string]string) map[string][][]byte {
	t.Helper()
	out := map[string][][]byte{}
	put := func(rule string, b []byte) {
		if len(b) > 0 {
			out[rule] = append(out[rule], b)
		}
	}
	payload := func(schema string, b []byte) {
		if rules[schema] == "" {
			t.Fatalf("%s has no rule", schema)
		}
		body, err := fcp.PayloadBody(fcp.MustSchema(schema), b)
		if err != nil {
			t.Fatal(err)
		}
		put(rules[schema], body)
	}
	s := newStore(t)
	s.live()
	for _, e := range s.engines {
		s.events(e, func(ev *fcp.Event, _ authority.Salt) {
			put("Event", ev.AppendTo(nil))
			put("EventContent", ev.Content.AppendTo(nil))
			if info := ev.Kind.Info(); info.Clear && info.Schema != "" {
				payload(info.Schema, ev.Body)
			}
		})
	}
	for rule, list := range s.objects() {
		for _, b := range list {
			put(rule, b)
		}
	}
	for _, b := range s.files("/backup/manifest", "") {
		payload("fcp.core:BackupManifest@1.0.0", b)
	}
	for _, b := range s.files("/d1/shares", ".share") {
		payload("fcp.core:ShareManifest@1.0.0", b)
		if _, err := symbols.DecodeManifest(b); err != nil {
			t.Error(err)
		}
	}
	for _, b := range s.tails {
		put("Tail", b)
	}
	put("Signed", s.file("/store/SIGNED"))
	put("Proposed", s.file("/store/PROPOSED"))
	put("Spent", s.file("/store/SPENT"))
	return out
}

// clock moves on by a millisecond each time it is read.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) tick() time.Time { return c.advance(time.Millisecond) }

func (c *clock) advance(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return c.now
}

// store is a store in memory with its owner.
type store struct {
	testing.TB
	env     engine.Environment
	clock   *clock
	owner   *authority.OwnerKey
	engines []*engine.Engine
	zone    fcp.ZoneID
	tails   [][]byte // as other members keep them
}

func newStore(t testing.TB) *store {
	t.Helper()
	s := &store{TB: t, clock: &clock{now: catalog.Now}, zone: engine.DefaultZone}
	s.env = engine.Environment{FS: vfs.NewMem(), Now: s.clock.tick, Rand: enginetest.Random(1)}
	owner, err := authority.NewOwnerKey(s.env.Rand)
	s.check(err)
	s.owner = owner
	_, err = engine.Init(t.Context(), "/store", engine.InitOptions{Environment: s.env, Owner: owner, Device: "laptop"})
	s.check(err)
	s.open("/store")
	return s
}

func (s *store) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *store) open(dir string) *engine.Engine {
	s.Helper()
	e, err := engine.Open(s.Context(), dir, engine.Options{Environment: s.env, NoBallast: true})
	s.check(err)
	s.Cleanup(func() { e.Close() })
	s.engines = append(s.engines, e)
	return e
}

func (s *store) put(e *engine.Engine, key string, body []byte) engine.PutResult {
	s.Helper()
	r, err := e.Put(s.Context(), engine.PutRequest{Key: key, Bytes: body})
	s.check(err)
	return r
}

// live is a store's life: objects of each size, a seal, a backup, a drill, a
// restore, directories of symbols, a checkpoint and a compaction.
func (s *store) live() {
	s.Helper()
	ctx := s.Context()
	e := s.engines[0]
	s.put(e, "small", []byte("hello"))
	s.put(e, "middle", catalog.Bytes(60, 4000))
	s.put(e, "large", catalog.Bytes(61, 2<<20+5))
	s.put(e, "small", []byte("again"))
	s.keepTail(e)
	_, err := e.Remove(ctx, engine.RemoveRequest{Key: "middle"})
	s.check(err)
	_, err = e.Log().Seal(ctx, log.SealOptions{All: true})
	s.check(err)
	s.put(e, "tail", []byte("not sealed yet"))
	s.check(e.DefineZone(ctx, s.owner, authority.ZoneSpec{ID: "z:private:x", Name: "x", Levels: fcp.Levels{Integrity: 10, Confidentiality: 20}, Version: 1}))
	s.spend(e)
	proposal, err := e.DraftCheckpoint(fcp.ZoneWork)
	s.check(err)
	_, _, err = e.SignProposal(proposal)
	s.check(err)
	one, err := e.ProposeCheckpoint(s.zone)
	s.check(err)
	_, err = e.AppendCheckpoint(ctx, one)
	s.check(err)

	_, err = e.Backup(ctx, "/backup", engine.BackupOptions{})
	s.check(err)
	drilled, err := engine.Drill(ctx, blob.NewFiles(s.env.FS, "/backup"), "/backup", engine.DrillOptions{Environment: s.env, Owner: s.owner, Scratch: "/scratch"})
	s.check(err)
	s.check(e.RecordDrill(ctx, drilled))
	for _, p := range []engine.Pin{{Key: "mid", Prefix: true, Until: time.Unix(4e9, 0)}, {Key: "mid", Prefix: true, Off: true}} {
		_, err := e.SetPin(ctx, p)
		s.check(err)
	}
	_, err = e.Backup(ctx, "/backup", engine.BackupOptions{})
	s.check(err)
	_, err = e.Scatter(ctx, []string{"/d1", "/d2", "/d3"}, engine.ScatterOptions{Policy: engine.SymbolPolicy{Need: 2, Of: 3}})
	s.check(err)
	_, err = engine.Restore(ctx, "/backup", "/restored", engine.RestoreOptions{Environment: s.env, Owner: s.owner})
	s.check(err)
	s.open("/restored")

	_, err = e.Checkpoint(ctx, engine.CheckpointOptions{Owner: s.owner})
	s.check(err)
	s.clock.advance(2 * engine.GCGrace)
	_, err = e.Compact(ctx, engine.CompactOptions{})
	s.check(err)
}

// keepTail encodes what is not sealed of the zone's data feed.
func (s *store) keepTail(e *engine.Engine) {
	s.Helper()
	for _, f := range e.Log().Feeds() {
		if f.Feed.Plane != fcp.PlaneData || f.Feed.Zone != s.zone {
			continue
		}
		tail, err := e.MakeTail(s.Context(), f.No, f.Seq, f.Seq)
		s.check(err)
		b, err := tail.Encode()
		s.check(err)
		s.tails = append(s.tails, b)
	}
}

// spend grants a limited use of the store to an agent, uses it, and is refused.
func (s *store) spend(e *engine.Engine) {
	s.Helper()
	now := s.clock.tick()
	got, err := e.Entitle(s.Context(), s.owner, engine.EntitleRequest{GrantSpec: authority.GrantSpec{Zone: s.zone, Principal: "agent:backup",
		Rights:      []authority.Right{{Capability: engine.StoreCapability, Operation: string(engine.OperationPut)}},
		Constraints: authority.Constraints{ResourceAllow: []string{"agents/"}, MaxCalls: 1}, NotBefore: now, NotAfter: now.Add(time.Hour)}})
	s.check(err)
	holder, err := authority.NewHolderKey(s.env.Rand)
	s.check(err)
	chain, err := e.MintFrom(engine.MintRequest{Zone: s.zone, Grant: got.Grant, Confirm: holder.Public()})
	s.check(err)
	caller := &engine.Caller{Token: chain, Prove: func(c authority.Challenge, leaf, request fcp.Hash) ([]byte, error) {
		return holder.Prove(c, leaf, request), nil
	}}
	_, err = e.PutFor(s.Context(), caller, engine.PutRequest{Key: "agents/one", Bytes: []byte("once")})
	s.check(err)
	if _, err = e.PutFor(s.Context(), caller, engine.PutRequest{Key: "agents/one", Bytes: []byte("twice")}); err == nil {
		s.Error("a second call of one")
	}
}

// events reads every event of a store, with its body's salt.
func (s *store) events(e *engine.Engine, fn func(*fcp.Event, authority.Salt)) {
	s.Helper()
	type place struct {
		no  log.FeedNo
		seq uint64
	}
	var all []place
	s.check(e.Log().Scan(s.Context(), log.ScanOptions{}, func(batch []log.Applied) error {
		for i := range batch {
			if !batch[i].Dropped() {
				all = append(all, place{batch[i].Feed, batch[i].Seq})
			}
		}
		return nil
	}))
	for _, p := range all {
		ev, salt, err := e.Log().Read(p.no, p.seq)
		s.check(err)
		fn(&ev, salt)
	}
}

// objects opens the bodies of the first store's objects: headers and payloads by
// rule.
func (s *store) objects() map[string][][]byte {
	s.Helper()
	out := map[string][][]byte{}
	keys := s.zoneKeys(s.engines[0])
	s.events(s.engines[0], func(ev *fcp.Event, salt authority.Salt) {
		if ev.Feed.Zone != s.zone || ev.Kind != fcp.KindObjectBody && ev.Kind != fcp.KindObjectPut || len(ev.Body) == 0 {
			return
		}
		plain, err := keys.OpenBody(nil, ev.Object, salt, ev.Body)
		s.check(err)
		header, payload, err := fcp.DecodeObject(plain)
		s.check(err)
		head, err := fcp.Marshal(&header)
		s.check(err)
		out["ObjectHeader"] = append(out["ObjectHeader"], head)
		out[header.Schema.Name] = append(out[header.Schema.Name], payload[fcp.HashSize:])
	})
	return out
}

// zoneKeys opens the store's zone key manifest with the owner's recovery key.
func (s *store) zoneKeys(e *engine.Engine) *authority.ZoneKeys {
	s.Helper()
	recovery, err := s.owner.Recovery()
	s.check(err)
	manifests, err := e.ManifestBytes()
	s.check(err)
	for _, b := range manifests {
		m, err := authority.VerifyManifest(s.owner.Public(), b)
		s.check(err)
		if m.Zone() == s.zone {
			keys, err := m.OpenRecovery(recovery)
			s.check(err)
			return keys
		}
	}
	s.Fatal("no manifest of the zone")
	return nil
}

// files returns the content of the files of a folder.
func (s *store) files(dir, suffix string) (out [][]byte) {
	s.Helper()
	names, err := s.env.FS.List(dir)
	s.check(err)
	for _, n := range names {
		if strings.HasSuffix(n, suffix) {
			out = append(out, s.file(filepath.Join(dir, n)))
		}
	}
	return out
}

// file returns the content of a file, nothing when it is not there.
func (s *store) file(name string) []byte {
	s.Helper()
	f, err := s.env.FS.Open(name)
	if err != nil {
		s.Fatalf("%s: %v", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	s.check(err)
	return b
}
