package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"fcp"
	"fcp/authority"
	"fcp/cmd/internal/daemon"
	"fcp/engine"
)

var update = flag.Bool("update", false, "write the golden parts of testdata/script anew")

// process is the program that is fcpctl as a process of its own.
const process = "fcpctl-process"

// TestMain lets scripts and the demo run fcpctl as another process.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){process: func() { os.Exit(realMain()) }})
}

// TestScripts runs testdata/script. `fcpctl` runs in this process;
// `exec fcpctl-process` starts another one. Besides testscript's own commands:
//
//	exit N fcpctl ARGS...   the exit code is N
//	input FILE              stdin of the next fcpctl in this process
//	scrub                   put words for what differs from run to run in stdout and stderr
//	flip FILE               flip one bit in the middle of a file
//	cut FILE                cut a file in half
//	field NAME VAR          VAR = the string or number under NAME in the JSON on stdout
//	odd DIR                 make files with odd names
//	same A B                two trees have the same files
//	largest DIR VAR [GLOB]  VAR = the path of the largest file below DIR
//	losetail DIR            zero most of the newest write-ahead log of the store DIR
//	waitfor FILE TEXT       wait until the file has the text
//	waitother A B           wait until the file A has not what B has
//	waitlock DIR            wait until another process has the store DIR open
//	$P0, $P1, ... $P30      the last position of a fresh store, and those behind it
//	lie FILE                change the signature share in a file
//	meet DIR DIR            two closed stores exchange their events
//	space BYTES|real        the disk of the fcpctl that follow in this process has so much free
//	later DURATION          the clock of the fcpctl that follow in this process moves on
//	s3server VAR            start an S3 server with the bucket "bucket"; VAR = its address
//	mkrandom FILE N         a file of N bytes that look random, always the same
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("FCP_DIR", filepath.Join(e.WorkDir, "store"))
			e.Setenv("NO_COLOR", "1")
			for i := range uint64(31) {
				e.Setenv(fmt.Sprintf("P%d", i), strconv.FormatUint(freshStore().position+i, 10))
			}
			e.Values[inputKey] = new([]byte)
			e.Values[laterKey] = new(time.Duration)
			e.Values[spaceKey] = new(func(string) (uint64, error))
			e.Defer(func() { endDaemons(t, e.WorkDir) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fcpctl":    func(ts *testscript.TestScript, neg bool, args []string) { scriptRun(ts, neg, exitOK, args) },
			"exit":      scriptExit,
			"input":     scriptInput,
			"scrub":     scriptScrub,
			"flip":      scriptFlip,
			"cut":       scriptCut,
			"field":     scriptField,
			"odd":       scriptOdd,
			"same":      scriptSame,
			"largest":   scriptLargest,
			"mkrandom":  scriptRandom,
			"waitlock":  scriptWaitLock,
			"waitfor":   scriptWaitFor,
			"waitother": scriptWaitOther,
			"losetail":  scriptLoseTail,
			"s3server":  scriptS3Server,
			"later":     scriptLater,
			"space":     scriptSpace,
			"meet":      scriptMeet,
			"lie":       scriptLie,
		},
		Condition: scriptCondition,
	})
}

// endDaemons kills every daemon that a script left, whatever became of the script.
func endDaemons(t *testing.T, root string) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // a daemon's own files come and go
		}
		pid, err := daemon.Process(path)
		for deadline := time.Now().Add(time.Minute); err == nil && pid != 0 && time.Now().Before(deadline); pid, err = daemon.Process(path) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
			time.Sleep(10 * time.Millisecond)
		}
		return err
	})
	if err != nil {
		t.Error("a daemon is left:", err)
	}
}

type scriptKey int

const (
	inputKey scriptKey = iota
	laterKey
	spaceKey
)

func scriptSpace(ts *testscript.TestScript, neg bool, args []string) {
	free := ts.Value(spaceKey).(*func(string) (uint64, error))
	if *free = nil; args[0] != "real" {
		n, err := strconv.ParseUint(args[0], 10, 64)
		ts.Check(err)
		*free = func(string) (uint64, error) { return n, nil }
	}
}

func scriptLater(ts *testscript.TestScript, neg bool, args []string) {
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	*ts.Value(laterKey).(*time.Duration) += d
}

// scriptEnvironment is what an fcpctl of a script can look up.
func scriptEnvironment(ts *testscript.TestScript) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v := ts.Getenv(name)
		return v, v != ""
	}
}

// scriptApp is an app over a script's streams. Paths are resolved by the process,
// so arguments that are files of the script are made absolute by the caller.
func scriptApp(ts *testscript.TestScript) *app {
	in := ts.Value(inputKey).(*[]byte)
	stdin := bytes.NewReader(*in)
	*in = nil
	later := *ts.Value(laterKey).(*time.Duration)
	now := func() time.Time { return time.Now().Add(later) }
	return &app{stdin: stdin, stdout: ts.Stdout(), stderr: ts.Stderr(), now: now, lookupEnv: scriptEnvironment(ts),
		free:         *ts.Value(spaceKey).(*func(string) (uint64, error)),
		readPassword: func() ([]byte, error) { panic("no terminal") },
		again: func(ctx context.Context, args ...string) (*exec.Cmd, error) {
			path, err := exec.LookPath(process)
			return exec.CommandContext(ctx, path, args...), err
		}}
}

