package arch

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// decoderName matches functions that turn outside bytes into values.
var decoderName = regexp.MustCompile(`^(Decode|Parse|Unmarshal|decode|parse|unmarshal)([A-Z].*)?$`)

// fuzzedThrough lists decoders that no fuzz target calls by name, with the
// target that reaches them.
var fuzzedThrough = map[string]string{
	"DecodeContent":                  "FuzzEvent",
	"DecodeEvent":                    "FuzzEvent",
	"UnmarshalPayload":               "FuzzUnmarshal",
	"decodeCanonical":                "FuzzUnmarshal",
	"decodePlainHeader":              "FuzzDecodeObject",
	"authority.decodeHead":           "FuzzAuditHead",
	"authority.decodeSigned":         "FuzzManifest",
	"authority.decodeStateChange":    "FuzzStateRecords",
	"authority/crdt.decodeGCounter":  "FuzzDecode",
	"authority/crdt.decodePNCounter": "FuzzDecode",
	"authority/crdt.decodeMap":       "FuzzDecode",
	"authority/crdt.decodeSet":       "FuzzDecode",
	"authority.parsePaper":           "FuzzPaperShare",
	"authority/keystore.decode":      "FuzzIdentityFile",
	"coding.ParsePayloadID":          "FuzzPayloadID",
	"engine.decodeSchemaBody":        "FuzzGovernanceBodies",
	"engine.ParseSymbolPolicy":       "FuzzSymbolPolicy",
	"node/connector.Decode":          "FuzzDecode",
	"node/connector.unmarshalEnum":   "FuzzDecode",
	"log.parseBlock":                 "FuzzBlock",
}

// TestEveryDecoderIsFuzzed fails for a decoder that no fuzz target of its own
// package reaches.
func TestEveryDecoderIsFuzzed(t *testing.T) {
	files := load(t)
	used := map[string][]string{} // dir -> identifiers in fuzz targets
	targets := map[string]bool{}
	for _, f := range files {
		if !f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			targets[f.dir+"."+fn.Name.Name] = true
			ast.Inspect(fn, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					used[f.dir] = append(used[f.dir], id.Name)
				}
				return true
			})
		}
	}
	seen := map[string]bool{}
	for _, f := range files {
		if f.test || under(f.dir, "internal") || under(f.dir, "cmd") || strings.Contains(f.dir, "/internal/rfc6330") {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !decoderName.MatchString(fn.Name.Name) || !takesBytes(fn) {
				continue
			}
			name := strings.TrimPrefix(f.dir+"."+fn.Name.Name, "..")
			seen[name] = true
			if slices.Contains(used[f.dir], fn.Name.Name) {
				continue
			}
			via, ok := fuzzedThrough[name]
			if !ok {
				t.Errorf("%s (%s) decodes bytes and no fuzz target of its package calls it", name, f.path)
			} else if !targets[f.dir+"."+via] {
				t.Errorf("%s is said to be fuzzed by %s, which does not exist", name, via)
			}
		}
	}
	for name := range fuzzedThrough {
		if !seen[name] {
			t.Errorf("%s is listed as fuzzed but does not exist", name)
		}
	}
	if len(targets) < 20 {
		t.Errorf("only %d fuzz targets found; is the walk looking at the right tree?", len(targets))
	}
}

// takesBytes reports whether a parameter is []byte or string.
func takesBytes(fn *ast.FuncDecl) bool {
	for _, p := range fn.Type.Params.List {
		switch t := p.Type.(type) {
		case *ast.Ident:
			if t.Name == "string" {
				return true
			}
		case *ast.ArrayType:
			if id, ok := t.Elt.(*ast.Ident); ok && t.Len == nil && id.Name == "byte" {
				return true
			}
		}
	}
	return false
}
