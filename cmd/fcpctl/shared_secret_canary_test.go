package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fcp/authority"
	"fcp/authority/keystore"
)

// TestSharedSecretsStayInTheirCages runs the whole life of shared secrets and of a
// split owner key: put, use, rotation, resharing, paper, recovery, signing, and what
// is refused on the way. No value, paper share or key share may be in any output,
// argument, variable or file outside the cage, in any of the usual forms.
func TestSharedSecretsStayInTheirCages(t *testing.T) {
	dir := t.TempDir()
	f := &flow{t: t, dir: dir, store: filepath.Join(dir, "store"), secrets: filepath.Join(dir, "secrets"), said: map[string][]byte{}}
	at := func(name string) string { return filepath.Join(f.secrets, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(f.secrets, 0o700))
	owner := []string{"--identity", at("identity")}
	run := func(exit int, stdin string, asked bool, args ...string) []byte {
		t.Helper()
		return f.run(exit, stdin, asked, append(args[:len(args):len(args)], owner...)...)
	}
	use := func(exit int, asked bool, name string, command ...string) []byte {
		t.Helper()
		args := append([]string{"secret", "use", name}, owner...)
		return f.run(exit, "", asked, append(append(args, "--"), command...)...)
	}
	run(exitOK, "", false, "init", "--no-passphrase")
	secrets := canaries{}
	value := func(i int) string {
		v := fmt.Sprintf("canary value %02d %x", i, time.Now().UnixNano())
		if i%3 == 0 { // with what a shell, JSON or a terminal would change
			v += " \"$(id)\" \\ \x1b[31m\n"
		}
		secrets[fmt.Sprint("value ", i)] = []byte(v)
		return v
	}
	const n = 5
	for i := range n {
		name, v := fmt.Sprintf("api/%d", i), value(i)
		run(exitOK, v, false, "secret", "put", name, "-", "-o", "json")
		if got := use(exitOK, true, name, "cat"); string(got) != v {
			t.Fatalf("value %d came back as %d bytes", i, len(got))
		}
		// What the command sees of its own and of fcpctl's process, but for the pipe.
		use(exitOK, false, name, "sh", "-c", "cat /proc/self/environ /proc/self/cmdline /proc/$PPID/environ /proc/$PPID/cmdline; cat >/dev/null")
		use(3, false, name, "sh", "-c", "cat >/dev/null; exit 3") // the command's own
		run(exitConflict, value(10+i), false, "secret", "put", name, "-")
		run(exitOK, "", false, "secret", "reshare", name)
		v = value(20 + i)
		must(os.WriteFile(at("value"), []byte(v), 0o600))
		run(exitOK, "", false, "secret", "put", name, at("value"), "--rotate", "-o", "json")
		if i%2 == 0 {
			run(exitOK, "", false, "secret", "export-paper", name, "--shares", "2-of-3", "--to", at(fmt.Sprint("paper", i)))
		}
	}
	f.run(exitDenied, "", false, "secret", "use", "api/0", "--", "cat")
	long := value(30) + strings.Repeat("x", authority.MaxSecret)
	run(exitInvalid, long, false, "secret", "put", "long", "-")
	run(exitInvalid, value(31), false, "secret", "put", "bad name", "-")
	papers, err := filepath.Glob(at("paper*/*"))
	must(err)
	if len(papers) != 9 {
		t.Fatalf("%d papers", len(papers))
	}
	for i, p := range papers {
		b, err := os.ReadFile(p)
		must(err)
		share, err := authority.ParsePaperShare(string(b))
		must(err)
		secrets[fmt.Sprint("code of paper ", i)] = []byte(share.Code())
		for _, l := range strings.Split(share.Text(), "\n") {
			if w := strings.Fields(l); len(w) == 9 {
				secrets[fmt.Sprint("paper ", i, ", line ", w[0])] = []byte(strings.Join(w[1:], " "))
			}
		}
		// Typed wrong, it is named and not repeated.
		spoilt := bytes.Replace(b, []byte("  2  "), []byte("  2  abandon "), 1)
		must(os.WriteFile(at("spoilt"), spoilt, 0o600))
		f.run(exitInvalid, "", false, "secret", "recover", at("spoilt"), "--", "cat")
	}
	if got := f.run(exitOK, "", true, "secret", "recover", papers[0], papers[2], "--", "cat"); string(got) != string(secrets["value 20"]) {
		t.Fatalf("recovered %d bytes", len(got))
	}
	run(exitOK, "", false, "secret", "recover", papers[3], papers[4], "--put", "back")
	f.run(exitConflict, "", false, "secret", "recover", papers[0], papers[4], "--", "cat")

	run(exitOK, "", false, "owner", "split", "2-of-3", "--to", f.secrets, "--no-passphrase")
	share := func(i int) string { return at(fmt.Sprintf("owner-share-%d-of-3", i)) }
	for i := 1; i <= 3; i++ {
		s, err := keystore.LoadOwnerShare(keystore.OS{}, share(i), "")
		must(err)
		secrets[fmt.Sprint("owner share ", i)] = s.Key.Secret()[1:]
	}
	out := func(name string) string { return filepath.Join(dir, name) }
	f.run(exitOK, "", false, "owner", "draft", strings.Repeat("ab", 32), "--out", out("draft"))
	for _, i := range []int{1, 3} {
		f.run(exitOK, "", false, "owner", "commit", out("draft"), "--share", share(i), "--out", out(fmt.Sprint("c", i)))
		nonces, err := filepath.Glob(share(i) + ".nonces-*")
		must(err)
		if len(nonces) != 1 {
			t.Fatalf("%d files with nonces", len(nonces))
		}
	}
	both := []string{"--commitment", out("c1"), "--commitment", out("c3")}
	for _, i := range []int{1, 3} {
		f.run(exitOK, "", false, append([]string{"owner", "sign", out("draft"), "--share", share(i), "--out", out(fmt.Sprint("s", i))}, both...)...)
		f.run(exitNotHere, "", false, append([]string{"owner", "sign", out("draft"), "--share", share(i), "--out", out("again")}, both...)...)
	}
	f.run(exitOK, "", false, append([]string{"owner", "finish", out("draft"), "--signature", out("s1"), "--signature", out("s3"), "-o", "json"}, both...)...)

	run(exitOK, "", false, "secret", "rm", "api/4", "--yes")
	for _, args := range [][]string{{"secret", "ls", "--removed", "-o", "json"}, {"segment", "seal"}, {"status", "-o", "json"}, {"log", "tail", "-n", "500", "-o", "json"},
		{"proj", "query", "secrets", "-o", "json"}, {"audit", "tail", "-n", "0", "-o", "json"}, {"audit", "verify"}, {"verify"}, {"bugreport", "--yes", filepath.Join(dir, "report")},
		{"backup", "create", filepath.Join(dir, "backup")}} {
		f.run(exitOK, "", false, args...)
	}
	if len(secrets) < 64 {
		t.Fatalf("%d canaries", len(secrets))
	}
	f.look(secrets)
}
