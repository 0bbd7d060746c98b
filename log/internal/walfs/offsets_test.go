package walfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"

	"fcp/internal/crashfs"
)

// chunk builds a full chunk with a sync offset.
func chunk(payload string, offset uint64) []byte {
	b := make([]byte, chunkHeaderSize, chunkHeaderSize+len(payload))
	binary.LittleEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6] = firstSyncChunk
	binary.LittleEndian.PutUint32(b[7:], 1)
	binary.LittleEndian.PutUint64(b[11:], offset)
	b = append(b, payload...)
	binary.LittleEndian.PutUint32(b, chunkChecksum(b[6:]))
	return b
}

// TestChunksBuiltHereAreWhatPebbleReads ties this package's idea of the format
// to the record package itself.
func TestChunksBuiltHereAreWhatPebbleReads(t *testing.T) {
	b := slices.Concat(chunk("one", 0), chunk("two", 0))
	raiseSyncOffsets(b, 0, 17)
	if want := slices.Concat(chunk("one", 17), chunk("two", 17)); !bytes.Equal(b, want) {
		t.Fatal("the raised chunks are not the chunks with the higher offset")
	}
	r := record.NewReader(bytes.NewReader(b), 1)
	for _, want := range []string{"one", "two"} {
		rec, err := r.Next()
		noErr(t, err)
		if got, err := io.ReadAll(rec); string(got) != want || err != nil {
			t.Fatalf("record %q, %v", got, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatalf("after the last record: %v", err)
	}
}

func TestWhatIsNotASoundChunkIsLeftAlone(t *testing.T) {
	damaged := chunk("damaged", 0)
	damaged[20] ^= 1
	older := chunk("older format", 0)
	older[6] = 5
	endMark := []byte{0, 0, 0, 0, 0, 0, 5, 2, 0, 0, 0}
	long := chunk("long", 0)
	binary.LittleEndian.PutUint16(long[4:], 30_000)
	for name, b := range map[string][]byte{
		"damaged": damaged, "older": older, "end mark": endMark, "too long": long,
		"zeros": make([]byte, 100), "higher": chunk("higher", 18), "short": chunk("x", 0)[:12], "empty": nil,
	} {
		got := slices.Clone(b)
		raiseSyncOffsets(got, 0, 17)
		if !bytes.Equal(got, b) {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestChunksBehindABlockBoundaryAreRaised(t *testing.T) {
	// A block ends with padding of fewer bytes than a header.
	const off = blockSize - 40
	b := slices.Concat(chunk("0123456789", 0), make([]byte, 11), chunk("next", 0))
	raiseSyncOffsets(b, off, 17)
	if want := slices.Concat(chunk("0123456789", 17), make([]byte, 11), chunk("next", 17)); !bytes.Equal(b, want) {
		t.Fatal("not both chunks were raised")
	}
}

func TestOnlyAReturnedSyncIsPromised(t *testing.T) {
	disk := crashfs.New()
	f := newFS(disk, false)
	h := createWAL(t, f, "1.log")
	fail := errors.New("no")
	write := func() uint64 {
		b := chunk("payload", 0)
		_, err := h.Write(b)
		noErr(t, err)
		return binary.LittleEndian.Uint64(b[11:])
	}
	size := uint64(len(chunk("payload", 0)))
	for i, step := range []struct {
		want uint64
		then func() error
	}{
		{0, nil},
		{0, h.Sync},
		{2 * size, nil},
		{2 * size, func() error {
			disk.SetHook(func(crashfs.Op) error { return fail })
			defer disk.SetHook(nil)
			return h.Sync()
		}},
		{2 * size, func() error { _, err := h.SyncTo(1); return err }},
		{2 * size, h.SyncData},
		{6 * size, nil},
	} {
		if got := write(); got != step.want {
			t.Fatalf("chunk %d promises %d, want %d", i, got, step.want)
		}
		if step.then != nil {
			if err := step.then(); err != nil && !errors.Is(err, fail) {
				t.Fatal(err)
			}
		}
	}
}

func FuzzRaiseSyncOffsets(f *testing.F) {
	f.Add(slices.Concat(chunk("one", 0), chunk("two", 5)), int64(0), int64(17))
	f.Add(chunk("one", 0)[:20], int64(blockSize-3), int64(1))
	f.Fuzz(func(t *testing.T, b []byte, off, durable int64) {
		if off < 0 || durable < 0 {
			return
		}
		got := slices.Clone(b)
		raiseSyncOffsets(got, off, durable)
		if durable == 0 && !bytes.Equal(got, b) {
			t.Fatal("changed bytes without a promise to make")
		}
		again := slices.Clone(got)
		raiseSyncOffsets(again, off, durable)
		if !bytes.Equal(again, got) {
			t.Fatal("raising twice differs from raising once")
		}
	})
}
