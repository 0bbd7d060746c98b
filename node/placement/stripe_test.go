package placement

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"fcp"
	"fcp/coding"
)

// drawEnrolled draws members as one node may know them: by the second of their enrollment,
// of which there are few, then by id.
func drawEnrolled(t *rapid.T) (ids []fcp.WriterID, second map[fcp.WriterID]int) {
	second = map[fcp.WriterID]int{}
	for range rapid.IntRange(1, 40).Draw(t, "members") {
		var id fcp.WriterID
		copy(id[:], rapid.SliceOfN(rapid.Byte(), len(id), len(id)).Draw(t, "id"))
		if _, ok := second[id]; !ok {
			ids = append(ids, id)
			second[id] = rapid.IntRange(0, 3).Draw(t, "second")
		}
	}
	return ids, second
}

func inOrder(ids []fcp.WriterID, second map[fcp.WriterID]int) []fcp.WriterID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b fcp.WriterID) int {
		if d := second[a] - second[b]; d != 0 {
			return d
		}
		return bytes.Compare(a[:], b[:])
	})
	return ids
}

// Members become known in any order, many of them enrolled in one second: a stripe
// once taken stays, but where the hashes of two meet.
func TestAStripeStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids, second := drawEnrolled(t)
		meet := map[uint32]int{}
		for _, id := range ids {
			meet[stripeHash(id, 0)]++
		}
		had := map[fcp.WriterID]uint32{}
		for n := range ids {
			known := inOrder(ids[:n+1], second)
			firsts := Stripes(known)
			seen := map[uint32]bool{}
			for i, id := range known {
				first := firsts[i]
				if first < stripeWidth || first+stripeWidth > coding.MaxESI+1 || first%stripeWidth != 0 || seen[first] {
					t.Fatalf("%x has its stripe at %d, as another or outside", id[:4], first)
				}
				seen[first] = true
				if was, ok := had[id]; ok && was != first && meet[stripeHash(id, 0)] == 1 && len(meet) == len(ids) {
					t.Fatalf("%x: %d became %d when %x became known", id[:4], was, first, ids[n][:4])
				}
				had[id] = first
			}
		}
	})
}

// Whose hashes meet: who was enrolled first keeps his place, and nobody else moves.
func TestTheLaterOfTwoTakesTheNextStripe(t *testing.T) {
	id := func(i int) fcp.WriterID { return fcp.WriterID{byte(i), byte(i >> 8)} }
	by := map[uint32]int{}
	for i := 1; ; i++ {
		s := stripeHash(id(i), 0)
		j, ok := by[s]
		if !ok {
			by[s] = i
			continue
		}
		a, b := id(j), id(i)
		for _, order := range [][]fcp.WriterID{{a, b}, {b, a}} {
			got := Stripes(order)
			if want := (1 + s) * stripeWidth; got[0] != want || got[1] == want {
				t.Fatalf("stripes %v, the first of both is %d", got, want)
			}
		}
		return
	}
}

// More members than there is room for: those who were enrolled last have none.
func TestNoStripeIsLeft(t *testing.T) {
	ids := make([]fcp.WriterID, MaxStripes+3)
	for i := range ids {
		ids[i] = fcp.WriterID{byte(i), byte(i >> 8)}
	}
	got := Stripes(ids)
	if slices.Contains(got[:MaxStripes], 0) || !slices.Equal(got[MaxStripes:], []uint32{0, 0, 0}) {
		t.Fatal(got[MaxStripes-3:])
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != MaxStripes+1 {
		t.Fatal("two have the same stripe")
	}
}
