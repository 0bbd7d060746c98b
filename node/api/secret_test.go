package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// tapped is a socket in front of another that keeps what crosses it.
func tapped(t *testing.T, to string) (socket string, crossed func() []byte) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "tap")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all bytes.Buffer
	var open sync.WaitGroup
	half := func(to, from net.Conn) {
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			mu.Lock()
			all.Write(b[:n])
			mu.Unlock()
			if _, werr := to.Write(b[:n]); err != nil || werr != nil {
				to.Close()
				return
			}
		}
	}
	open.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := dialSocket(context.Background(), to)
			if err != nil {
				in.Close()
				continue
			}
			open.Go(func() { half(out, in) })
			open.Go(func() { half(in, out) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Wait()
	})
	return socket, func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return bytes.Clone(all.Bytes())
	}
}

// TestOnlySealedSharesCrossTheSocket uses a secret whose only share is the value itself:
// it is whole in the client and nowhere in what the two said to each other.
func TestOnlySealedSharesCrossTheSocket(t *testing.T) {
	const value = "canary of a value, 41 bytes long or so..."
	s := serve(t, t.TempDir())
	ctx := context.Background()
	e := s.cur.engine
	node, err := engine.LoadNodeKeys(filepath.Join(filepath.Dir(s.socket), "store"), engine.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.PutSecret(ctx, s.owner, engine.PutSecretRequest{Name: "api/token", Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
	socket, crossed := tapped(t, s.socket)
	r, err := Dial(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(_ *authority.Secret, spec authority.SecretAccessSpec) ([]byte, error) {
		return authority.SignSecretAccess(rand.Reader, s.owner, spec)
	}
	before := r.Position()
	g, used, err := r.GatherShares(ctx, engine.SecretUse{Name: "api/token", Sign: sign}, node)
	if err != nil || len(used.Devices) != 1 || used.State.Name != "api/token" || used.Request.IsZero() {
		t.Fatal(used, err)
	}
	var got []byte
	if err := g.Use(func(b []byte) error { got = bytes.Clone(b); return nil }); err != nil || string(got) != value {
		t.Fatal(got, err)
	}
	g.Wipe()
	if err := g.Use(func([]byte) error { t.Error("wiped shares are used"); return nil }); err == nil {
		t.Error("wiped shares rebuild")
	}
	if b := crossed(); len(b) < 500 || bytes.Contains(b, []byte("canary of")) {
		t.Errorf("%d bytes crossed the socket: %q", len(b), b)
	}
	if r.Position() <= before {
		t.Error("the use is not on record")
	}

	for what, x := range map[string]struct {
		u    engine.SecretUse
		code fcp.Code
	}{
		"nobody's secret": {engine.SecretUse{Name: "none", Sign: sign}, fcp.CodeNotFound},
		"nobody signs":    {engine.SecretUse{Name: "api/token"}, fcp.CodeMalformed},
		"another owner": {engine.SecretUse{Name: "api/token", Sign: func(_ *authority.Secret, spec authority.SecretAccessSpec) ([]byte, error) {
			other, err := authority.NewOwnerKey(rand.Reader)
			if err != nil {
				return nil, err
			}
			return authority.SignSecretAccess(rand.Reader, other, spec)
		}}, fcp.CodeDenied},
		"another access": {engine.SecretUse{Name: "api/token", Sign: func(_ *authority.Secret, spec authority.SecretAccessSpec) ([]byte, error) {
			spec.Request[0]++
			return sign(nil, spec)
		}}, fcp.CodeDenied},
	} {
		if g, _, err := r.GatherShares(ctx, x.u, node); !errors.Is(err, x.code) || g.Use(func([]byte) error { return nil }) == nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	other, err := authority.NewNodeKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.GatherShares(ctx, engine.SecretUse{Name: "api/token", Sign: sign}, other); err == nil {
		t.Error("another device's keys open the shares")
	}
}

// TestAClientSignsNothingElse: a daemon that wants another access signed than was asked
// for, or answers with frames in the wrong place, gets nothing.
func TestAClientSignsNothingElse(t *testing.T) {
	s := serve(t, t.TempDir())
	ctx := context.Background()
	e := s.cur.engine
	if _, err := e.PutSecret(ctx, s.owner, engine.PutSecretRequest{Name: "a", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	node, err := engine.LoadNodeKeys(filepath.Join(filepath.Dir(s.socket), "store"), engine.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	var version *authority.Secret
	_, err = e.GatherShares(ctx, engine.SecretUse{Name: "a", By: s.owner}, func(v *authority.Secret, _ engine.SealedShare) error { version = v; return nil })
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	good := authority.SecretAccessSpec{Zone: version.Zone(), Secret: version.ID(), Holder: node.Writer(), Purpose: "use", NotBefore: now, Expires: now.Add(time.Minute)}
	for what, change := range map[string]func(*authority.SecretAccessSpec){
		"": func(*authority.SecretAccessSpec) {}, "secret": func(s *authority.SecretAccessSpec) { s.Secret[0]++ }, "zone": func(s *authority.SecretAccessSpec) { s.Zone = fcp.ZoneWork },
		"holder": func(s *authority.SecretAccessSpec) { s.Holder[0]++ }, "purpose": func(s *authority.SecretAccessSpec) { s.Purpose = "reshare" },
		"credential": func(s *authority.SecretAccessSpec) { s.Credential[0]++ }, "long": func(s *authority.SecretAccessSpec) { s.Expires = now.Add(time.Hour) },
	} {
		spec, signed := good, false
		change(&spec)
		b, err := encMode.Marshal(&spec)
		if err != nil {
			t.Fatal(err)
		}
		g := &gathering{node: node, version: version, u: &engine.SecretUse{Name: "a", Purpose: "use", Sign: func(*authority.Secret, authority.SecretAccessSpec) ([]byte, error) {
			signed = true
			return []byte{1}, nil
		}}}
		x := &exchange{}
		x.w = io.Discard
		if err := g.take(x, frameAccess, b); (err == nil) != (what == "") || signed != (what == "") {
			t.Errorf("another %s: signed %v, %v", what, signed, err)
		}
	}
	for _, kind := range []frameKind{frameAccess, frameShare, frameRow, frameProve, frameData} {
		g := &gathering{node: node, u: &engine.SecretUse{Name: "a", Purpose: "use"}, out: new(engine.GatheredShares)}
		if err := g.take(&exchange{}, kind, []byte{0xa0}); !errors.Is(err, fcp.CodeMalformed) {
			t.Errorf("a frame %q before its time: %v", byte(kind), err)
		}
	}
}

// TestLeasesOverTheSocket is the life of a lease through a daemon.
func TestLeasesOverTheSocket(t *testing.T) {
	s := serve(t, t.TempDir())
	ctx := context.Background()
	r := s.dial(t)
	q := LeaseRequest{Zone: fcp.ZonePrivate, Purpose: authority.LeaseResource, Subject: "mailbox", For: time.Minute}
	renew := q
	renew.Renew = true
	if _, err := r.AcquireLease(ctx, renew); !errors.Is(err, fcp.CodeNotFound) {
		t.Error("renew what nobody has:", err)
	}
	l, err := r.AcquireLease(ctx, q)
	if err != nil || !l.Own || l.Released || l.Spec().Fence != 1 || len(l.Signers()) != 1 || l.Position == 0 {
		t.Fatal(l, err)
	}
	again, err := r.AcquireLease(ctx, renew)
	if err != nil || again.Spec().Fence != 2 {
		t.Fatal(again, err)
	}
	wrong := q
	wrong.Fence = 1
	if _, err := r.ReleaseLease(ctx, wrong); !errors.Is(err, fcp.CodeFenced) {
		t.Error("release another fence:", err)
	}
	dry := q
	dry.DryRun = true
	if _, err := r.ReleaseLease(ctx, dry); err != nil {
		t.Error(err)
	}
	if l, err := r.ReleaseLease(ctx, q); err != nil || !l.Released {
		t.Error(l, err)
	}
	if _, err := r.AcquireLease(ctx, LeaseRequest{Zone: fcp.ZonePrivate, Purpose: "none", Subject: "a", For: time.Minute}); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Error("another purpose:", err)
	}
	count := func(q LeaseRequest) (out []authority.Fence) {
		t.Helper()
		if err := r.Leases(ctx, q, func(l *Lease) error { out = append(out, l.Spec().Fence); return nil }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := count(LeaseRequest{}); len(got) != 2 || got[0] != 2 {
		t.Error(got)
	}
	if got := count(LeaseRequest{Zone: fcp.ZonePrivate, Purpose: authority.LeaseMigration, Subject: "mailbox"}); got != nil {
		t.Error(got)
	}
	if f, err := r.LetThrough(ctx, q); err != nil || f != 0 {
		t.Error(f, err)
	}
}
