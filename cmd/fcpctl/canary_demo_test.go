package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fcp/authority/keystore"
)

// TestTheDemoTellsNoSecret runs `fcpctl demo authority` and looks for every key, the
// words and every token that it made in what it said and in the files it left.
func TestTheDemoTellsNoSecret(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var said bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &said, stderr: &said, now: time.Now,
		lookupEnv: func(string) (string, bool) { return "", false },
		again:     func(context.Context, ...string) (*exec.Cmd, error) { panic("another process") }}
	if code := a.run(context.Background(), []string{"demo", "authority", "--keep"}); code != exitOK {
		t.Fatalf("exit code %d: %s", code, said.Bytes())
	}
	secrets, cages := canaries{}, map[string]bool{}
	each := func(fn func(path string, name string)) {
		err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				fn(p, e.Name())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	each(func(p, name string) {
		switch {
		case name == "identity":
			id, err := keystore.LoadIdentity(keystore.OS{}, p, "", nil)
			check(err)
			words, err := id.Words()
			check(err)
			secrets["entropy of the owner"] = id.Entropy()
			list := strings.Fields(words)
			for i := 0; i+8 <= len(list); i += 8 {
				secrets["words from "+decimal(uint64(i))] = []byte(strings.Join(list[i:i+8], " "))
			}
		case name == nodeFile && filepath.Base(filepath.Dir(p)) == "keys":
			node, err := keystore.LoadNode(keystore.OS{}, p, nil)
			check(err)
			for b, i := node.Secret(), 0; i+32 <= len(b); i += 32 {
				secrets["node key "+decimal(uint64(i/32))] = b[i : i+32]
			}
		case strings.HasSuffix(name, ".key"):
			k, err := keystore.LoadHolder(keystore.OS{}, p)
			check(err)
			secrets[name] = k.Secret()
		case strings.HasSuffix(name, ".token"):
			chain, err := keystore.LoadToken(keystore.OS{}, p)
			check(err)
			for i, b := range chain.Tokens() {
				secrets[name+" "+decimal(uint64(i))] = b
				secrets[name+" "+decimal(uint64(i))+", signature"] = b[len(b)-64:]
			}
		default:
			return
		}
		cages[p] = true
	})
	if len(secrets) < 16 || len(secrets.in(append([]byte("x"), secrets["node key 0"]...))) != 1 {
		t.Fatalf("%d secrets", len(secrets))
	}
	secrets.absent(t, "what the demo said", said.Bytes())
	each(func(p, _ string) {
		if !cages[p] {
			b, err := os.ReadFile(p)
			check(err)
			secrets.absent(t, p, bytes.Trim(b, "\x00"))
		}
	})
}
