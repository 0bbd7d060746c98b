package state

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func FuzzStoredValue(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{3, 1, 2, 3, 4})
	f.Add([]byte{0x80, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeValue(b)
		if err != nil {
			return
		}
		if c, _ := binary.Uvarint(b); c != uint64(len(v.Canonical)) || !bytes.HasSuffix(b, append(bytes.Clone(v.Canonical), v.Local...)) {
			t.Fatalf("%x decodes to %x and %x", b, v.Canonical, v.Local)
		}
	})
}
