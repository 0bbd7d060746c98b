package engine

import "testing"

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
