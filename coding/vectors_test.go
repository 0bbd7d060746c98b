package coding

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"fcp/coding/internal/gf256"
	"fcp/coding/internal/rfc6330"
)

// sharedFile reads a file of ../shared next to the project root. Where it is
// absent the test is skipped, except under CI.
func sharedFile(t *testing.T, name string) []byte {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
	raw, err := os.ReadFile(filepath.Join(dir, "..", "shared", filepath.FromSlash(name)))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("shared data must be present under CI: %v", err)
		}
		t.Skipf("did not run: %v", err)
	}
	return raw
}

type vectorFile struct {
	Blocks []struct {
		K, T, S, H, W, P, L, J, P1 int
		Kprime                     int
		Data                       string `json:"data_sha256"`
		Intermediate               string `json:"intermediate_sha256"`
		Symbols                    []struct {
			ESI    uint32
			SHA256 string
			Hex    string
		}
	}
	Tuples []struct {
		Kprime int
		Tuples []struct {
			X                   uint32
			D, A, B, D1, A1, B1 uint32
		}
	}
	Rand []struct{ Y, I, M, Value uint32 }
	Deg  []struct{ V, W, D uint32 }
	OTI  []struct {
		F      uint64
		P      uint16 `json:"P_prime"`
		WS     uint64
		Al     uint8
		SS     uint16
		T      uint16
		Z      uint8
		N      uint16
		OTIHex string `json:"oti_hex"`
	}
	Partition []struct{ I, J, IL, IS, JL, JS uint32 }
	Objects   []struct {
		F      uint64
		T      uint16
		Z      uint8
		N      uint16
		Al     uint8
		Repair int    `json:"repair_per_block"`
		OTIHex string `json:"oti_hex"`
		Data   string `json:"data_sha256"`
		Blocks []struct {
			SBN    uint8
			K      int
			First  string `json:"first_source_symbol_sha256"`
			Last   string `json:"last_source_symbol_sha256"`
			All    string `json:"all_source_symbols_sha256"`
			Repair string `json:"repair_symbols_sha256"`
			Header string `json:"first_repair_packet_header_hex"`
		}
	}
}

func readVectors(t *testing.T) *vectorFile {
	t.Helper()
	var v vectorFile
	if err := json.Unmarshal(sharedFile(t, "rfc6330/vectors.json"), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Blocks) == 0 || len(v.Objects) == 0 || len(v.Tuples) == 0 {
		t.Fatal("vectors.json has no vectors")
	}
	return &v
}

// ruleData is the data rule of the vectors.
func ruleData(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*131 + 7*(i>>8) + 3)
	}
	return b
}

