package rfc6330

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// TestTablesEqualTheSharedCopy compares the generated tables with the plain-data
// copy they were generated from, where that is at hand.
func TestTablesEqualTheSharedCopy(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(projectRoot(t), "..", "shared", "rfc6330", "tables.json"))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("shared data must be present under CI: %v", err)
		}
		t.Skipf("did not run: %v", err)
	}
	var want struct {
		Max            int         `json:"K_prime_max"`
		Rows           [][5]uint32 `json:"systematic_index_table"`
		Degree         []uint32    `json:"degree_distribution"`
		V0, V1, V2, V3 []uint32
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	if want.Max != MaxKPrime || len(want.Rows) != len(systematic) {
		t.Fatalf("K'max %d and %d rows, want %d and %d", MaxKPrime, len(systematic), want.Max, len(want.Rows))
	}
	for i, r := range want.Rows {
		if systematic[i] != (indexRow{r[0], r[1], r[2], r[3], r[4]}) {
			t.Errorf("row %d is %v, want %v", i, systematic[i], r)
		}
	}
	check := func(name string, got, want []uint32) {
		if len(got) != len(want) {
			t.Fatalf("%s has %d entries, want %d", name, len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s[%d] = %d, want %d", name, i, got[i], want[i])
			}
		}
	}
	check("degree", degree[:], want.Degree)
	check("V0", v0[:], want.V0)
	check("V1", v1[:], want.V1)
	check("V2", v2[:], want.V2)
	check("V3", v3[:], want.V3)
}

func projectRoot(t *testing.T) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
}

// TestBlockParameters checks, for all K', the relations the rest of the package
// relies on.
func TestBlockParameters(t *testing.T) {
	last := uint32(0)
	for _, r := range systematic {
		b, ok := ForK(int(last) + 1)
		if !ok || b.KPrime != r.kPrime || b.KPrime <= last {
			t.Fatalf("K=%d: K'=%d, want %d", last+1, b.KPrime, r.kPrime)
		}
		last = b.KPrime
		if !isPrime(b.S) || !isPrime(b.W) || !isPrime(b.P1) || b.P1 < b.P || b.P < b.H || b.W <= b.S || b.W+b.U != b.KPrime+b.S {
			t.Errorf("K'=%d: %+v", b.KPrime, b)
		}
		if 1+(b.B-1)/b.S >= b.S {
			t.Errorf("K'=%d: a symbol is in one LDPC row twice", b.KPrime)
		}
	}
	for _, k := range []int{-1, 0, MaxKPrime + 1} {
		if _, ok := ForK(k); ok {
			t.Errorf("K=%d is accepted", k)
		}
	}
}

// TestRowsHaveDistinctColumns: no symbol may be named twice, for it would cancel.
func TestRowsHaveDistinctColumns(t *testing.T) {
	for _, k := range []int{1, 10, 49, 101, 1000, 56403} {
		b, _ := ForK(k)
		for x := uint32(0); x < 20000; x++ {
			row, n := b.AppendRow(nil, x*839)
			seen := map[uint32]bool{}
			for i, c := range row {
				if seen[c] || (i < n) != (c < b.W) || c >= b.L {
					t.Fatalf("K=%d X=%d: row %v", k, x*839, row)
				}
				seen[c] = true
			}
			if len(row) > MaxRow {
				t.Fatalf("K=%d X=%d: %d columns", k, x*839, len(row))
			}
		}
	}
}
