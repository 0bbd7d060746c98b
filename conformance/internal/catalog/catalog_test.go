package catalog

import (
	"bytes"
	"testing"
)

func TestTheCatalogIsAlwaysTheSame(t *testing.T) {
	a, err := New()
	if err != nil {
		t.Fatal(err)
	}
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range a.Objects {
		o := &a.Objects[i]
		if seen[o.Name] {
			t.Errorf("two examples are called %s", o.Name)
		}
		seen[o.Name] = true
		if !bytes.Equal(o.Bytes, b.Objects[i].Bytes) {
			t.Errorf("%s: %d of its bytes differ from one run to the next", o.Name, len(o.Bytes))
		}
	}
	if len(a.Objects) < 40 {
		t.Errorf("only %d examples", len(a.Objects))
	}
}