func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// encoderFor returns an encoder that has encoded block.
func encoderFor(t testing.TB, k int, shape Shape, block []byte, workers int) *Encoder {
	t.Helper()
	plan, err := testPlans.Get(context.Background(), k)
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEncoder(plan, k, shape, EncoderOptions{Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Reset(block); err != nil {
		t.Fatal(err)
	}
	if err := e.Encode(context.Background()); err != nil {
		t.Fatal(err)
	}
	return e
}

var testPlans PlanCache

// intermediate returns C[0] || C[1] || ... of an encoder.
func intermediate(e *Encoder) []byte {
	size := e.shape.SymbolSize
	out := make([]byte, int(e.blk.L)*size)
	for c := range int(e.blk.L) {
		for i := range e.tiles {
			e.sum(out[c*size:(c+1)*size], &e.tiles[i], &sumScratch{rows: []uint32{1, uint32(c)}}, 1)
		}
	}
	return out
}

func TestVectorBlocks(t *testing.T) {
	for _, v := range readVectors(t).Blocks {
		b, ok := rfc6330.ForK(v.K)
		if !ok || int(b.KPrime) != v.Kprime || int(b.S) != v.S || int(b.H) != v.H || int(b.W) != v.W ||
			int(b.P) != v.P || int(b.L) != v.L || int(b.J) != v.J || int(b.P1) != v.P1 {
			t.Errorf("K=%d: parameters %+v, want %+v", v.K, b, v)
		}
		data := ruleData(v.K * v.T)
		if got := digest(data); got != v.Data {
			t.Fatalf("K=%d: data rule gives %s, want %s", v.K, got, v.Data)
		}
		e := encoderFor(t, v.K, Shape{SymbolSize: v.T}, data, 2)
		if got := digest(intermediate(e)); got != v.Intermediate {
			t.Errorf("K=%d T=%d: intermediate symbols %s, want %s", v.K, v.T, got, v.Intermediate)
		}
		buf := make([]byte, v.T)
		for _, s := range v.Symbols {
			if err := e.Symbol(buf, s.ESI); err != nil {
				t.Fatal(err)
			}
			if got := digest(buf); got != s.SHA256 || s.Hex != "" && hex.EncodeToString(buf) != s.Hex {
				t.Errorf("K=%d T=%d ESI=%d: symbol %x", v.K, v.T, s.ESI, buf)
			}
		}
	}
}

func TestVectorGenerators(t *testing.T) {
	v := readVectors(t)
	for _, x := range v.Rand {
		if got := rfc6330.Rand(x.Y, x.I, x.M); got != x.Value {
			t.Errorf("Rand[%d,%d,%d] = %d, want %d", x.Y, x.I, x.M, got, x.Value)
		}
	}
	for _, x := range v.Deg {
		b := rfc6330.Block{W: x.W}
		if got := b.Deg(x.V); got != x.D {
			t.Errorf("Deg[%d] with W=%d = %d, want %d", x.V, x.W, got, x.D)
		}
	}
	for _, g := range v.Tuples {
		b, _ := rfc6330.ForK(g.Kprime)
		for _, x := range g.Tuples {
			want := rfc6330.Tuple{D: x.D, A: x.A, B: x.B, D1: x.D1, A1: x.A1, B1: x.B1}
			if got := b.Tuple(x.X); got != want {
				t.Errorf("Tuple[%d,%d] = %+v, want %+v", g.Kprime, x.X, got, want)
			}
		}
	}
}

func TestVectorParams(t *testing.T) {
	v := readVectors(t)
	for _, x := range v.OTI {
		p, err := Derive(x.F, x.P, x.WS, x.Al, x.SS)
		want := Params{TransferLength: x.F, SymbolSize: x.T, SourceBlocks: x.Z, SubBlocks: x.N, Alignment: x.Al}
		if err != nil || p != want {
			t.Errorf("Derive(%d, %d, %d, %d, %d) = %+v, %v, want %+v", x.F, x.P, x.WS, x.Al, x.SS, p, err, want)
		}
		checkOTI(t, want, x.OTIHex)
	}
	for _, x := range v.Partition {
		il, is, jl, js := Partition(x.I, x.J)
		if il != x.IL || is != x.IS || jl != x.JL || js != x.JS {
			t.Errorf("Partition[%d,%d] = %d %d %d %d", x.I, x.J, il, is, jl, js)
		}
	}
}

func checkOTI(t *testing.T, p Params, want string) {
	t.Helper()
	raw, err := p.AppendBinary(nil)
	if err != nil || hex.EncodeToString(raw) != want {
		t.Errorf("%+v encodes to %x, %v, want %s", p, raw, err, want)
	}
	back, err := ParseParams(raw)
	if err != nil || back != p {
		t.Errorf("%s parses to %+v, %v", want, back, err)
	}
}

func TestVectorObjects(t *testing.T) {
	for _, v := range readVectors(t).Objects {
		p := Params{TransferLength: v.F, SymbolSize: v.T, SourceBlocks: v.Z, SubBlocks: v.N, Alignment: v.Al}
		checkOTI(t, p, v.OTIHex)
		data := ruleData(int(v.F))
		if digest(data) != v.Data {
			t.Fatal("data rule differs")
		}
		for _, b := range v.Blocks {
			info, err := p.Block(b.SBN)
			if err != nil || info.Symbols != b.K {
				t.Fatalf("block %d: %+v, %v, want K=%d", b.SBN, info, err, b.K)
			}
			e := encoderFor(t, b.K, p.Shape(), data[info.Offset:info.Offset+uint64(info.Length)], 1)
			size := int(v.T)
			all := make([]byte, b.K*size)
			for i := range b.K {
				if err := e.Symbol(all[i*size:(i+1)*size], uint32(i)); err != nil {
					t.Fatal(err)
				}
			}
			repair := make([]byte, v.Repair*size)
			if err := e.Repairs(repair, uint32(b.K), v.Repair); err != nil {
				t.Fatal(err)
			}
			if digest(all[:size]) != b.First || digest(all[len(all)-size:]) != b.Last || digest(all) != b.All {
				t.Errorf("F=%d block %d: source symbols differ", v.F, b.SBN)
			}
			if digest(repair) != b.Repair {
				t.Errorf("F=%d block %d: repair symbols differ", v.F, b.SBN)
			}
			if got := hex.EncodeToString(AppendPayloadID(nil, b.SBN, uint32(b.K))); got != b.Header {
				t.Errorf("payload id %s, want %s", got, b.Header)
			}
		}
	}
}

// TestVectorsUnderEveryForm runs vectors under each form of the kernels this
// processor has, also those it would not choose.
func TestVectorsUnderEveryForm(t *testing.T) {
	v := readVectors(t)
	best := gf256.Best
	defer func() { gf256.Best = best }()
	for _, gf256.Best = range gf256.Forms() {
		for _, b := range v.Blocks {
			if b.K > 2100 {
				continue
			}
			data := ruleData(b.K * b.T)
			e := encoderFor(t, b.K, Shape{SymbolSize: b.T}, data, 1)
			if got := digest(intermediate(e)); got != b.Intermediate {
				t.Errorf("form %s, K=%d T=%d: intermediate symbols differ", gf256.Best.Name, b.K, b.T)
			}
		}
		for _, by := range []way{byProducts, byReplay, byElimination} {
			testWay(t, 120, 9, Shape{SymbolSize: 460, SubBlocks: 3, Alignment: 4}, by)
		}
	}
}
