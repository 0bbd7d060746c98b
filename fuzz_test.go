package fcp

import "testing"

func FuzzTextForms(f *testing.F) {
	f.Add("object.put")
	f.Add("00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := ParseHash(s); err == nil {
			if back, err := ParseHash(h.String()); err != nil || back != h {
				t.Fatalf("%q gives %s, which gives %s (%v)", s, h, back, err)
			}
		}
		if k, err := ParseKind(s); err == nil && k.String() != s {
			t.Fatalf("%q is kind %s", s, k)
		}
	})
}
