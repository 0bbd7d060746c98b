package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// file is one Go file of the module, parsed.
type file struct {
	path string // relative to the module root
	dir  string
	test bool
	ast  *ast.File
}

// load parses every Go file of the product's module.
func load(t *testing.T) []file {
	t.Helper()
	var out []file
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); rel == "bench" || name == "testdata" || strings.HasPrefix(name, ".") && rel != "." {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, file{path: rel, dir: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(rel, "_test.go"), ast: f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func imports(f *ast.File) []string {
	var out []string
	for _, i := range f.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue
		}
		out = append(out, p)
	}
	return out
}

// under reports whether dir is room or a folder inside it.
func under(dir, room string) bool { return dir == room || strings.HasPrefix(dir, room+"/") }

// law says which rooms of the house a room may import, itself aside. Everything
// may import the root package. What is not listed is forbidden.
var law = []struct {
	room   string
	may    []string
	reason string
}{
	{".", nil, "the vocabulary depends on nothing of ours"},
	{"log", nil, "log, coding, authority and gossip never import each other; engine injects what log needs"},
	{"coding", nil, "coding is a codec over bytes; it knows neither events nor zones"},
	{"authority", nil, "authority decides over facts that it is given"},
	{"gossip", nil, "gossip is a state machine without sockets"},
	{"engine", []string{"log", "coding", "authority"}, "engine joins log, coding and authority and knows no network"},
	{"node", []string{"engine", "log", "coding", "authority", "gossip"}, "an arrow permits everything below it"},
	{"cmd", []string{"node", "engine", "log", "coding", "authority"}, "commands use the engine, or a daemon through node"},
	{"conformance", []string{"node", "engine", "log", "coding", "authority", "gossip", "cmd"}, "conformance may look at everything and nothing imports it"},
	{"internal", nil, "internal serves others and depends on none of them"},
}

func TestPackagesImportOnlyWhatTheLawAllows(t *testing.T) {
	for _, f := range load(t) {
		i := slices.IndexFunc(law, func(l struct {
			room   string
			may    []string
			reason string
		}) bool {
			return l.room != "." && under(f.dir, l.room) || l.room == "." && f.dir == "."
		})
		if i < 0 {
			t.Errorf("%s is in no room of the house; the top level is fixed", f.path)
			continue
		}
		l := law[i]
		for _, p := range imports(f.ast) {
			target, ours := strings.CutPrefix(p, "fcp/")
			if !ours || under(target, l.room) || l.room == "." && f.test {
				continue
			}
			if under(target, "internal") && (f.test || !strings.Contains(target, "test")) {
				continue
			}
			if !slices.ContainsFunc(l.may, func(r string) bool { return under(target, r) }) {
				t.Errorf("%s imports %s: %s", f.path, p, l.reason)
			}
		}
	}
}

// keep names modules and standard packages that only some rooms may import.
var keep = []struct {
	match  *regexp.Regexp
	rooms  []string
	reason string
}{
	{regexp.MustCompile(`^log$`), nil, "the standard log package is banned: log is ours, messages go through slog"},
	{regexp.MustCompile(`^math/rand$`), []string{"-"}, "math/rand has global state; randomness is injected (math/rand/v2 with a seed in tests)"},
	{regexp.MustCompile(`^github.com/cockroachdb/pebble/v2/vfs`), []string{"log", "engine", "cmd", "internal", "authority/keystore"}, "file systems come in through vfs where files are used"},
	{regexp.MustCompile(`^github.com/cockroachdb/pebble`), []string{"log", "engine", "internal/crashfs"}, "Pebble stays behind log and engine"},
	{regexp.MustCompile(`^tailscale.com`), []string{"node/tailnet"}, "tsnet stays in node/tailnet"},
	{regexp.MustCompile(`^net$|^net/http$|^github.com/quic-go/`), []string{"node", "engine/blob"}, "sockets only in node (the S3 client in engine/blob excepted)"},
	{regexp.MustCompile(`^os/exec$`), []string{"cmd", "node", "conformance"}, "only commands start processes, and the conformance runner the program it asks"},
}

func TestKeptImportsStayInTheirRooms(t *testing.T) {
	for _, f := range load(t) {
		for _, p := range imports(f.ast) {
			for _, k := range keep {
				if !k.match.MatchString(p) {
					continue
				}
				strict := len(k.rooms) == 0
				if !slices.ContainsFunc(k.rooms, func(r string) bool { return under(f.dir, r) }) && (strict || !f.test) {
					t.Errorf("%s imports %s: %s", f.path, p, k.reason)
				}
				break
			}
		}
	}
}

// clockReaders may call time.Now: programs, where the clock enters.
var clockReaders = []string{"cmd"}

func TestTimeAndRandomnessAreInjected(t *testing.T) {
	for _, f := range load(t) {
		if f.test || under(f.dir, "internal") || slices.ContainsFunc(clockReaders, func(r string) bool { return under(f.dir, r) }) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == "time" && (sel.Sel.Name == "Now" || sel.Sel.Name == "Since") && id.Obj == nil {
				t.Errorf("%s calls time.%s: the clock is injected", f.path, sel.Sel.Name)
			}
			return true
		})
	}
}

func TestNoRoomHasAVagueName(t *testing.T) {
	for _, f := range load(t) {
		for _, part := range strings.Split(f.dir, "/") {
			switch part {
			case "util", "utils", "common", "types", "manager", "helper", "helpers", "misc":
				t.Errorf("%s: a package called %s says nothing about what is in it", f.path, part)
			}
		}
	}
}
