package conformance

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"fcp"
	"fcp/conformance/internal/catalog"
	"fcp/internal/cddl"
)

// loadCDDL reads every file of cddl/.
func loadCDDL(t testing.TB) *cddl.Schema {
	t.Helper()
	names, err := filepath.Glob("cddl/*.cddl")
	if err != nil || len(names) == 0 {
		t.Fatal("no CDDL", err)
	}
	var texts []string
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	s, err := cddl.Parse(texts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ruleOf maps what the comments say: schemas, and Go types, to rules.
func ruleOf(t testing.TB, s *cddl.Schema, label string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range s.Rules() {
		for _, said := range r.Says(label) {
			if out[said] != "" {
				t.Errorf("the rules %s and %s are both of %s", out[said], r.Name, said)
			}
			out[said] = r.Name
		}
	}
	return out
}

// source parses the product's Go files, without tests and conformance itself.
func source(t testing.TB) map[string][]*ast.File {
	t.Helper()
	out := map[string][]*ast.File{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == "bench" || rel == "conformance" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && rel != "." {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		out[filepath.ToSlash(filepath.Dir(rel))] = append(out[filepath.ToSlash(filepath.Dir(rel))], f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// noBody are schemas without a payload of their own, and why.
var noBody = map[string]string{
	"fcp.core:RawChunk@1.0.0":        "only in the id of a chunk, whose stored form is its bytes",
	"fcp.core:CapabilityToken@1.0.0": "a token is a COSE_Sign1 (rule CapabilityToken) without a schema hash",
	"fcp.core:RevocationHead@1.0.0":  "reserved; what it would say is in the zone checkpoint",
	"fcp.core:TrustAnchors@1.0.0":    "reserved; genesis and enrollments say it",
	"fcp.lease:subject@1.0.0":        "only in ids of subjects that have a name and no object",
}

// TestEverySchemaHasARule fails for a schema of the product without a rule, and for
// a rule of a schema that the product does not have.
func TestEverySchemaHasARule(t *testing.T) {
	rules := ruleOf(t, loadCDDL(t), "schema")
	used := map[string]bool{}
	for _, files := range source(t) {
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				l, ok := n.(*ast.BasicLit)
				if !ok || l.Kind != token.STRING {
					return true
				}
				text, err := strconv.Unquote(l.Value)
				if id, e := fcp.ParseSchemaID(text); err == nil && e == nil && strings.HasPrefix(id.Namespace, "fcp.") {
					used[text] = true
				}
				return true
			})
		}
	}
	for _, s := range fcp.BuiltinSchemas() {
		used[s.String()] = true
	}
	for _, k := range fcp.Kinds() {
		if s := k.Info().Schema; s != "" {
			used[s] = true
		}
	}
	for _, s := range slices.Sorted(maps.Keys(used)) {
		if rules[s] == "" && noBody[s] == "" {
			t.Errorf("%s has no rule in cddl/", s)
		}
		if rules[s] != "" && noBody[s] != "" {
			t.Errorf("%s has a rule and is said to have no body", s)
		}
	}
	for s := range rules {
		if !used[s] {
			t.Errorf("the rule %s is of %s, which the product does not have", rules[s], s)
		}
	}
	if len(used) < 50 {
		t.Errorf("only %d schemas found; is the walk looking at the right tree?", len(used))
	}
}

// structField is a field with a cbor tag.
type structField struct {
	name      string
	omitempty bool
}

// cborStructs returns the product's struct types with cbor tags, as package.Type.
func cborStructs(t testing.TB) map[string][]structField {
	out := map[string][]structField{}
	for _, files := range source(t) {
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				st, ok := spec.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, field := range st.Fields.List {
					if field.Tag == nil {
						continue
					}
					raw, err := strconv.Unquote(field.Tag.Value)
					tag, ok := reflect.StructTag(raw).Lookup("cbor")
					if err != nil || !ok {
						continue
					}
					name, rest, _ := strings.Cut(tag, ",")
					key := f.Name.Name + "." + spec.Name.Name
					out[key] = append(out[key], structField{name, strings.Contains(rest, "omitempty")})
				}
				return true
			})
		}
	}
	return out
}

// sameFields are types that repeat the fields of another, and which.
var sameFields = map[string]string{
	"fcp.cardBody": "fcp.Card without its signature",
}

