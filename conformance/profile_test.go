package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fcp/conformance/internal/profile"
)

func loadProfiles(t testing.TB) []profile.Profile {
	t.Helper()
	p, err := profile.Load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestProfilesNameTestsThatExist looks for each test of profiles.json in the source,
// so that a renamed one is noticed where it was renamed.
func TestProfilesNameTestsThatExist(t *testing.T) {
	have := map[string]bool{}
	read := map[string]bool{}
	for _, p := range loadProfiles(t) {
		for _, r := range p.Requirements {
			for _, test := range r.Tests {
				pkg, _, _ := strings.Cut(test, " ")
				dir := filepath.Join("..", filepath.FromSlash(strings.TrimPrefix(strings.TrimPrefix(pkg, "fcp"), "/")))
				if !read[pkg] {
					read[pkg] = true
					testsIn(t, pkg, dir, have)
				}
				if !have[test] {
					t.Errorf("%s: there is no test %q", r.ID, test)
				}
			}
		}
	}
}

func testsIn(t *testing.T, pkg, dir string, have map[string]bool) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		f, err := parser.ParseFile(token.NewFileSet(), n, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				have[pkg+" "+fn.Name.Name] = true
			}
		}
	}
}

// TestEveryFoundingTestIsARow holds profiles.json to the founding text: its seven and
// five tests, eight and four requirements are all there.
func TestEveryFoundingTestIsARow(t *testing.T) {
	count := map[byte]int{}
	tests := map[string]bool{}
	for _, p := range loadProfiles(t) {
		for _, r := range p.Requirements {
			count[r.ID[0]]++
			for _, test := range r.Tests {
				tests[test] = true
			}
		}
	}
	for id, n := range map[byte]int{'C': 7, 'I': 5, 'M': 8, 'F': 4} {
		if count[id] != n {
			t.Errorf("%d rows %c, the founding text has %d", count[id], id, n)
		}
	}
	have := map[string]bool{}
	testsIn(t, "fcp/conformance", ".", have)
	for test := range have {
		if _, name, _ := strings.Cut(test, " "); (strings.HasPrefix(name, "TestMandatory") || strings.HasPrefix(name, "TestInterop")) && !tests[test] {
			t.Errorf("%s is in no row", test)
		}
	}
}

// goTest runs go test -json over a module with one package for each source.
func goTest(t *testing.T, sources map[string]string) []byte {
	t.Helper()
	files := map[string]string{"go.mod": "module tried\n\ngo 1.26\n"}
	for name, source := range sources {
		files[name+"/x_test.go"] = "package tried\n\nimport \"testing\"\n\n" + source
	}
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-json", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	b, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return b
}

// TestARowHoldsOnlyWithItsTest judges one row by real results of go test: of a test
// that passes, and then of one that was renamed, removed, fails, is skipped, fails in
// a part or does not build.
func TestARowHoldsOnlyWithItsTest(t *testing.T) {
	cases := []struct {
		name, source, why string
		holds             bool
	}{
		{"passes", "func TestIt(t *testing.T) { t.Run(`part`, func(t *testing.T) {}) }", "1 of 1 tests passed", true},
		{"renamed", "func TestItself(t *testing.T) {}", "did not run", false},
		{"removed", "var _ testing.TB", "did not run", false},
		{"fails", "func TestIt(t *testing.T) { t.Error(`no`) }", "failed", false},
		{"skipped", "func TestIt(t *testing.T) { t.Skip(`not here`) }", "skipped", false},
		{"part-fails", "func TestIt(t *testing.T) { t.Run(`part`, func(t *testing.T) { t.Error(`no`) }) }", "failed", false},
		{"part-skipped", "func TestIt(t *testing.T) { t.Run(`part`, func(t *testing.T) { t.Skip() }) }", "skipped", false},
		{"panics", "func TestIt(t *testing.T) { panic(`no`) }", "failed", false},
		{"does-not-build", "func TestIt(t *testing.T) { undefined() }", "did not run", false},
	}
	sources := map[string]string{}
	for _, c := range cases {
		sources[c.name] = c.source
	}
	output := goTest(t, sources)
	var shown bytes.Buffer
	results, err := profile.ReadResults(bytes.NewReader(output), &shown)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(shown.String(), "x_test.go:5: no") || !strings.Contains(shown.String(), "undefined: undefined") || !strings.Contains(shown.String(), "ok  \ttried/passes") {
		t.Errorf("what go test says is not shown:\n%s", shown.String())
	}
	row := func(tests ...string) []profile.Profile {
		return []profile.Profile{{Name: "p", Requirements: []profile.Requirement{{ID: "R", Text: "r", Tests: tests}}}}
	}
	for _, c := range cases {
		r := profile.Judge(row("tried/"+c.name+" TestIt"), results)
		got := r[0].Rows[0]
		if got.Holds != c.holds || r[0].Holds != c.holds || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: %+v", c.name, got)
		}
		if text := string(r.Markdown()); strings.Contains(text, "does not hold") == c.holds {
			t.Errorf("%s:\n%s", c.name, text)
		}
		var back []profile.Judged
		b, err := r.JSON()
		if err != nil || json.Unmarshal(b, &back) != nil || back[0].Rows[0].Holds != c.holds {
			t.Errorf("%s: %s (%v)", c.name, b, err)
		}
		if both := profile.Judge(row("tried/passes TestIt", "tried/"+c.name+" TestIt"), results); both[0].Holds != c.holds {
			t.Errorf("one good test makes up for one that %s", c.name)
		}
	}
	// The worst of several runs counts, and a row without tests never holds.
	failed := strings.ReplaceAll(string(output), "tried/fails", "tried/passes")
	results, err = profile.ReadResults(strings.NewReader(failed+string(output)), nil)
	if err != nil || profile.Judge(row("tried/passes TestIt"), results)[0].Holds {
		t.Errorf("one good run of two: %v %v", results, err)
	}
	if r := profile.Judge(row(), results); r[0].Holds || r[0].Rows[0].Why != "no test shows it" || profile.Judge([]profile.Profile{{Name: "empty"}}, results)[0].Holds {
		t.Errorf("without tests: %+v", r)
	}
}
