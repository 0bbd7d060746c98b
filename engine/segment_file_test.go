package engine

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/log"
)

func (w *world) segmentFiles() (out [][]byte) {
	w.Helper()
	if err := w.e.Log().Segments(func(s log.SegmentInfo) error {
		b, err := w.e.ExportSegment(&s)
		out = append(out, b)
		return err
	}); err != nil {
		w.Fatal(err)
	}
	return out
}

// TestSegmentsMoveBetweenMembers takes the segments of a node, one by one, into
// the store that was restored from an older backup of it.
func TestSegmentsMoveBetweenMembers(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 51)
	w.put(fcp.ZonePrivate, "early", []byte("in the backup"))
	w.backup("/backup")
	if _, err := w.e.Log().Seal(t.Context(), log.SealOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	for _, b := range w.segmentFiles() { // all are here and whole
		if _, taken, err := w.e.ImportSegment(t.Context(), b); taken || err != nil {
			t.Errorf("its own segment: %v %v", taken, err)
		}
	}
	other := newWorld(t, vfs.NewMem(), 52)
	for _, b := range w.segmentFiles() {
		if _, taken, err := other.e.ImportSegment(t.Context(), b); taken || !errors.Is(err, fcp.CodeUnauthorized) {
			t.Errorf("a store of another owner takes it: %v %v", taken, err)
		}
	}
	old := w.e
	w.restore("/backup", "/restored")
	w.open("/restored")
	restored := w.e
	w.e = old
	before := len(w.segmentFiles())
	// Its control feed stands behind the backup's tail, which is not sealed there, so
	// only the data feed's next segment fits.
	w.put(fcp.ZonePrivate, "late", noise(5, 5000))
	if _, err := w.e.Log().Seal(t.Context(), log.SealOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	took := 0
	for _, b := range w.segmentFiles()[before:] {
		r, taken, err := restored.ImportSegment(t.Context(), b)
		switch {
		case taken && fcp.Plane(r.Plane) == fcp.PlaneData:
			took++
			if _, again, err := restored.ImportSegment(t.Context(), b); again || err != nil {
				t.Errorf("a second time: %v %v", again, err)
			}
		case !taken && !errors.Is(err, fcp.CodeConflict):
			t.Errorf("%s: %v", fcp.SegmentID(r.Segment), err)
		}
	}
	if took != 1 {
		t.Errorf("%d data segments were taken in", took)
	}
	if rep, err := restored.Verify(t.Context(), VerifyOptions{Bodies: true, Replay: true}); err != nil || len(rep.Findings) > 0 {
		t.Errorf("%+v %v", rep.Findings, err)
	}
	restored.Close()
}

func TestADamagedSegmentFileIsRefused(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 53)
	w.put(fcp.ZonePrivate, "a", noise(1, 2000))
	if _, err := w.e.Log().Seal(t.Context(), log.SealOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	b := w.segmentFiles()[0]
	for i := 0; i < len(b); i += 7 {
		c := bytes.Clone(b)
		c[i] ^= 4
		if _, _, _, err := decodeSegmentFile(c); err == nil {
			t.Fatalf("byte %d: accepted", i)
		}
	}
	for _, c := range [][]byte{nil, b[:len(b)-1], append(bytes.Clone(b), 0), []byte(segmentFileMagic), make([]byte, MaxSegmentFile+1)} {
		if _, _, _, err := decodeSegmentFile(c); err == nil {
			t.Errorf("%d bytes: accepted", len(c))
		}
	}
}

func FuzzSegmentFile(f *testing.F) {
	f.Add(encodeSegmentFile([]byte{0xa0}, make([]byte, 16), []byte("ciphertext")), false)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum && len(b) > fcp.HashSize { // with a checksum that fits
			h := fileHash(b[:len(b)-fcp.HashSize])
			copy(b[len(b)-fcp.HashSize:], h[:])
		}
		r, salts, ciphertext, err := decodeSegmentFile(b)
		if err != nil {
			return
		}
		body, err := fcp.MarshalPayload(fcp.SchemaSegmentRemainder, &r)
		if err != nil || !bytes.Equal(encodeSegmentFile(body, salts, ciphertext), b) {
			t.Errorf("it comes back different: %v", err)
		}
	})
}
