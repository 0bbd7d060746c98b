package engine

import (
	"bytes"
	"testing"

	"fcp"
)

func FuzzDecodeProposal(f *testing.F) {
	s := newStore(f, 41)
	p, err := s.DraftCheckpoint(fcp.ZonePrivate)
	if err != nil {
		f.Fatal(err)
	}
	b, err := p.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodeProposal(b)
		if err != nil {
			return
		}
		if again, err := p.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is not the one form: %v", b, err)
		}
	})
}
