package engine

import (
	"bytes"
	"testing"

	"fcp"
	"fcp/authority"
)

func FuzzParseExpect(f *testing.F) {
	for _, s := range []string{"", "any", "absent", "1", "00000001", "deadbeef", "DEADBEEF01", "-1", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := ParseExpect(s)
		if err != nil {
			return
		}
		switch x.Kind {
		case ExpectGeneration:
			if x.Generation == 0 {
				t.Fatalf("%q expects generation 0", s)
			}
		case ExpectHash:
			if len(x.Prefix) < MinHashPrefix || len(x.Prefix) > 64 {
				t.Fatalf("%q expects a hash prefix of %d digits", s, len(x.Prefix))
			}
		}
	})
}

func FuzzDecodeTail(f *testing.F) {
	t := Tail{Zone: fcp.ZoneWork, First: 3, Last: 4, Key: make([]byte, authority.WrappedKeySize), Objects: make([]byte, 2*fcp.HashSize), Sealed: []byte{1}}
	b, err := t.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := DecodeTail(b)
		if err != nil {
			return
		}
		again, err := x.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x (%v)", b, again, err)
		}
		n := 0
		x.Ids(func(id fcp.ObjectID) bool { n++; return x.Has(id) })
		if uint64(n) != x.Last-x.First+1 {
			t.Fatalf("%d objects in events %d to %d", n, x.First, x.Last)
		}
	})
}

func FuzzSymbolPolicy(f *testing.F) {
	for _, s := range []string{"any-2-of-5", "any-1-of-1", "any-5-of-2", "any-0-of-0", "any-2-of-", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseSymbolPolicy(s)
		if err != nil {
			return
		}
		if again, err := ParseSymbolPolicy(p.String()); err != nil || again != p {
			t.Fatalf("%q is %v, which is %v (%v)", s, p, again, err)
		}
	})
}