func scriptRun(ts *testscript.TestScript, neg bool, want int, args []string) {
	// Scripts run in parallel in one process that has one working directory.
	// Paths in a script are written as $WORK/name where it matters.
	a := scriptApp(ts)
	var told bytes.Buffer
	a.stderr = io.MultiWriter(a.stderr, &told)
	got := a.run(context.Background(), args)
	if line, ok := notJSON(args, told.Bytes()); ok {
		ts.Fatalf("stderr of %q has a line that is not JSON: %s", args, line)
	}
	if neg {
		if got == exitOK {
			ts.Fatalf("unexpected success")
		}
		return
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s", got, want, ts.ReadFile("stderr"))
	}
}

// notJSON returns the first line on stderr that a program which asked for JSON could not
// read. What a command of secret use says is that command's.
func notJSON(args []string, stderr []byte) (string, bool) {
	asked := false
	for i, arg := range args {
		if arg == "--" && slices.Contains(args[:i], "secret") {
			return "", false
		}
		asked = asked || arg == "-o" && i+1 < len(args) && strings.HasSuffix(args[i+1], "json")
	}
	for line := range strings.Lines(string(stderr)) {
		if asked && !json.Valid([]byte(line)) {
			return line, true
		}
	}
	return "", false
}

func scriptExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit N fcpctl ARGS... or exit N exec PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	switch args[1] {
	case "fcpctl":
		scriptRun(ts, false, want, args[2:])
	case "exec":
		err := ts.Exec(args[2], args[3:]...)
		got := 0
		if e, ok := err.(*exec.ExitError); ok {
			got = e.ExitCode()
		} else {
			ts.Check(err)
		}
		if got != want {
			ts.Fatalf("exit code %d, want %d", got, want)
		}
	default:
		ts.Fatalf("exit runs fcpctl or exec")
	}
}

func scriptInput(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: input FILE")
	}
	*ts.Value(inputKey).(*[]byte) = []byte(ts.ReadFile(args[0]))
}

// scrubs are what differs from run to run, and the words that stand for it.
var scrubs = []struct {
	re   *regexp.Regexp
	word string
}{
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "<hash>"},
	{regexp.MustCompile(`"signed":"[0-9A-Za-z+/]{40,}=*"`), `"signed":"<base64>"`},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "<token>"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "<id>"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "<short>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "<time>"},
	// Lengths of what holds keys and signatures vary by a byte or two.
	// Segments come in the order of their ids, which differ from run to run.
	{regexp.MustCompile(`"held":\[[^]]*\]`), `"held":[]`},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:0"},
	{regexp.MustCompile(`"peers":\[[^]]*\]`), `"peers":[]`}, // as many as it had met
	{regexp.MustCompile(`"distinct":\d+`), `"distinct":0`},
	{regexp.MustCompile(`"(elapsed_ms|process|bytes|body|written|symbols|stored|before|after)":\d+`), `"$1":0`},
	{regexp.MustCompile(`\d+ bytes`), "0 bytes"},
	{regexp.MustCompile(`\b\d+ ms\b`), "0 ms"},
	{regexp.MustCompile(`\b\d+ (MiB free|files are as|events are in no)`), "0 $1"},
	{regexp.MustCompile(`(acknowledged to,|log up to) position \d+`), "$1 position 0"},
	{regexp.MustCompile(`,"(power|charge)":("[a-z]+"|\d+)`), ""}, // of the machine
	{regexp.MustCompile(`"set":"[0-9a-f]{8}"`), `"set":"<set>"`},
	{regexp.MustCompile(`"pages":\d+`), `"pages":0`},
	{regexp.MustCompile(`bit \d of byte \d+ of [^"]+`), "a bit"},
	{regexp.MustCompile(`\bgo1\.[0-9.a-z]+`), "<go>"},
}

// counts are the fields whose values count the events of a fresh store in.
var counts = regexp.MustCompile(`"(as_of|position|events|from|to|since|applied|flushed|first|last|seq|control|sealed|horizon)":(\d+)`)

// scrubCount writes a position as its distance from the end of a fresh store, and
// a sequence number of the owner's zone as its distance from the end there, so
// that a new schema or kind does not change every golden.
func scrubCount(m string) string {
	field := counts.FindStringSubmatch(m)
	n, err := strconv.ParseUint(field[2], 10, 64)
	switch fresh := freshStore(); {
	case err == nil && n >= fresh.position:
		return fmt.Sprintf(`"%s":<fresh+%d>`, field[1], n-fresh.position)
	case err == nil && n >= fresh.owner:
		return fmt.Sprintf(`"%s":<owner+%d>`, field[1], n-fresh.owner)
	}
	return m
}

