package engine

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

func (s *testStore) forget(q ForgetRequest) ForgetResult {
	s.t.Helper()
	r, err := s.Forget(s.t.Context(), q)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func TestAForgottenObjectSaysSo(t *testing.T) {
	s := newStore(t, 11)
	large := strings.Repeat("large ", 500_000)
	for _, w := range [][2]string{{"small", "inline"}, {"body", body("body", 0)}, {"large", large}, {"stays", body("stays", 0)}} {
		s.put(w[0], w[1])
		s.clock.Advance(time.Minute)
	}
	older := s.put("body", body("body", 1))
	s.clock.Advance(time.Minute)
	s.put("body", body("body", 2))
	s.seal()
	if r := s.forget(ForgetRequest{Key: "large", DryRun: true}); r.Keys != 4 || len(r.Objects) != 1 || len(r.Copies) == 0 {
		t.Fatalf("%+v", r)
	}
	if s.get("large", At{}) != large {
		t.Fatal("a dry run destroyed something")
	}
	root, _ := s.StateRoot()
	for key, keys := range map[string]int{"small": 1, "large": 4, "body": 1} {
		if r := s.forget(ForgetRequest{Key: key}); r.Keys != keys {
			t.Errorf("%s: %d keys destroyed, want %d", key, r.Keys, keys)
		}
		if r := s.forget(ForgetRequest{Key: key}); r.Keys != 0 {
			t.Errorf("%s: forgotten twice destroys %d keys", key, r.Keys)
		}
	}
	check := func() {
		t.Helper()
		for _, key := range []string{"small", "large", "body"} {
			_, err := s.read(GetRequest{Key: key})
			wantError(t, err, fcp.CodeKeyForgotten)
			if e, err := s.Stat(t.Context(), "", key, At{}); err != nil || e.Head().Size == 0 {
				t.Fatal("its name is gone:", err)
			}
		}
		if s.get("stays", At{}) != body("stays", 0) {
			t.Fatal("another object is gone")
		}
		s.identical() // a forgotten body is no finding
	}
	check()
	if b, err := s.read(GetRequest{Key: "body", Version: older.Hash}); err != nil || string(b) != body("body", 1) {
		t.Fatal("another version is gone:", err)
	}
	if r, _ := s.StateRoot(); r != root {
		t.Fatal("forgetting changed the state root")
	}
	s.reopen()
	check()
	// It stays forgotten in a restore of a later backup, and a missing key is told
	// from it there too.
	if _, err := s.Backup(t.Context(), "/backup", BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), "/backup", "/restored", RestoreOptions{Environment: s.env, Owner: s.owner}); err != nil {
		t.Fatal(err)
	}
	back := &testStore{t: t, env: s.env, clock: s.clock, owner: s.owner, dir: "/restored"}
	back.open()
	defer back.Engine.Close()
	_, err := back.read(GetRequest{Key: "large"})
	wantError(t, err, fcp.CodeKeyForgotten)
	if r := back.forget(ForgetRequest{Key: "stays", DryRun: true}); !strings.Contains(r.Copies[len(r.Copies)-1].Name, "manifest") || r.Copies[0].Kind != "member" {
		t.Errorf("the backup it was restored from or the former node is not named: %+v", r.Copies)
	}
	if r := s.forget(ForgetRequest{Key: "body", All: true}); r.Keys != 2 {
		t.Errorf("%d keys of the other versions destroyed", r.Keys)
	}
}

func TestAMissingKeyIsNotAForgottenOne(t *testing.T) {
	s := newStore(t, 12)
	r := s.put("name", body("name", 0))
	p, ok, err := s.placeOf(DefaultZone, projBodies, r.Object[:])
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := s.Log().SetSalts(p.feed, p.seq, make([]byte, log.SaltSize)); err != nil {
		t.Fatal(err)
	}
	_, err = s.read(GetRequest{Key: "name"})
	wantError(t, err, fcp.CodeKeyTableLost)
	v, err := s.Verify(t.Context(), VerifyOptions{Bodies: true})
	if err != nil || len(v.Findings) != 1 || v.Findings[0].Code != fcp.CodeKeyTableLost {
		t.Fatal(v.Findings, err)
	}
	s.forget(ForgetRequest{Key: "name"})
	_, err = s.read(GetRequest{Key: "name"})
	wantError(t, err, fcp.CodeKeyForgotten)
	_, err = s.Forget(t.Context(), ForgetRequest{Key: "nobody"})
	wantError(t, err, fcp.CodeNotFound)
	_, err = s.Forget(t.Context(), ForgetRequest{Object: fcp.ObjectID{1}})
	wantError(t, err, fcp.CodeNotFound)
}

// TestAForgottenKeyIsInNoFile: after a close the salt is in no file of the store.
func TestAForgottenKeyIsInNoFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	env, clock := testEnv(vfs.Default, 13)
	owner, err := authority.NewOwnerKey(env.Rand)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), dir, InitOptions{Environment: env, Owner: owner}); err != nil {
		t.Fatal(err)
	}
	s := &testStore{t: t, env: env, clock: clock, owner: owner, dir: dir, opts: Options{NoBallast: true}}
	s.open()
	r := s.put("secret", body("secret", 0))
	s.put("other", body("other", 0))
	s.seal()
	p, _, err := s.placeOf(DefaultZone, projBodies, r.Object[:])
	if err != nil {
		t.Fatal(err)
	}
	salt, err := s.Log().Salt(p.feed, p.seq)
	if err != nil || salt == ([log.SaltSize]byte{}) {
		t.Fatal(err)
	}
	found := func() (in []string) {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, salt[:]) {
				in = append(in, d.Name())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	if len(found()) == 0 {
		t.Fatal("the salt is in no file before: the search does not see it")
	}
	s.forget(ForgetRequest{Key: "secret"})
	s.reopen()
	if err := s.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	if in := found(); len(in) > 0 {
		t.Fatalf("the salt is still in %v", in)
	}
}

// TestForgettingSparesSharedChunks: a chunk that another large object has too
// keeps its key.
func TestForgettingSparesSharedChunks(t *testing.T) {
	s := newStore(t, 14)
	first := strings.Repeat("0123456789abcdef", fcp.ChunkSize/16)
	one, two := first+strings.Repeat("one ", 1000), first+strings.Repeat("two ", 1000)
	s.put("one", one) // in the same second: the first chunk is one object
	s.put("two", two)
	r := s.forget(ForgetRequest{Key: "one"})
	if r.Shared != 1 {
		t.Fatalf("%d shared chunks", r.Shared)
	}
	if s.get("two", At{}) != two {
		t.Fatal("the other object lost a chunk")
	}
	_, err := s.read(GetRequest{Key: "one"})
	wantError(t, err, fcp.CodeKeyForgotten)
}
