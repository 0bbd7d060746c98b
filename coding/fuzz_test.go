package coding

import (
	"bytes"
	"testing"
)

func FuzzPayloadID(f *testing.F) {
	f.Add([]byte{0, 0, 0, 7})
	f.Add([]byte{255, 255, 255, 255})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		sbn, esi, err := ParsePayloadID(b)
		if err == nil && !bytes.Equal(AppendPayloadID(nil, sbn, esi), b) {
			t.Fatalf("%x is (%d, %d)", b, sbn, esi)
		}
	})
}