// freshStore returns where a new store ends, and the owner's zone in it.
var freshStore = sync.OnceValue(func() (f struct{ position, owner uint64 }) {
	dir, err := os.MkdirTemp("", "fcpctl-fresh-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	owner, err := authority.OwnerKeyFromEntropy(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	store := filepath.Join(dir, "store")
	if _, err := engine.Init(context.Background(), store, engine.InitOptions{Owner: owner}); err != nil {
		panic(err)
	}
	e, err := engine.Open(context.Background(), store, engine.Options{})
	if err != nil {
		panic(err)
	}
	defer e.Close()
	for _, feed := range e.Log().Feeds() {
		if feed.Feed.Zone == fcp.ZoneOwner {
			f.owner = max(f.owner, feed.Seq)
		}
	}
	f.position = e.Position()
	return f
})

func scriptScrub(ts *testscript.TestScript, neg bool, args []string) {
	work := ts.Getenv("WORK")
	scrub := func(s string) string {
		s = counts.ReplaceAllStringFunc(s, scrubCount)
		s = strings.ReplaceAll(s, work, "$WORK")
		for _, c := range scrubs {
			s = c.re.ReplaceAllString(s, c.word)
		}
		return s
	}
	out, errs := scrub(ts.ReadFile("stdout")), scrub(ts.ReadFile("stderr"))
	_, err := ts.Stdout().Write([]byte(out))
	ts.Check(err)
	_, err = ts.Stderr().Write([]byte(errs))
	ts.Check(err)
}

func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.Chmod(path, 0o600))
	ts.Check(os.WriteFile(path, b, 0o600))
}

func scriptCut(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	st, err := os.Stat(path)
	ts.Check(err)
	ts.Check(os.Chmod(path, 0o600))
	ts.Check(os.Truncate(path, st.Size()/2))
}

func scriptField(ts *testscript.TestScript, neg bool, args []string) {
	re := regexp.MustCompile(`"` + regexp.QuoteMeta(args[0]) + `":(?:"([^"]*)"|(\d+))`)
	m := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("no %s in %s", args[0], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[1], m[1]+m[2])
}

func scriptOdd(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Join(dir, "sub dir", "..."), 0o777))
	for _, name := range []string{"-dash", "with space", "übergröße", "日本語", "tab\there", "new\nline", "quote'\"", "sub dir/.../deep", "back\\slash", "$HOME", "sub dir/emoji 🙂"} {
		ts.Check(os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), 0o666))
	}
}

func scriptSame(ts *testscript.TestScript, neg bool, args []string) {
	a, _, err := treeDigests(ts.MkAbs(args[0]))
	ts.Check(err)
	b, _, err := treeDigests(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(a) == 0 {
		ts.Fatalf("%s is empty", args[0])
	}
	for name, digest := range a {
		if b[name] != digest {
			ts.Fatalf("%q differs or is missing", name)
		}
		delete(b, name)
	}
	for name := range b {
		ts.Fatalf("%q is only in %s", name, args[1])
	}
}

func scriptLargest(ts *testscript.TestScript, neg bool, args []string) {
	pattern := "*"
	if len(args) > 2 {
		pattern = args[2]
	}
	name, err := largestFile(ts.MkAbs(args[0]), pattern)
	ts.Check(err)
	ts.Setenv(args[1], name)
}

func scriptRandom(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o666))
}

// scriptPatience is what a script waits for another process.
const scriptPatience = 2 * time.Minute

func scriptWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(scriptPatience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && bytes.Contains(b, []byte(args[1])) {
			return
		}
	}
	ts.Fatalf("%s does not get %q", args[0], args[1])
}

func scriptWaitOther(ts *testscript.TestScript, neg bool, args []string) {
	old := ts.ReadFile(args[1])
	for deadline := time.Now().Add(scriptPatience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && string(b) != old {
			return
		}
	}
	ts.Fatalf("%s stays what it is", args[0])
}

// scriptWaitLock asks the system who holds the lock: to try the lock would keep
// the other process from getting it.
func scriptWaitLock(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(scriptPatience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		f, err := os.OpenFile(filepath.Join(ts.MkAbs(args[0]), "LOCK"), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		ts.Check(err)
		held := syscall.Flock_t{Type: syscall.F_WRLCK}
		ts.Check(syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &held))
		ts.Check(f.Close())
		if held.Type != syscall.F_UNLCK {
			return
		}
	}
	ts.Fatalf("nobody opened %s", args[0])
}

// scriptLoseTail does what a disk does that said "synced" and was not.
func scriptLoseTail(ts *testscript.TestScript, neg bool, args []string) {
	logs, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "log", "*.log"))
	ts.Check(err)
	if len(logs) == 0 {
		ts.Fatalf("no write-ahead log")
	}
	newest := slices.Max(logs)
	b, err := os.ReadFile(newest)
	ts.Check(err)
	used := len(bytes.TrimRight(b, "\x00"))
	clear(b[used/10:])
	ts.Check(os.WriteFile(newest, b, 0o600))
}
