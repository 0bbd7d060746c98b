package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fcp/authority"
	"fcp/authority/keystore"
	"fcp/engine"
	"fcp/node/api"
)

// TestADaemonTellsNoSecret looks for a node's keys and for bodies in everything of a
// daemon that leaves it: its log, metrics, status, arguments, environment, the stacks
// of a crash, the files of its store but the key file, and core files.
func TestADaemonTellsNoSecret(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	owner, err := authority.NewOwnerKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Init(ctx, store, engine.InitOptions{Owner: owner, Device: "first"}); err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(store, "keys", "node")
	node, err := keystore.LoadNode(keystore.OS{}, keyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{"owner": owner.Entropy()}
	for b, i := node.Secret(), 0; i+32 <= len(b); i += 32 {
		secrets[fmt.Sprint("node key ", i/32+1)] = b[i : i+32]
	}
	d := start(t, dir, "--verbose")
	d.until(t, "it is ready", func(api.Status) bool { return true })
	for i := range 16 {
		body := fmt.Sprintf("canary body %02d %x", i, node.Writer())
		secrets[fmt.Sprint("body ", i)] = []byte(body)
		if i%2 == 1 {
			body = strings.Repeat(body+"\n", 100)
		}
		if _, err := d.store(t).Put(ctx, engine.PutRequest{Key: fmt.Sprint("notes/", i), Bytes: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.store(t).Get(ctx, engine.GetRequest{Key: "nothing"}); err == nil {
		t.Fatal("there is something")
	}
	metrics, err := d.client.Metrics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	st, err := d.client.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string][]byte{"metrics": []byte(metrics), "status": fmt.Appendf(nil, "%+v", st)}
	for _, name := range []string{"cmdline", "environ"} {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", d.cmd.Process.Pid, name)); err == nil { // where there is such a thing, and only root may
			said[name] = b
		}
	}
	if err := d.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err == nil {
		t.Fatal("it did not crash")
	}
	if !bytes.Contains(d.log.Bytes(), []byte("goroutine ")) {
		t.Fatal("the crash left no stacks to look into")
	}
	said["log and stacks"] = d.log.Bytes()
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || p == keyFile {
			return err
		}
		if strings.HasPrefix(e.Name(), "core") {
			t.Errorf("a core file: %s", p)
		}
		said[p], err = os.ReadFile(p)
		return err
	})
	if err != nil || len(said) < 10 {
		t.Fatalf("%d places, %v", len(said), err)
	}
	for name, secret := range secrets {
		for _, form := range [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(base64.StdEncoding.EncodeToString(secret)),
			[]byte(base64.RawURLEncoding.EncodeToString(secret)), []byte(strings.Trim(fmt.Sprint(secret), "[]"))} {
			for place, b := range said {
				if bytes.Contains(b, form) {
					t.Errorf("%s is in %s", name, place)
				}
			}
		}
	}
}
