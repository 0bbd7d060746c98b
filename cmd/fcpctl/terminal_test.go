package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// terminal is an app on a terminal that somebody types at.
type terminal struct {
	*app
	stdout, stderr bytes.Buffer
	typed          []string // passphrases
	clock          time.Time
}

func newTerminal(t *testing.T, stdin string) *terminal {
	t.Helper()
	x := &terminal{clock: time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)}
	env := map[string]string{"FCP_DIR": filepath.Join(t.TempDir(), "store"), "NO_COLOR": "1"}
	x.app = &app{stdin: strings.NewReader(stdin), stdout: &x.stdout, stderr: &x.stderr, stdinTTY: true, stdoutTTY: true, stderrTTY: true,
		now:       func() time.Time { return x.clock },
		lookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		readPassword: func() ([]byte, error) {
			if len(x.typed) == 0 {
				return nil, errors.New("end of input")
			}
			p := x.typed[0]
			x.typed = x.typed[1:]
			return []byte(p), nil
		}}
	return x
}

func (x *terminal) want(t *testing.T, exit int, args ...string) {
	t.Helper()
	x.stdout.Reset()
	x.stderr.Reset()
	if got := x.run(context.Background(), args); got != exit {
		t.Fatalf("%v: exit code %d, want %d\n%s%s", args, got, exit, &x.stdout, &x.stderr)
	}
}

func TestTheTerminalIsAskedForAPassphraseTwice(t *testing.T) {
	x := newTerminal(t, "")
	id := filepath.Join(t.TempDir(), "id")
	x.typed = []string{"one", "two"}
	x.want(t, exitInvalid, "init", "--identity", id)
	if !strings.Contains(x.stderr.String(), "the two passphrases differ") {
		t.Errorf("stderr: %s", &x.stderr)
	}
	x.typed = []string{"", ""}
	x.want(t, exitUsage, "init", "--identity", id)
	x.typed = nil
	x.want(t, exitInterrupted, "init", "--identity", id)
	if _, err := os.Stat(id); err == nil {
		t.Fatal("an identity was written")
	}
	x.typed = []string{"secret words", "secret words"}
	x.want(t, exitOK, "init", "--identity", id)
	if out := x.stdout.String() + x.stderr.String(); strings.Contains(out, "secret words") {
		t.Errorf("the passphrase is in the output: %s", out)
	}
}

