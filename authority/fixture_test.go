package authority

import (
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"fcp"
)

var testNow = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// testRand is a repeatable source of bytes.
func testRand(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func testOwner(t testing.TB, seed byte) *OwnerKey {
	k, err := NewOwnerKey(testRand(seed))
	return must(t, k, err)
}

func testNode(t testing.TB, seed byte) *NodeKeys {
	k, err := NewNodeKeys(testRand(seed))
	return must(t, k, err)
}

func testZoneKeys(t testing.TB, zone fcp.ZoneID, seed byte) *ZoneKeys {
	k, err := NewZoneKeys(testRand(seed), zone)
	return must(t, k, err)
}

func testRecovery(t testing.TB, o *OwnerKey) *RecoveryKey {
	k, err := o.Recovery()
	return must(t, k, err)
}

func testFeed(n byte) fcp.Feed {
	return fcp.Feed{Zone: fcp.ZoneWork, Writer: fcp.WriterID{n}, Incarnation: 7, Plane: fcp.PlaneControl}
}

func testCut(seq uint64, hash byte) Cut {
	return Cut{Feed: testFeed(1), Seq: seq, Hash: fcp.Hash{hash}}
}
