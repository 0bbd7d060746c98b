package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fcp/engine"
	"fcp/node/api"
)

// Whoever runs the tests may be allowed to read everything, so the file that cannot be
// read is one that was there when the tree was listed and is gone since.
func TestATreeIsWrittenBesideWhatCannotBeRead(t *testing.T) {
	x := newTerminal(t, "")
	x.want(t, exitOK, "init", "--no-passphrase", "--identity", filepath.Join(t.TempDir(), "id"))
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := findTree("t", dir)
	if err != nil || len(found.files) != 3 {
		t.Fatal(found, err)
	}
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	found.unread = append(found.unread, inputError(os.ErrPermission, "a directory"))
	o := writeFlags(x.rootCommand())
	x.flags.dir, _ = x.lookupEnv("FCP_DIR")
	x.stderr.Reset()
	err = x.withStore(context.Background(), writing, func(e *engine.Engine) error {
		return x.putFound(context.Background(), api.Local{Engine: e}, o, found, dir)
	})
	if exitOf(err) != exitFindings || !strings.Contains(err.Error(), "2 files or directories of ") {
		t.Errorf("%v, exit code %d", err, exitOf(err))
	}
	if said := x.stderr.String(); !strings.Contains(said, "a: no such file") || !strings.Contains(said, "a directory: permission denied") {
		t.Errorf("stderr: %s", said)
	}
	x.want(t, exitOK, "object", "ls", "-o", "name")
	if got := x.stdout.String(); got != "t/b\nt/c\n" {
		t.Errorf("written: %q", got)
	}
}
