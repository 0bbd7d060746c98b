package engine

import (
	"testing"

	"fcp"
)

func TestTheFilesOfAStoreAreComparedOnlyWhileNobodyHasItOpen(t *testing.T) {
	s := newStore(t, 1)
	s.put("a", "b")
	_, err := CheckFiles(s.dir, s.env)
	wantCode(t, err, fcp.CodeLocked)
	if err := s.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the lock is given back
		r, err := CheckFiles(s.dir, s.env)
		if err != nil || !r.Recorded || r.Files == 0 || len(r.Findings) > 0 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	s.open()
}
