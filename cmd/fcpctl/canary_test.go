package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fcp/authority/keystore"
)

// canaries are secrets by name, and the bytes that must not be seen.
type canaries map[string][]byte

// forms are the ways in which a secret could leave.
func forms(secret []byte) map[string][]byte {
	return map[string][]byte{"as it is": secret, "in hex": []byte(hex.EncodeToString(secret)), "in upper-case hex": []byte(strings.ToUpper(hex.EncodeToString(secret))),
		"in base64": []byte(base64.StdEncoding.EncodeToString(secret)), "in base64url": []byte(base64.RawURLEncoding.EncodeToString(secret)),
		"in Go's form": []byte(strings.Trim(fmt.Sprint(secret), "[]"))}
}

// in returns which of the canaries b has, and how.
func (c canaries) in(b []byte) (found []string) {
	for name, secret := range c {
		for form, text := range forms(secret) {
			if bytes.Contains(b, text) {
				found = append(found, name+", "+form)
			}
		}
	}
	return found
}

func (c canaries) absent(t *testing.T, where string, b []byte) {
	t.Helper()
	for _, what := range c.in(b) {
		t.Errorf("%s, is in %s", what, where)
	}
}

// flow is a run of commands of which everything that leaves is kept.
type flow struct {
	t                   *testing.T
	dir, store, secrets string
	said                map[string][]byte // by command line: stdout, stderr and the line itself
}

// run runs a command in this process; what it prints is kept unless it is data that
// was asked for.
func (f *flow) run(exit int, stdin string, asked bool, args ...string) []byte {
	f.t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr, now: time.Now,
		lookupEnv: func(name string) (string, bool) {
			if name == "XDG_CONFIG_HOME" {
				return f.dir, true
			}
			return "", false
		},
		again: func(context.Context, ...string) (*exec.Cmd, error) { panic("another process") }}
	args = append([]string{"--dir", f.store}, args...)
	if got := a.run(context.Background(), args); got != exit {
		f.t.Fatalf("%s: exit code %d, want %d: %s", strings.Join(args, " "), got, exit, stderr.Bytes())
	}
	line := fmt.Sprintf("%d: %s", len(f.said), strings.Join(args, " "))
	kept := append([]byte(line), stderr.Bytes()...)
	if !asked {
		kept = append(kept, stdout.Bytes()...)
	}
	f.said[line] = kept
	return stdout.Bytes()
}

