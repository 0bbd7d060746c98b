package engine

import (
	"encoding/binary"
	"testing"
)

func TestAMemoIsBounded(t *testing.T) {
	var m memo[int]
	for i := range 3 * maxMemo {
		m.put(binary.BigEndian.AppendUint64(nil, uint64(i)), i)
		if v, ok := m.get(binary.BigEndian.AppendUint64(nil, uint64(i))); !ok || v != i {
			t.Fatalf("%d: %d, %v", i, v, ok)
		}
	}
	if len(m.known) > maxMemo {
		t.Errorf("%d entries", len(m.known))
	}
	if _, ok := m.get(nil); ok {
		t.Error("it knows what it was never told")
	}
}
