package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/node"
)

// served is a server over a new store.
type served struct {
	*Server
	socket string
	owner  *authority.OwnerKey
	ended  chan error
	opened int
}

func serve(t *testing.T, dir string) *served {
	t.Helper()
	ctx := context.Background()
	store := filepath.Join(dir, "store")
	owner, err := authority.NewOwnerKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Init(ctx, store, engine.InitOptions{Owner: owner}); err != nil {
		t.Fatal(err)
	}
	v := &served{socket: filepath.Join(dir, "s"), owner: owner, ended: make(chan error, 1)}
	if err := os.WriteFile(v.socket, nil, 0o600); err != nil { // what a dead daemon left
		t.Fatal(err)
	}
	v.Server, err = New(ctx, Options{Socket: v.socket, Now: time.Now, Open: func(ctx context.Context) (*engine.Engine, *node.Node, error) {
		v.opened++
		e, err := engine.Open(ctx, store, engine.Options{NoBallast: true})
		if err != nil {
			return nil, nil, err
		}
		n, err := node.Start(ctx, node.Options{Engine: e})
		if err != nil {
			return nil, nil, errors.Join(err, e.Close())
		}
		return e, n, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { v.ended <- v.Serve() }()
	t.Cleanup(func() {
		if err := v.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return v
}

func (v *served) dial(t *testing.T) *Remote {
	t.Helper()
	r, err := Dial(context.Background(), v.socket)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTheSocketServesTheStore(t *testing.T) {
	ctx := context.Background()
	// Longer than a socket's name can be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := serve(t, dir)
	info, err := os.Stat(s.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal("the socket:", info, err)
	}
	c := NewClient(s.socket)
	body := func(method, path, in string) string {
		t.Helper()
		r, err := c.do(ctx, method, path, strings.NewReader(in))
		if err != nil {
			t.Fatal(method, path, err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	body(http.MethodGet, "/livez", "")
	if err := c.Ready(ctx); err != nil {
		t.Error(err)
	}
	if got := body(http.MethodPut, "/v1/object?key=a/b", "hello"); !strings.Contains(got, `"generation":1`) {
		t.Error(got)
	}
	if got := body(http.MethodGet, "/v1/object?key=a/b", ""); got != "hello" {
		t.Error(got)
	}
	if _, err := c.do(ctx, http.MethodGet, "/v1/object?key=none", nil); !errors.Is(err, fcp.CodeNotFound) {
		t.Error(err)
	}
	if _, err := c.do(ctx, http.MethodGet, "/v1/object?key=a&zone=what", nil); !errors.Is(err, fcp.CodeZone) {
		t.Error(err)
	}
	metrics, err := c.Metrics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fcps_datagrams_rx_total", "fcps_datagrams_mac_fail_total", "fcps_symbols_aead_fail_total", "fcps_replay_drop_total",
		"capability_token_verify_fail_total", "capability_denied_total", "egress_allowed_total", "egress_denied_total", "egress_timeout_total"} {
		if !strings.Contains(metrics, "\n"+name+" ") {
			t.Error("there is no metric", name)
		}
	}
	var rpc struct {
		ID    int
		Error struct{ Code int }
	}
	if err := json.Unmarshal([]byte(body(http.MethodPost, "/rpc", `{"jsonrpc":"2.0","id":7,"method":"handshake"}`)), &rpc); err != nil || rpc.ID != 7 || rpc.Error.Code != -32601 {
		t.Error("FCP1 is answered with", rpc, err)
	}
	st, err := c.Status(ctx)
	if err != nil || st.Writer != s.cur.node.Writer().String() || st.Position == 0 || len(st.Members) != 1 || st.Members[0].State != "this" {
		t.Errorf("%+v, %v", st, err)
	}
	end, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.Close(end); err != nil {
		t.Fatal(err)
	}
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.socket); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket is left:", err)
	}
	if _, err := c.Status(ctx); !errors.Is(err, fcp.CodeDependency) {
		t.Error("a closed server:", err)
	}
}

// answers are what one store says to the same questions.
func answers(t *testing.T, s Store) (out []string) {
	t.Helper()
	ctx := context.Background()
	say := func(what string, v any, err error) {
		t.Helper()
		code := fcp.CodeOf(err)
		out = append(out, fmt.Sprintf("%s: %+v, %v", what, v, code))
	}
	p, err := s.PositionAt(engine.At{})
	say("position", p, err)
	_, err = s.PositionAt(engine.At{Position: 1 << 40})
	say("position beyond", 0, err)
	entries := func(what string) func(*engine.Entry) error {
		return func(e *engine.Entry) error { say(what, *e, nil); return nil }
	}
	say("list", 0, s.List(ctx, engine.ListRequest{Zone: engine.DefaultZone, Removed: true}, entries("entry")))
	stop := errors.New("stop")
	if err := s.List(ctx, engine.ListRequest{Zone: engine.DefaultZone}, func(*engine.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Error("the error of a callback:", err)
	}
	say("history", 0, s.History(ctx, engine.DefaultZone, "big", entries("version")))
	say("no zone", 0, s.List(ctx, engine.ListRequest{Zone: "z:none"}, entries("entry")))
	for _, q := range []engine.GetRequest{{Key: "small"}, {Key: "big"}, {Key: "none"}, {Key: "gone"}, {Key: "big", At: engine.At{Position: p - 1}},
		{Key: "big", Range: &engine.Range{Offset: 1 << 20, Length: 10}}} {
		o, err := s.Get(ctx, q)
		if err != nil {
			say("get "+q.Key, 0, err)
			continue
		}
		b, err := io.ReadAll(o)
		say("get "+q.Key, o.Info(), err)
		say("read "+q.Key, sha256.Sum256(b), o.Close())
	}
	say("tail", 0, s.Tail(ctx, engine.TailRequest{Last: 5}, func(r *engine.EventRow) error {
		r.Time = r.Time.UTC()
		say("event", *r, nil)
		return nil
	}))
	say("query", 0, s.QueryProjection(ctx, "names", engine.DefaultZone, []byte("b"), engine.At{}, func(r *engine.Row) error { say("row", *r, nil); return nil }))
	say("no projection", 0, s.QueryProjection(ctx, "none", engine.DefaultZone, nil, engine.At{}, func(*engine.Row) error { return nil }))
	o, err := s.Overview(ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	o.Mesh = nil
	say("overview", *o, nil)
	say("incarnation", s.Incarnation(), nil)
	grants, err := s.Grants(engine.DefaultZone)
	say("grants", grants, err)
	_, _, err = s.Refusal("0123456789")
	say("refusal", 0, err)
	return out
}

// TestRemoteAnswersAsLocal asks a store in this process and over the socket.
func TestRemoteAnswersAsLocal(t *testing.T) {
	ctx := context.Background()
	v := serve(t, t.TempDir())
	r := v.dial(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 200<<10)
	for _, p := range []engine.PutRequest{{Key: "small", Bytes: []byte("x")}, {Key: "gone", Bytes: []byte("y")}, {Key: "big", Bytes: []byte("first")},
		{Key: "big", Body: bytes.NewReader(big)}} {
		if _, err := r.Put(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	res, err := r.Remove(ctx, engine.RemoveRequest{Key: "gone"})
	if err != nil || !res.Tombstone {
		t.Fatal(res, err)
	}
	if _, err := r.Put(ctx, engine.PutRequest{Key: "big", Bytes: []byte("z"), Expect: engine.Expect{Kind: engine.ExpectGeneration, Generation: 1}}); !errors.Is(err, fcp.CodeConflict) {
		t.Error("a conflict:", err)
	}
	if res, err := r.Put(ctx, engine.PutRequest{Key: "dry", Bytes: []byte("z"), DryRun: true}); err != nil || len(res.Planned) == 0 {
		t.Error("a dry run:", res, err)
	}
	broken := errors.New("the input broke")
	if _, err := r.Put(ctx, engine.PutRequest{Key: "half", Body: io.MultiReader(bytes.NewReader(big), failing{broken})}); !errors.Is(err, broken) {
		t.Error("an input that breaks:", err)
	}
	if _, err := r.Get(ctx, engine.GetRequest{Key: "half"}); !errors.Is(err, fcp.CodeNotFound) {
		t.Error("half a put is there:", err)
	}
	there, here := answers(t, r), answers(t, Local{v.cur.engine})
	if !reflect.DeepEqual(there, here) {
		for i := range min(len(there), len(here)) {
			if there[i] != here[i] {
				t.Errorf("over the socket %s\nin the process  %s", there[i], here[i])
			}
		}
		t.Fatalf("%d and %d answers", len(there), len(here))
	}
	if r.Position() != v.cur.engine.Position() || r.Source().Kind != FromNode {
		t.Error("position or source:", r.Position(), r.Source())
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestBorrowing opens the store elsewhere while the daemon stands by; a subscription
// that was under way loses nothing.
func TestBorrowing(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	v := serve(t, dir)
	r := v.dial(t)
	if _, err := r.Put(ctx, engine.PutRequest{Key: "a", Bytes: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 16)
	follow, stop := context.WithCancel(ctx)
	followed := make(chan error, 1)
	go func() {
		s, err := Dial(ctx, v.socket)
		if err == nil {
			err = s.Tail(follow, engine.TailRequest{Kinds: []fcp.Kind{fcp.KindObjectPut}, Follow: true, From: 1}, func(e *engine.EventRow) error {
				seen <- e.Key
				return nil
			})
		}
		followed <- err
	}()
	expect := func(key string) {
		t.Helper()
		select {
		case got := <-seen:
			if got != key {
				t.Fatalf("saw %s, not %s", got, key)
			}
		case <-time.After(time.Minute):
			t.Fatal("did not see", key)
		}
	}
	expect("a")
	release, err := NewClient(v.socket).Borrow(ctx, "a test")
	if err != nil {
		t.Fatal(err)
	}
	if err := NewClient(v.socket).Ready(ctx); err == nil {
		t.Error("ready without a store")
	}
	e, err := engine.Open(ctx, filepath.Join(dir, "store"), engine.Options{})
	if err != nil {
		t.Fatal("the lent store does not open:", err)
	}
	if _, err := e.Put(ctx, engine.PutRequest{Key: "b", Bytes: []byte("2")}); err != nil {
		t.Fatal(err)
	}
	late := make(chan error, 1)
	go func() { // waits until the store is back
		_, err := r.Put(ctx, engine.PutRequest{Key: "c", Bytes: []byte("3")})
		late <- err
	}()
	if err := errors.Join(e.Close(), release()); err != nil {
		t.Fatal(err)
	}
	if err := <-late; err != nil {
		t.Fatal(err)
	}
	expect("b")
	expect("c")
	stop()
	if err := <-followed; !errors.Is(err, fcp.CodeInterrupted) {
		t.Error("a subscription that was stopped:", err)
	}
	if v.opened != 2 {
		t.Errorf("the store was opened %d times", v.opened)
	}
}

// TestUseOverTheSocket has a holder prove possession over the socket; a refusal
// comes with all that it knows.
func TestUseOverTheSocket(t *testing.T) {
	ctx := context.Background()
	v := serve(t, t.TempDir())
	e := v.cur.engine
	now := time.Now().Truncate(time.Second)
	got, err := e.Entitle(ctx, v.owner, engine.EntitleRequest{GrantSpec: authority.GrantSpec{Zone: engine.DefaultZone, Principal: "agent:a",
		Rights:      []authority.Right{{Capability: engine.StoreCapability, Operation: string(engine.OperationPut)}, {Capability: engine.StoreCapability, Operation: string(engine.OperationGet)}},
		Constraints: authority.Constraints{ResourceAllow: []string{"notes/"}}, NotBefore: now, NotAfter: now.Add(time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	holder, err := authority.NewHolderKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := e.MintFrom(engine.MintRequest{Zone: engine.DefaultZone, Grant: got.Grant, Confirm: holder.Public()})
	if err != nil {
		t.Fatal(err)
	}
	caller := &engine.Caller{Token: chain, Prove: func(c authority.Challenge, leaf, request fcp.Hash) ([]byte, error) {
		return holder.Prove(c, leaf, request), nil
	}}
	r := v.dial(t)
	if _, err := r.PutFor(ctx, caller, engine.PutRequest{Key: "notes/a", Bytes: []byte("note")}); err != nil {
		t.Fatal(err)
	}
	o, err := r.GetFor(ctx, caller, engine.GetRequest{Key: "notes/a"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(o); err != nil || string(b) != "note" {
		t.Errorf("%q, %v", b, err)
	}
	o.Close()
	_, err = r.PutFor(ctx, caller, engine.PutRequest{Key: "else", Bytes: []byte("note")})
	var refused *engine.Refusal
	if !errors.As(err, &refused) || refused.Smallest == nil || refused.Receipt.IsZero() || !errors.Is(err, fcp.Denied) {
		t.Fatalf("a refusal: %v, %+v", err, refused)
	}
	d, position, err := r.Refusal(refused.Request.String()[:16])
	if err != nil || d.Reason() != refused.Reason || position == 0 {
		t.Error(d, position, err)
	}
	wrong, err := authority.NewHolderKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	thief := &engine.Caller{Token: chain, Prove: func(c authority.Challenge, leaf, request fcp.Hash) ([]byte, error) {
		return wrong.Prove(c, leaf, request), nil
	}}
	if _, err := r.GetFor(ctx, thief, engine.GetRequest{Key: "notes/a"}); !errors.Is(err, fcp.Denied) {
		t.Error("another's token:", err)
	}
	info, err := authority.InspectToken(chain.Tokens()[0])
	if err != nil {
		t.Fatal(err)
	}
	ref, err := r.Revoke(ctx, time.Now(), v.owner, authority.RevocationSpec{Zone: engine.DefaultZone, Scope: authority.RevokeToken, Targets: []fcp.Hash{info.ID.Ref()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.GetFor(ctx, caller, engine.GetRequest{Key: "notes/a"}); !errors.As(err, &refused) || refused.Reason != authority.ReasonRevokedToken {
		t.Error("a revoked token:", err)
	}
	if err := r.Wait(ctx, WaitRevocation, ref); err != nil { // there is no other member
		t.Error(err)
	}
	other, err := authority.NewOwnerKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Revoke(ctx, time.Now(), other, authority.RevocationSpec{Zone: engine.DefaultZone, Scope: authority.RevokeToken, Targets: []fcp.Hash{info.ID.Ref()}}); err == nil {
		t.Error("somebody else revokes")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("q\x00\x00\x00\x01\xa0z\x00\x00\x00\x00"))
	f.Add([]byte("d\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := frames{r: bufio.NewReader(bytes.NewReader(b))}
		for {
			kind, body, err := x.next()
			if err != nil {
				return
			}
			var p putCall
			var u useCall
			var g engine.GetRequest
			var l engine.ListRequest
			var tail engine.TailRequest
			for _, v := range []any{&p, &u, &g, &l, &tail, new(failure), new(End), new(waitCall), new(queryCall)} {
				if decodeFrame(body, v) == nil {
					if err := (&frames{w: io.Discard}).send(kind, v); err != nil {
						t.Errorf("%T: %v", v, err)
					}
				}
			}
		}
	})
}
