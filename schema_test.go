package fcp

import (
	"errors"
	"strings"
	"testing"
)

func TestParseSchemaID(t *testing.T) {
	for _, s := range []string{
		"fcp.core:Blob@1.0.0", "fcp.connector_state:state_object@1.0.0", "a:b@0.0.0", "a:b@1.2.3-rc.1", "a:b@1.2.3+build.01",
		"a:b@1.2.3-0a.x-y+b", "a:b@18446744073709551615.0.0",
	} {
		if id, err := ParseSchemaID(s); err != nil || id.String() != s {
			t.Errorf("%q: %v", s, err)
		}
	}
	for s, want := range map[string]Reason{
		"": ReasonEmpty, "é:b@1.0.0": ReasonASCII, strings.Repeat("a", MaxSchemaID+1): ReasonTooLong,
		strings.Repeat("a", MaxSchemaPart+1) + ":b@1.0.0": ReasonTooLong, "a:b@1.0.0-" + strings.Repeat("a", MaxSchemaVersion): ReasonTooLong,
		"a": ReasonSyntax, "a:b": ReasonSyntax, "a@1.0.0": ReasonSyntax, ":b@1.0.0": ReasonSyntax, "a:@1.0.0": ReasonSyntax,
		"a:b:c@1.0.0": ReasonChar, "a b:c@1.0.0": ReasonChar, ".a:b@1.0.0": ReasonStart, "a:-b@1.0.0": ReasonStart,
		"a:b@": ReasonVersion, "a:b@1": ReasonVersion, "a:b@1.0": ReasonVersion, "a:b@1.0.0.0": ReasonVersion,
		"a:b@01.0.0": ReasonVersion, "a:b@v1.0.0": ReasonVersion, "a:b@1.0.0-": ReasonVersion, "a:b@1.0.0+": ReasonVersion,
		"a:b@1.0.0-01": ReasonVersion, "a:b@1.0.0@1.0.0": ReasonVersion, "a:b@+1.0.0": ReasonVersion, "a:b@1_0.0.0": ReasonVersion,
		"a:b@18446744073709551616.0.0": ReasonVersion, "a:b@1.0.0-a..b": ReasonVersion,
	} {
		if _, err := ParseSchemaID(s); !errors.Is(err, want) || !errors.Is(err, CodeInvalidArgument) {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
}

func TestBuiltinSchemasAreDistinctAndKnown(t *testing.T) {
	seen := map[Hash]bool{}
	for _, s := range BuiltinSchemas() {
		if seen[s.Hash()] || s.Hash() != s.ID().Hash() {
			t.Errorf("%s: hash %s", s, s.Hash())
		}
		seen[s.Hash()] = true
		if got, err := LookupSchema(s.ID()); err != nil || got != s {
			t.Errorf("%s: %v", s, err)
		}
		if len(s.header) > maxPlainStart {
			t.Errorf("%s: its plain header begins with %d bytes", s, len(s.header))
		}
	}
	if len(builtinByHeader) != len(seen) {
		t.Error("two schemas share a header")
	}
	if s, err := LookupSchema(SchemaID{"a", "b", "1.0.0"}); err != nil || s.Hash() != s.ID().Hash() {
		t.Errorf("an unknown schema: %v", err)
	}
	if _, err := LookupSchema(SchemaID{}); !errors.Is(err, CodeInvalidArgument) {
		t.Errorf("an empty schema: %v", err)
	}
}

func TestEveryKindNamesAParseableSchema(t *testing.T) {
	for _, k := range Kinds() {
		if s := k.Info().Schema; s != "" {
			id, err := ParseSchemaID(s)
			if err != nil || builtinSchemasByID[id] == nil {
				t.Errorf("kind %s: schema %q is not built in: %v", k, s, err)
			}
		}
	}
}

func FuzzParseSchemaID(f *testing.F) {
	for _, s := range []string{"", "fcp.core:Blob@1.0.0", "a:b@1.2.3-rc.1+x", "a:b@01.0.0", "@:", ":@", "a@b:1.0.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseSchemaID(s)
		if err != nil {
			return
		}
		if id.String() != s || !id.Valid() {
			t.Fatalf("%q became %q", s, id)
		}
		data := must(Marshal(id))
		var back SchemaID
		if err := Unmarshal(data, &back); err != nil || back != id || back.Hash() != id.Hash() {
			t.Fatalf("%q: %v", s, err)
		}
	})
}
