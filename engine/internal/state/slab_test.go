package state

import (
	"bytes"
	"fmt"
	"testing"
)

// An overlay that is to be large cuts its chunks from slabs: nothing is lost where
// a chunk or a slab ends, nor with a record that has a chunk to itself.
func TestChunksFromSlabs(t *testing.T) {
	o := newOverlay(1, 2, 0, slabEntries)
	value := func(i int) []byte {
		n := 300 << 10
		if i%17 == 3 {
			n = chunkSize + 5
		}
		return bytes.Repeat([]byte{byte(i)}, n)
	}
	const records = 3 * slabSize / (300 << 10)
	hash := func(i int) uint64 { return uint64(i+1) * filterMixer }
	for i := range records {
		if err := o.put(hash(i), fmt.Append(nil, i), 0, nil, value(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	o.commit(1)
	for i := range records {
		r, ok := o.get(hash(i), fmt.Append(nil, i), o.mark.Load())
		if !ok || !bytes.Equal(r.value, value(i)) {
			t.Fatalf("record %d is lost", i)
		}
	}
	n := 0
	o.walk(firstOffset, o.mark.Load(), func(_ uint32, r record) {
		if !bytes.Equal(r.key, fmt.Append(nil, n)) || !bytes.Equal(r.value, value(n)) {
			t.Fatalf("the walk gives %q as record %d", r.key, n)
		}
		n++
	})
	if n != records {
		t.Fatalf("the walk gives %d of %d records", n, records)
	}
}
