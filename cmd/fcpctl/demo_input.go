package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ownSources are the demo's input where there is no Go toolchain: real text, at hand.
//
//go:embed *.go
var ownSources embed.FS

// demoInput finds real files to store: what --input names, the sources of Go's
// net package, or this command's own, written out below dir.
func (a *app) demoInput(ctx context.Context, given, dir string) (string, error) {
	if given != "" {
		return given, nil
	}
	for _, root := range a.goRoots(ctx) {
		tree := filepath.Join(root, "src", "net")
		if st, err := os.Stat(tree); err == nil && st.IsDir() {
			return tree, nil
		}
	}
	out := filepath.Join(dir, "input")
	return out, os.CopyFS(out, ownSources)
}

func (a *app) goRoots(ctx context.Context) (roots []string) {
	if v, ok := a.lookupEnv("GOROOT"); ok && v != "" {
		roots = append(roots, v)
	}
	if path, err := exec.LookPath("go"); err == nil {
		if b, err := exec.CommandContext(ctx, path, "env", "GOROOT").Output(); err == nil {
			roots = append(roots, strings.TrimSpace(string(b)))
		}
	}
	return roots
}

// treeDigests are the SHA-256 of every regular file below dir, by path.
func treeDigests(dir string) (digests map[string]string, size int64, err error) {
	digests = map[string]string{}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		digests[filepath.ToSlash(rel)] = hex.EncodeToString(sum[:])
		size += int64(len(b))
		return nil
	})
	return digests, size, inputError(err, "the input")
}
