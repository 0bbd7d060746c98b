package main

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPlotDrawsEveryFigureAsAProperPicture(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	if err := os.WriteFile(path, []byte(`{"name":"a<b>","value":50,"unit":"events/s","better":"higher","limit":100,"ratio":0.5,"peers":{"bbolt":25,"etcd-wal":80}}
{"name":"c","value":0,"unit":"s","better":"lower","limit":null,"ratio":null,"peers":{}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := plotFile(path, ".", &out); err != nil {
		t.Fatal(err)
	}
	widths := map[string]bool{}
	dec := xml.NewDecoder(strings.NewReader(out.String()))
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
			for _, at := range e.Attr {
				if at.Name.Local == "width" {
					widths[at.Value] = true
				}
			}
		}
	}
	for _, w := range []string{"470.0", "235.0", "117.5", "376.0", "0.0"} {
		if !widths[w] {
			t.Errorf("no bar is %s wide: %v", w, widths)
		}
	}
	for _, s := range []string{"a&lt;b&gt;", "bbolt 25", "0.50 of the limit", "lower is better"} {
		if !strings.Contains(out.String(), s) {
			t.Errorf("the picture lacks %q", s)
		}
	}
	for _, bad := range []string{"", "no json\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := plotFile(path, ".", io.Discard); err == nil {
			t.Errorf("%q is drawn", bad)
		}
	}
	if err := plotFile(filepath.Join(t.TempDir(), "none"), ".", io.Discard); err == nil {
		t.Error("a missing report is drawn")
	}
}
