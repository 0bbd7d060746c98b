// Package vectors makes the golden vectors: requests of the runner's protocol with
// their answers, always the same, and their files. What an invalid vector must be
// refused with is written here and never computed.
package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fcp"
	"fcp/conformance/internal/respond"
)

// Case is one vector.
type Case struct {
	Class    string            // its folder
	Name     string            // unique in the class
	What     string            // what it shows
	Op       string            // operation of the protocol
	Params   map[string]string // its parameters
	Input    []byte            // the bytes in question
	CBOR     bool              // Input is CBOR, behind a schema hash perhaps
	Error    fcp.Code          // that it must be refused with; 0: it is good
	Output   []byte            // of a good one
	ObjectID *fcp.ObjectID     // of an object

	parts []part // of Input, for the annotation of what is no CBOR
}

// part is a run of bytes and what it is.
type part struct {
	n    int
	what string
}

// file is the JSON form of a case.
type file struct {
	Name     string            `json:"name"`
	What     string            `json:"what"`
	Op       string            `json:"op"`
	Params   map[string]string `json:"params"`
	Input    string            `json:"input"` // file beside this one
	Expect   expect            `json:"expect"`
	Annotate []string          `json:"annotation"`
}

type expect struct {
	OK     bool   `json:"ok"`
	Output string `json:"output,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Request returns what the runner asks.
func (c *Case) Request(id uint64) respond.Request {
	return respond.Request{ID: id, Op: c.Op, Input: hex.EncodeToString(c.Input), Params: c.Params}
}

// Want returns the answer.
func (c *Case) Want(id uint64) respond.Response {
	if c.Error != 0 {
		return respond.Response{ID: id, Error: c.Error.String()}
	}
	return respond.Response{ID: id, OK: true, Output: hex.EncodeToString(c.Output)}
}

// ext is the extension of the input's file.
func (c *Case) ext() string {
	if c.CBOR {
		return ".cbor"
	}
	return ".bin"
}

// Files returns the files of the cases by path.
func Files(cases []Case) (map[string][]byte, error) {
	out := map[string][]byte{}
	for i := range cases {
		c := &cases[i]
		base := c.Class + "/" + c.Name
		if out[base+".json"] != nil {
			return nil, fmt.Errorf("two vectors are called %s", base)
		}
		f := file{Name: base, What: c.What, Op: c.Op, Params: c.Params, Input: c.Name + c.ext(),
			Expect: expect{OK: c.Error == 0, Output: hex.EncodeToString(c.Output)}, Annotate: c.annotate()}
		if c.Error != 0 {
			f.Expect.Error = c.Error.String()
		}
		if f.Params == nil {
			f.Params = map[string]string{}
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		if err := e.Encode(f); err != nil {
			return nil, err
		}
		out[base+".json"] = b.Bytes()
		out[base+c.ext()] = append([]byte{}, c.Input...)
		if c.ObjectID != nil {
			out[base+".objectid"] = []byte(c.ObjectID.String() + "\n")
		}
	}
	return out, nil
}

// Write makes dir hold exactly the files.
func Write(dir string, files map[string][]byte) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for name, b := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Load reads the vectors of a folder, sorted by name. It needs no code of the
// product but its table of error codes.
func Load(dir fs.FS) ([]Case, error) {
	var out []Case
	err := fs.WalkDir(dir, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".json") {
			return err
		}
		c, err := load(dir, path)
		if err == nil {
			out = append(out, c)
		}
		return err
	})
	slices.SortFunc(out, func(a, b Case) int { return strings.Compare(a.Class+"/"+a.Name, b.Class+"/"+b.Name) })
	return out, err
}

func load(dir fs.FS, path string) (c Case, err error) {
	b, err := fs.ReadFile(dir, path)
	if err != nil {
		return c, err
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	c = Case{What: f.What, Op: f.Op, Params: f.Params, CBOR: strings.HasSuffix(f.Input, ".cbor")}
	c.Class, c.Name, _ = strings.Cut(f.Name, "/")
	if c.Input, err = fs.ReadFile(dir, c.Class+"/"+f.Input); err != nil {
		return c, err
	}
	if c.Output, err = hex.DecodeString(f.Expect.Output); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if f.Expect.OK {
		return c, nil
	}
	for _, code := range fcp.Codes() {
		if code.String() == f.Expect.Error {
			c.Error = code
		}
	}
	if c.Error == 0 {
		return c, fmt.Errorf("%s: %q is no error code", path, f.Expect.Error)
	}
	return c, nil
}

// Operations returns the table of operations as Markdown, with how many vectors
// each has.
func Operations(cases []Case) []byte {
	good, bad := map[string]int{}, map[string]int{}
	for i := range cases {
		if cases[i].Error == 0 {
			good[cases[i].Op]++
		} else {
			bad[cases[i].Op]++
		}
	}
	var b strings.Builder
	b.WriteString("# Operations of the runner's protocol\n\nWritten by `go generate ./conformance`. Parameters are texts; bytes in them are hex, numbers decimal. " +
		"Vectors are counted as good and refused.\n\n| operation | input | parameters | output | vectors |\n|---|---|---|---|---|\n")
	for _, o := range respond.Operations() {
		var params []string
		for _, p := range o.Params {
			params = append(params, "`"+p.Name+"` "+p.Meaning)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %d + %d |\n", o.Name, o.Input, strings.Join(params, "; "), o.Output, good[o.Name], bad[o.Name])
	}
	return []byte(b.String())
}

// Classes returns the classes with the number of their cases.
func Classes(cases []Case) (names []string, count map[string]int) {
	count = map[string]int{}
	for i := range cases {
		count[cases[i].Class]++
	}
	return slices.Sorted(maps.Keys(count)), count
}