// TestEveryStructHasARule compares fields: the rule of a type has its fields and no
// others, and what is optional in the rule may be left out by the encoder.
func TestEveryStructHasARule(t *testing.T) {
	s := loadCDDL(t)
	rules := ruleOf(t, s, "go")
	structs := cborStructs(t)
	for _, name := range slices.Sorted(maps.Keys(structs)) {
		rule := rules[name]
		if rule == "" {
			if sameFields[name] == "" {
				t.Errorf("%s has no rule in cddl/", name)
			}
			continue
		}
		keys := s.Keys(rule)
		for _, f := range structs[name] {
			optional, ok := keys[f.name]
			if !ok {
				t.Errorf("%s: the rule %s has no %q", name, rule, f.name)
			} else if optional && !f.omitempty {
				t.Errorf("%s: %q is optional in the rule %s and always encoded", name, f.name, rule)
			}
			delete(keys, f.name)
		}
		for k := range keys {
			t.Errorf("%s: the rule %s has a %q", name, rule, k)
		}
	}
	for name, rule := range rules {
		if structs[name] == nil {
			t.Errorf("the rule %s is of %s, which the product does not have", rule, name)
		}
	}
}

// encodings are the examples by rule: those of the catalog and those of a store.
func encodings(t testing.TB) map[string][][]byte {
	t.Helper()
	s := loadCDDL(t)
	rules := ruleOf(t, s, "schema")
	out := map[string][][]byte{}
	c, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Objects {
		o := &c.Objects[i]
		rule := o.Rule
		if o.Schema != "" {
			if rule = rules[o.Schema]; rule == "" {
				t.Errorf("the example %s is of %s, which has no rule", o.Name, o.Schema)
				continue
			}
			schema := fcp.MustSchema(o.Schema)
			if _, err := fcp.PayloadBody(schema, o.Bytes); err != nil {
				t.Errorf("the example %s: %v", o.Name, err)
			}
		}
		out[rule] = append(out[rule], o.Body())
	}
	cases := loadVectors(t)
	for i := range cases { // a box of the hybrid KEM is only there
		if cases[i].Name == "boxes-hybrid" {
			out["ZoneKeyManifest"] = append(out["ZoneKeyManifest"], cases[i].Input[fcp.HashSize:])
		}
	}
	for _, more := range []map[string][][]byte{storeEncodings(t, rules), hashedEncodings(t, c)} {
		for rule, list := range more {
			out[rule] = append(out[rule], list...)
		}
	}
	return out
}

// elsewhere are rules whose encodings other tests hold against the CDDL.
func elsewhere(rule *cddl.Rule) bool {
	for _, s := range rule.Says("schema") {
		if strings.HasPrefix(s, "fcp.mesh:") {
			return true // node/cddl_test.go, where the messages are
		}
	}
	for _, g := range rule.Says("go") {
		if strings.HasPrefix(g, "node.") || strings.HasPrefix(g, "gossip.") {
			return true
		}
	}
	return false
}

// partOf are rules of objects that never stand alone or that have an encoding as part
// of another.
var partOf = map[string]string{
	"genesis": "ZoneCheckpoint", "owner-checkpoint": "ZoneCheckpoint", "zone-checkpoint": "ZoneCheckpoint", "sealed-box": "ZoneKeyManifest",
	"signed-checkpoint": "Signed", "Proposal": "Proposed", "StateChange": "StateDelta and StateSnapshot", "spent-entry": "Spent", "reference-box": "ReferenceManifest", "reference-wrapped-key": "ReferenceManifest",
}

// TestEncodingsMatchTheCDDL holds real encodings against their rules, each rule of
// an object at least one, and then breaks each encoding in every field.
func TestEncodingsMatchTheCDDL(t *testing.T) {
	s := loadCDDL(t)
	all := encodings(t)
	for _, r := range s.Rules() {
		if len(r.Says("schema"))+len(r.Says("object")) == 0 || elsewhere(r) || partOf[r.Name] != "" {
			continue
		}
		if len(all[r.Name]) == 0 {
			t.Errorf("no encoding is held against the rule %s", r.Name)
		}
	}
	types := map[string]string{} // rule -> Go type
	for name, rule := range ruleOf(t, s, "go") {
		types[rule] = name
	}
	structs := cborStructs(t)
	for rule, list := range split(s, all) {
		mandatory := map[string]bool{"signature": true, "1": true}
		for _, f := range structs[types[rule]] {
			mandatory[f.name] = mandatory[f.name] || !f.omitempty
		}
		for _, b := range list {
			if err := s.Match(rule, b); err != nil {
				t.Errorf("%v\n%x", err, b)
				continue
			}
			for _, m := range cddl.Mutations(b) {
				if m.Lost != "" && !mandatory[m.Lost] {
					continue
				}
				if s.Match(rule, m.Bytes) == nil && rule != "Blob" {
					t.Errorf("%s: matches with %s", rule, m.What)
				}
			}
		}
	}
}

// split moves encodings of a choice to the part of it that they are.
func split(s *cddl.Schema, all map[string][][]byte) map[string][][]byte {
	out := map[string][][]byte{}
	for rule, list := range all {
		for _, b := range list {
			to := rule
			for part, whole := range partOf {
				if whole == rule && s.Match(part, b) == nil {
					to = part
				}
			}
			out[to] = append(out[to], b)
		}
	}
	return out
}
