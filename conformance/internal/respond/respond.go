// Package respond answers the requests of the conformance runner with this
// product: the reference responder. One operation is one function of bytes and
// parameters; the table below is what README.md and OPERATIONS.md document.
package respond

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"fcp"
)

// MaxLine bounds one line of the protocol, in bytes.
const MaxLine = 8 << 20

// Request asks for one operation.
type Request struct {
	ID     uint64            `json:"id"`
	Op     string            `json:"op"`
	Input  string            `json:"input"` // hex
	Params map[string]string `json:"params"`
}

// Response answers the request with the same id. Of OK, Error and Unsupported one
// counts: a false OK needs an Error.
type Response struct {
	ID          uint64 `json:"id"`
	OK          bool   `json:"ok"`
	Output      string `json:"output,omitempty"` // hex
	Error       string `json:"error,omitempty"`  // "FCP-1003"
	Unsupported bool   `json:"unsupported,omitempty"`
}

// Operation is one row of the table.
type Operation struct {
	Name   string
	Input  string // what the input is
	Params []Param
	Output string // what the output is
	run    func(in []byte, p *params) ([]byte, error)
}

// Param is one parameter: always a text.
type Param struct{ Name, Meaning string }

// Operations returns the table, by name.
func Operations() []Operation {
	all := slices.Concat(encodingOps, identityOps, signedOps, sealedOps, meshOps, symbolOps, sharedOps)
	slices.SortFunc(all, func(a, b Operation) int { return strings.Compare(a.Name, b.Name) })
	return all
}

var byName = func() map[string]*Operation {
	m := map[string]*Operation{}
	for _, o := range Operations() {
		m[o.Name] = &o
	}
	return m
}()

// Answer answers one request. It never fails: what the product refuses is an
// error of the response, and so is a request that makes no sense (FCP-1001).
func Answer(r Request) Response {
	op := byName[r.Op]
	if op == nil {
		return Response{ID: r.ID, Unsupported: true}
	}
	in, err := hex.DecodeString(r.Input)
	if err == nil {
		p := &params{values: r.Params}
		var out []byte
		if out, err = op.run(in, p); p.err != nil {
			err = p.err
		} else if err == nil {
			return Response{ID: r.ID, OK: true, Output: hex.EncodeToString(out)}
		}
	}
	code := fcp.CodeOf(err)
	if code == 0 {
		code = fcp.CodeInvalidArgument
	}
	return Response{ID: r.ID, Error: code.String()}
}

// Serve answers every line of in until it ends.
func Serve(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), MaxLine)
	w := bufio.NewWriter(out)
	for lines.Scan() {
		var r Request
		d := json.NewDecoder(strings.NewReader(lines.Text()))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			return fmt.Errorf("a line that is no request: %w", err)
		}
		b, err := json.Marshal(Answer(r))
		if err != nil {
			return err
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return lines.Err()
}

// params reads parameters; the first that cannot be used stays in err.
type params struct {
	values map[string]string
	err    error
}

func (p *params) bad(name string, err error) {
	if p.err == nil {
		p.err = fcp.Wrap(fcp.CodeInvalidArgument, err, "parameter %s", name)
	}
}

func (p *params) text(name string) string {
	v, ok := p.values[name]
	if !ok {
		p.bad(name, fcp.Errorf(fcp.CodeInvalidArgument, "is missing"))
	}
	return v
}

// bytes reads hex; n is its length in bytes, -1 for any.
func (p *params) bytes(name string, n int) []byte {
	b, err := hex.DecodeString(p.text(name))
	if err == nil && n >= 0 && len(b) != n {
		err = fcp.Errorf(fcp.CodeInvalidArgument, "%d bytes", len(b))
	}
	if err != nil {
		p.bad(name, err)
		return make([]byte, max(n, 0))
	}
	return b
}

func (p *params) hash(name string) fcp.Hash { return fcp.Hash(p.bytes(name, fcp.HashSize)) }

func (p *params) key(name string) [32]byte { return [32]byte(p.bytes(name, 32)) }

func (p *params) number(name string) uint64 {
	n, err := strconv.ParseUint(p.text(name), 10, 64)
	if err != nil {
		p.bad(name, err)
	}
	return n
}

// small is a number that fits an int with room to spare.
func (p *params) small(name string) int { return int(min(p.number(name), 1<<26)) }

func (p *params) time(name string) time.Time {
	return time.Unix(int64(min(p.number(name), 253402300799)), 0).UTC()
}

func (p *params) zone(name string) fcp.ZoneID {
	z, err := fcp.ParseZoneID(p.text(name))
	if err != nil {
		p.bad(name, err)
	}
	return z
}

func (p *params) schema(name string) fcp.Schema {
	id, err := fcp.ParseSchemaID(p.text(name))
	if err != nil {
		p.bad(name, err)
		return fcp.SchemaBlob
	}
	s, err := fcp.NewSchema(id)
	if err != nil {
		p.bad(name, err)
	}
	return s
}

// list splits a text at commas; "" is no element.
func (p *params) list(name string) []string {
	v := p.text(name)
	if v == "" {
		return nil
	}
	return strings.Split(v, ",")
}
