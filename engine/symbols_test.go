package engine

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"fcp"
	"fcp/engine/blob"
	"fcp/engine/symbols"
	"fcp/log"
)

func policy(need, of int) ScatterOptions { return ScatterOptions{Policy: SymbolPolicy{Need: need, Of: of}} }

func shareDirs(prefix string, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("/%s%d", prefix, i+1))
	}
	return out
}

func (w *world) scatter(dirs []string, need int) ScatterResult {
	w.Helper()
	r, err := w.e.Scatter(w.Context(), dirs, policy(need, len(dirs)))
	if err != nil {
		w.Fatal("scatter:", err)
	}
	if len(r.Findings) > 0 {
		w.Errorf("scatter: %+v", r.Findings)
	}
	return r
}

func (w *world) gather(dirs []string, out string) GatherResult {
	w.Helper()
	r, err := GatherSymbols(w.Context(), dirs, out, GatherOptions{Environment: w.env})
	if err != nil {
		w.Fatalf("gather from %v: %v", dirs, err)
	}
	return r
}

func (w *world) heal(dirs []string, to string, o HealOptions) ScatterResult {
	w.Helper()
	o.Environment = w.env
	r, err := HealSymbols(w.Context(), dirs, to, o)
	if err != nil {
		w.Fatalf("heal from %v: %v", dirs, err)
	}
	return r
}

func (w *world) coverage(dirs []string) CoverageReport {
	w.Helper()
	r, err := SymbolCoverage(w.Context(), dirs, CoverageOptions{Environment: w.env})
	if err != nil {
		w.Fatalf("coverage of %v: %v", dirs, err)
	}
	return r
}

// rebuilt gathers, verifies without and with the identity, and compares with a
// plain backup folder.
func (w *world) rebuilt(dirs []string, out string) GatherResult {
	w.Helper()
	r := w.gather(dirs, out)
	report := w.verify(out, w.owner)
	noFindings(w, report)
	if !report.Identical || report.Manifest != r.Manifest {
		w.Errorf("the backup gathered from %v is not the one scattered", dirs)
	}
	return r
}

// subsetsOf calls fn with every choice of k of the strings.
func subsetsOf(all []string, k int, fn func([]string)) {
	for m := range 1 << len(all) {
		var some []string
		for i, d := range all {
			if m>>i&1 == 1 {
				some = append(some, d)
			}
		}
		if len(some) == k {
			fn(some)
		}
	}
}

func TestAnyTwoOfFiveDirectoriesRebuildEverything(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 61)
	w.fill()
	w.tiny()
	dirs := shareDirs("stick", 5)
	r := w.scatter(dirs, 2)
	if r.Coded == 0 || r.Coded == r.Segments || !r.Vouched || r.Shares != 5*r.Segments {
		t.Errorf("scatter: %d of %d segments coded, %d shares, vouched %v", r.Coded, r.Segments, r.Shares, r.Vouched)
	}
	if ratio := float64(r.Stored) / float64(r.Bytes); ratio > 2.75 {
		t.Errorf("the directories hold %.2f times the ciphertext", ratio)
	}
	first := tree(t, w.env.FS, "/stick1")
	n := 0
	subsetsOf(dirs, 2, func(two []string) {
		n++
		out := fmt.Sprintf("/out%d", n)
		g := w.rebuilt(two, out)
		if g.Manifest != r.Manifest || g.Segments != r.Segments || g.Coded != r.Coded || len(g.Findings) > 0 {
			t.Errorf("gather from %v: %+v", two, g)
		}
		if n == 7 {
			w.restore(out, "/new")
			old := w.e
			w.open("/new")
			w.check()
			w.e.Close()
			w.e = old
		}
	})
	if n != 10 {
		t.Errorf("%d choices", n)
	}
	subsetsOf(dirs, 1, func(one []string) {
		_, err := GatherSymbols(t.Context(), one, "/none", GatherOptions{Environment: w.env})
		wantCode(t, err, fcp.CodeNotEnough)
		if !strings.Contains(fmt.Sprint(err), "more symbols") {
			t.Errorf("it does not say how many: %v", err)
		}
		nothingLeft(t, w.env.FS, "/none")
	})
	if !mapsEqual(first, tree(t, w.env.FS, "/stick1")) {
		t.Error("gathering changed a directory")
	}
	c := w.coverage(dirs)
	if !c.Rebuilds || c.MayLose != 3 || len(c.Findings) > 0 || c.Unprovable > 0 || c.Lacking > 0 {
		t.Errorf("coverage: may lose %d, %+v", c.MayLose, c.Findings)
	}
	c = w.coverage(dirs[:2])
	if !c.Rebuilds || c.MayLose != 0 {
		t.Errorf("coverage of two: may lose %d", c.MayLose)
	}
	c = w.coverage(dirs[:1])
	if c.Rebuilds || c.MayLose != -1 || c.Lacking == 0 {
		t.Errorf("coverage of one: %v %d %d", c.Rebuilds, c.MayLose, c.Lacking)
	}
}

// tiny appends an event to a feed of its own, which makes a segment too small to
// be coded.
func (w *world) tiny() {
	w.Helper()
	_, err := w.e.log.Append(w.Context(), []log.Draft{{Zone: fcp.ZoneOwner, Plane: fcp.PlaneData, Under: w.e.genesis.ID,
		Content: fcp.Content{Kind: fcp.KindOpaque, Body: []byte("tiny")}}}, log.AppendOptions{})
	if err != nil {
		w.Fatal(err)
	}
}

func mapsEqual(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if !bytes.Equal(v, b[k]) {
			return false
		}
	}
	return true
}
var (
	_ = context.Background
	_ = ed25519.Sign
	_ = errors.Is
	_ fs.FileMode
	_ = rand.New
	_ = slices.Sort[[]int]
	_ = rapid.Check
	_ blob.Info
	_ symbols.Ref
	_ log.Run
)