func TestTablesAreAlignedOnATerminal(t *testing.T) {
	x := newTerminal(t, "")
	x.want(t, exitOK, "init", "--no-passphrase", "--identity", filepath.Join(t.TempDir(), "id"))
	for _, key := range []string{"a", "übergröße", "b\x1b[31mred"} {
		x.stdin = strings.NewReader("some content")
		x.want(t, exitOK, "object", "put", key, "-")
	}
	x.want(t, exitOK, "object", "ls")
	lines := strings.Split(strings.TrimSpace(x.stdout.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	column := strings.Index(lines[0], "KEY")
	for _, line := range lines[1:] {
		if column < 1 || line[column-2:column] != "  " || line[column] == ' ' {
			t.Errorf("the last column does not begin at %d: %q", column, line)
		}
	}
	if strings.ContainsRune(x.stdout.String(), '\x1b') || !strings.Contains(x.stdout.String(), `b\x1b[31mred`) {
		t.Errorf("a key steers the terminal: %q", &x.stdout)
	}
	x.want(t, exitOK, "object", "ls", "--color", "always")
	if !strings.Contains(x.stdout.String(), "\x1b[1m") {
		t.Errorf("no colour: %q", &x.stdout)
	}
	x.want(t, exitOK, "status")
	if n := strings.Count(x.stdout.String(), "\n"); n > 10 {
		t.Errorf("status has %d lines", n)
	}
	if last := strings.Split(strings.TrimSpace(x.stdout.String()), "\n"); !strings.HasPrefix(last[len(last)-1], "next") {
		t.Errorf("status ends with %q", last[len(last)-1])
	}
}

func TestAYesIsAskedFor(t *testing.T) {
	x := newTerminal(t, "")
	x.want(t, exitOK, "init", "--no-passphrase", "--identity", filepath.Join(t.TempDir(), "id"))
	x.stdin = strings.NewReader("content")
	x.want(t, exitOK, "object", "put", "a", "-")
	for _, answer := range []string{"", "\n", "n\n", "nein\n"} {
		x.stdin = strings.NewReader(answer)
		x.want(t, exitGuess, "object", "rm", "-r", "a")
		if !strings.Contains(x.stderr.String(), "Go on? [y/N]") {
			t.Errorf("nothing was asked: %s", &x.stderr)
		}
	}
	x.stdin = strings.NewReader("y\n")
	x.want(t, exitOK, "object", "rm", "-r", "a")
}

func TestProgress(t *testing.T) {
	for _, c := range []struct {
		name   string
		tty    bool
		format formatFlag
		quiet  bool
		want   string
	}{
		{"terminal", true, formatTable, false, "\r\x1b[Kverify scan: 0 of 100 positions, 0 %\r\x1b[Kverify scan: 10 of 100 positions, 10 %, 2 positions/s, 45s left\r\x1b[Kverify scan: 20 of 100 positions, 20 %, 2 positions/s, 40s left\r\x1b[Kverify scan: 30 of 100 positions, 30 %, 2 positions/s, 35s left\r\x1b[K"},
		{"pipe", false, formatTable, false, "verify scan: 20 of 100 positions, 20 %, 2 positions/s, 40s left\n"},
		{"ndjson", false, formatNDJSON, false, `{"schema":"fcp.v1.Progress","what":"verify","stage":"scan","done":0,"total":100,"unit":"positions","elapsed_ms":1000}
{"schema":"fcp.v1.Progress","what":"verify","stage":"scan","done":10,"total":100,"unit":"positions","elapsed_ms":6000}
{"schema":"fcp.v1.Progress","what":"verify","stage":"scan","done":20,"total":100,"unit":"positions","elapsed_ms":11000}
{"schema":"fcp.v1.Progress","what":"verify","stage":"scan","done":30,"total":100,"unit":"positions","elapsed_ms":16000}
`},
		{"json", false, formatJSON, false, ""},
		{"quiet", true, formatTable, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTerminal(t, "")
			x.stderrTTY, x.flags.format, x.flags.quiet = c.tty, c.format, c.quiet
			p := x.progress("verify", "positions")
			x.clock = x.clock.Add(time.Second)
			for done := uint64(0); done <= 30; done += 10 {
				p.tell("scan", done, 100)
				p.tell("scan", done, 100) // too soon to be shown
				x.clock = x.clock.Add(5 * time.Second)
			}
			p.done()
			if got := x.stderr.String(); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestProgressOfBytesHasUnits(t *testing.T) {
	x := newTerminal(t, "")
	p := x.progress("backup", inBytes)
	p.tell("copy", 0, 0)
	x.clock = x.clock.Add(10 * time.Second)
	for want, n := range map[string][2]uint64{
		"backup copy: 512.0 MiB of 2.0 GiB, 25 %, 51.2 MiB/s, 30s left": {512 << 20, 2 << 30},
		"backup copy: 900 B of 1.5 KiB, 58 %, 90 B/s, 7s left":          {900, 1536},
		"backup copy: 5.0 MiB, 512.0 KiB/s":                             {5 << 20, 0},
	} {
		if got := p.line(x.clock, n[0], n[1]); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain text": "plain text", "日本 ü 🙂": "日本 ü 🙂", "a\tb\nc": `a\tb\nc`, `back\slash`: `back\\slash`,
		"\x1b[31m": `\x1b[31m`, "\xff\xfe": `\xff\xfe`, "\u202ereverse": `\u{202e}reverse`, "\u009b31m": `\u{9b}31m`, "\x00": `\x00`, "\ufffd": "\ufffd",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"notes/today": "notes/today", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "KEY": "KEY"} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestParseAt(t *testing.T) {
	now := time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)
	for in, want := range map[string]string{
		"2026-01-31T15:04:05Z": "2026-01-31T15:04:05.000Z", "2026-01-31T15:04:05.25+01:00": "2026-01-31T14:04:05.250Z", "-90m": "2026-01-31T13:34:05.000Z", "-0s": "2026-01-31T15:04:05.000Z",
	} {
		at, err := parseAt(in, func() time.Time { return now })
		if err != nil || at.Position != 0 || timeText(at.Time) != want {
			t.Errorf("parseAt(%q) = %v, %v, want %s", in, at, err, want)
		}
	}
	if at, err := parseAt("17", nil); err != nil || at.Position != 17 || !at.Time.IsZero() {
		t.Errorf("parseAt(17) = %v, %v", at, err)
	}
	for _, in := range []string{"", "0", "-1", "yesterday", "1h", "--1h", "2026-13-01", "18446744073709551616", "1.5", "+3"} {
		if at, err := parseAt(in, time.Now); err == nil {
			t.Errorf("parseAt(%q) = %v", in, at)
		}
	}
}

func TestNamesThatAreNoPaths(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../x", "a/../../x", "/x", "a//b", "a/", "a/./b", "a/..", "a\x00b"} {
		if unusable(name) == "" {
			t.Errorf("%q would be written", name)
		}
	}
	for _, name := range []string{"a", "a/b", "...", "..a", "-n", "a b", "ü", "a\\b"} {
		if why := unusable(name); why != "" {
			t.Errorf("%q is refused: %s", name, why)
		}
	}
}