// TestSixtyFourCanariesStayInTheirCages runs the flow of `demo authority` and more,
// with 64 secrets: the passphrase, the words, the owner's and the node's keys,
// holders' keys, tokens, and bodies. None of them may be in any output, argument,
// variable or file outside the key files, in any of the usual forms.
func TestSixtyFourCanariesStayInTheirCages(t *testing.T) {
	const passphrase = "canary passphrase 7Hq2vX"
	dir := t.TempDir()
	f := &flow{t: t, dir: dir, store: filepath.Join(dir, "store"), secrets: filepath.Join(dir, "secrets"), said: map[string][]byte{}}
	at := func(name string) string { return filepath.Join(f.secrets, name) }
	if err := os.Mkdir(f.secrets, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("passphrase"), []byte(passphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	owner := []string{"--identity", at("identity"), "--passphrase-file", at("passphrase")}
	f.run(exitOK, "", false, append([]string{"init"}, owner...)...)
	grant := string(f.run(exitOK, "", false, append([]string{"cap", "grant", "agent:notes", "--allow", "object.get,object.put", "--resource", "notes/", "-o", "name"}, owner...)...))
	grant = strings.TrimSpace(grant)
	f.run(exitOK, "", false, "cap", "mint", grant, "--key", at("agent.key"), "--out", at("agent.token"), "--depth", "2", "-o", "json")
	f.run(exitOK, "", false, "cap", "attenuate", at("agent.token"), "--key", at("agent.key"), "--new-key", at("helper.key"), "--out", at("helper.token"), "--allow", "object.get", "-o", "json")
	f.run(exitOK, "", false, "cap", "inspect", at("helper.token"), "-o", "json")
	secrets := f.collect(passphrase, at)
	i := 0
	for len(secrets) < 64 {
		name := fmt.Sprintf("body %d", i)
		body := fmt.Sprintf("canary body %02d %x", i, time.Now().UnixNano())
		secrets[name] = []byte(body)
		key := fmt.Sprintf("notes/%d", i)
		if i%2 == 0 {
			body += strings.Repeat("\n"+body, 100) // in an event of its own
		}
		f.run(exitOK, body, false, "cap", "use", at("agent.token"), "--key", at("agent.key"), "put", key, "-")
		if i%8 == 0 {
			f.run(exitOK, "", true, "cap", "use", at("helper.token"), "--key", at("helper.key"), "get", key)
			f.run(exitDenied, body, false, "-o", "json", "cap", "use", at("helper.token"), "--key", at("helper.key"), "put", key, "-")
		}
		i++
	}
	f.run(exitOK, "", false, append([]string{"cap", "revoke", at("agent.token"), "--reason", "sold"}, owner...)...)
	f.run(exitDenied, string(secrets["body 0"]), false, "cap", "use", at("agent.token"), "--key", at("agent.key"), "put", "notes/0", "-")
	f.run(exitDenied, "", false, "cap", "use", at("agent.token"), "--key", at("helper.key"), "get", "notes/0")
	f.run(exitMalformed, "", false, "cap", "inspect", at("agent.key"))
	f.run(exitMalformed, "", false, "cap", "use", at("agent.key"), "--key", at("agent.token"), "get", "notes/0")
	wrong := filepath.Join(f.secrets, "wrong")
	if err := os.WriteFile(wrong, []byte("another passphrase\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.run(exitWrongKey, "", false, "cap", "revoke", grant, "--identity", at("identity"), "--passphrase-file", wrong)
	f.run(exitOK, "", false, "audit", "tail", "-n", "0", "-o", "json")
	var refused string
	for _, l := range strings.Split(string(f.run(exitOK, "", false, "audit", "tail", "--type", "capability.denied", "-n", "0", "-o", "ndjson")), "\n") {
		if _, rest, ok := strings.Cut(l, `"operation":"object.put"`); ok {
			_, rest, _ = strings.Cut(rest, `"request":"`)
			refused = rest[:16]
		}
	}
	f.run(exitOK, "", false, "why", refused, "-o", "json")
	if err := os.WriteFile(filepath.Join(dir, "proof"), f.run(exitOK, "", false, "prove", "--refusal", refused), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"segment", "seal"}, {"status", "-o", "json"}, {"log", "tail", "-n", "200", "-o", "json"}, {"proj", "query", "audit"},
		{"proj", "query", "names", "-o", "json"}, {"audit", "verify"}, {"verify"}, {"backup", "create", filepath.Join(dir, "backup")}} {
		f.run(exitOK, "", false, args...)
	}
	if len(secrets) != 64 {
		t.Fatalf("%d canaries", len(secrets))
	}
	f.look(secrets)
}

const (
	exitMalformed = exitIntegrity
	nodeFile      = "node" // of a store's keys
)

// collect reads the secrets out of the key files.
func (f *flow) collect(passphrase string, at func(string) string) canaries {
	t := f.t
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	out := canaries{"passphrase": []byte(passphrase)}
	id, err := keystore.LoadIdentity(keystore.OS{}, at("identity"), passphrase, nil)
	must(err)
	words, err := id.Words()
	must(err)
	out["entropy of the owner"] = id.Entropy()
	list := strings.Fields(words)
	for i := 0; i < len(list); i += 8 { // single words are in any text
		out[fmt.Sprintf("words %d to %d", i+1, i+8)] = []byte(strings.Join(list[i:i+8], " "))
	}
	node, err := keystore.LoadNode(keystore.OS{}, filepath.Join(f.store, "keys", nodeFile), nil)
	must(err)
	secret := node.Secret()
	for i := 0; i+32 <= len(secret); i += 32 {
		out[fmt.Sprintf("node key %d", i/32+1)] = secret[i : i+32]
	}
	for _, who := range []string{"agent", "helper"} {
		k, err := keystore.LoadHolder(keystore.OS{}, at(who+".key"))
		must(err)
		out["key of "+who] = k.Secret()
		chain, err := keystore.LoadToken(keystore.OS{}, at(who+".token"))
		must(err)
		tokens := chain.Tokens()
		last := tokens[len(tokens)-1]
		out["token of "+who] = last
		out["signature of the token of "+who] = last[len(last)-64:]
	}
	return out
}

// look searches everything that left.
func (f *flow) look(secrets canaries) {
	t := f.t
	// The search must be able to find one.
	for name, secret := range secrets {
		if len(secrets.in([]byte("x"+hex.EncodeToString(secret)))) == 0 {
			t.Fatalf("the search does not find %s", name)
		}
	}
	for line, said := range f.said {
		secrets.absent(t, "what `"+line+"` said", said)
	}
	secrets.absent(t, "the environment", []byte(strings.Join(os.Environ(), "\n")))
	secrets.absent(t, "the arguments", []byte(strings.Join(os.Args, "\n")))
	files := 0
	err := filepath.WalkDir(f.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == f.secrets {
			if p == f.secrets {
				return fs.SkipDir
			}
			return err
		}
		if !d.Type().IsRegular() || p == filepath.Join(f.store, "keys", nodeFile) {
			return nil
		}
		b, err := os.ReadFile(p)
		files++
		secrets.absent(t, p, bytes.Trim(b, "\x00")) // reserved space is zeros
		return err
	})
	if err != nil || files < 10 {
		t.Fatalf("%d files, %v", files, err)
	}
}
