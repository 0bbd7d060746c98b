package conformance

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"fcp/conformance/internal/respond"
	"fcp/conformance/internal/run"
	"fcp/conformance/internal/vectors"
)

func loadVectors(t testing.TB) []vectors.Case {
	t.Helper()
	cases, err := vectors.Load(os.DirFS("vectors"))
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

// TestVectorsAreWhatTheProductSays makes every vector again and compares all bytes
// of all files; a file too many is an error as well.
func TestVectorsAreWhatTheProductSays(t *testing.T) {
	cases, err := vectors.All()
	if err != nil {
		t.Fatal(err)
	}
	files, err := vectors.Files(cases)
	if err != nil {
		t.Fatal(err)
	}
	there := 0
	err = fs.WalkDir(os.DirFS("vectors"), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		there++
		got, err := os.ReadFile("vectors/" + path)
		if want, ok := files[path]; !ok || !bytes.Equal(got, want) {
			t.Errorf("%s is not what `go generate ./conformance` writes", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if there != len(files) {
		t.Errorf("%d files, the generator writes %d", there, len(files))
	}
	got, err := os.ReadFile("OPERATIONS.md")
	if err != nil || !bytes.Equal(got, vectors.Operations(cases)) {
		t.Errorf("OPERATIONS.md is not what `go generate ./conformance` writes (%v)", err)
	}
}

// TestVectorsCoverTheOperations asks for both kinds of vector of each operation that
// can refuse, and reads the files back.
func TestVectorsCoverTheOperations(t *testing.T) {
	cases := loadVectors(t)
	good, bad := map[string]int{}, map[string]int{}
	for i := range cases {
		c := &cases[i]
		if c.Error == 0 {
			good[c.Op]++
		} else {
			bad[c.Op]++
		}
		if got := respond.Answer(c.Request(5)); got != c.Want(5) {
			t.Errorf("%s/%s: %+v", c.Class, c.Name, got)
		}
	}
	total := map[string]bool{"kid": true, "writer.id": true, "content.unscoped": true, "replay.accept": true, "symbol.commit": true,
		"segment.source": true, "hello.cookie": true, "checkpoints.judge": true}
	for _, o := range respond.Operations() {
		if good[o.Name] == 0 || bad[o.Name] == 0 && !total[o.Name] {
			t.Errorf("%s has %d good and %d refused vectors", o.Name, good[o.Name], bad[o.Name])
		}
	}
}

// program returns the command that runs this test as a responder.
func program(t testing.TB, mode string) string {
	t.Helper()
	t.Setenv(responderVariable, mode)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func TestTheRunnerPassesOurResponder(t *testing.T) {
	r, err := run.Run(t.Context(), program(t, "right"), loadVectors(t), run.Options{Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil || !r.Passed() || r.Asked < 200 {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// TestTheRunnerFindsEachKindOfError runs a responder for each way to be wrong, as a
// process.
func TestTheRunnerFindsEachKindOfError(t *testing.T) {
	for mode, want := range map[string]run.Kind{
		"accepts": run.Accepted, "refuses": run.Refused, "other code": run.WrongCode, "other output": run.WrongOutput, "both": run.Contradictory,
		"unsupported": run.NotThere, "other id": run.WrongID, "two lines": run.NoProtocol, "garbage": run.NoProtocol,
		"silent": run.TooSlow, "hangs": run.TooSlow, "ends": run.Ended,
	} {
		t.Run(strings.ReplaceAll(mode, " ", "-"), func(t *testing.T) {
			o := run.Options{Timeout: time.Minute}
			if want == run.TooSlow {
				o.Timeout = 2 * time.Second
			}
			cases := loadVectors(t)
			r, err := run.Run(t.Context(), program(t, mode), cases, o)
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			for _, f := range r.Findings {
				if f.Kind == want {
					found++
				}
			}
			if found == 0 || r.Passed() || len(r.Findings) != r.Asked-r.Good {
				t.Errorf("%d of %d findings are %q: %+v", found, len(r.Findings), want, r.Findings)
			}
			if r.Asked+r.Skipped != len(cases) {
				t.Errorf("%d asked and %d skipped of %d", r.Asked, r.Skipped, len(cases))
			}
			if mode == "ends" && !strings.Contains(r.Findings[len(r.Findings)-1].Detail, "no more") {
				t.Error("what the program said last is not shown")
			}
			if mode == "accepts" {
				want := 0
				for i := range cases {
					if cases[i].Error != 0 {
						want++
					}
				}
				if found != want {
					t.Errorf("%d of %d wrong answers were found", found, want)
				}
			}
		})
	}
	if _, err := run.Run(t.Context(), "/does/not/exist", loadVectors(t), run.Options{}); err == nil {
		t.Error("a program that is not there was asked")
	}
	if _, err := run.Run(t.Context(), program(t, "right"), loadVectors(t), run.Options{Class: "none"}); err == nil {
		t.Error("a run without vectors")
	}
}

// FuzzAnswer changes the input and one parameter of a vector.
func FuzzAnswer(f *testing.F) {
	cases := loadVectors(f)
	for i := range cases {
		for _, p := range slices.Sorted(maps.Keys(cases[i].Params)) {
			if len(cases[i].Input) < 2000 && len(cases[i].Params[p]) < 2000 {
				f.Add(i, cases[i].Input, p, cases[i].Params[p])
			}
		}
	}
	f.Fuzz(func(t *testing.T, i int, in []byte, param, value string) {
		if i < 0 || i >= len(cases) || len(in) > 1<<14 || len(value) > 1<<14 {
			return
		}
		c := cases[i]
		c.Input, c.Params = in, maps.Clone(c.Params)
		if _, ok := c.Params[param]; ok {
			c.Params[param] = value
		}
		a := respond.Answer(c.Request(1))
		if a.OK == (a.Error != "") || a.Error == "FCP-9001" {
			t.Errorf("%s: %+v", c.Op, a)
		}
	})
}
