package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/node"
)

func TestTheSocketServesTheStore(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	if _, err := engine.Init(ctx, store, engine.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(ctx, store, engine.Options{NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	n, err := node.Start(ctx, node.Options{Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	socket := filepath.Join(dir, "s")
	if err := os.WriteFile(socket, nil, 0o600); err != nil { // what a dead daemon left
		t.Fatal(err)
	}
	s, err := New(socket, e, n)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve() }()
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal("the socket:", info, err)
	}
	c := NewClient(socket)
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
	body(http.MethodGet, "/readyz", "")
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
	for _, name := range []string{"fcps_datagrams_rx_total", "fcps_datagrams_mac_fail_total", "fcps_symbols_aead_fail_total", "fcps_replay_drop_total"} {
		if !strings.Contains(body(http.MethodGet, "/metrics", ""), "\n"+name+" ") {
			t.Error("there is no metric", name)
		}
	}
	st, err := c.Status(ctx)
	if err != nil || st.Writer != n.Writer().String() || st.Position == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	end, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := s.Close(end); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket is left:", err)
	}
	if _, err := c.Status(ctx); err == nil {
		t.Error("a closed server answers")
	}
}
