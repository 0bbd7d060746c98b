package authority

import (
	"fmt"
	"testing"

	"fcp"
)

func BenchmarkSealBody(b *testing.B) {
	for _, n := range []int{256, 1024, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := testZoneKeys(b, "z:work", 1)
			pt := make([]byte, n)
			dst := make([]byte, 0, SealedBodyLen(n))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				dst = k.SealBody(dst[:0], fcp.ObjectID{1}, Salt{2}, pt)
			}
		})
	}
}

func BenchmarkSealBodyParallel256(b *testing.B) {
	k := testZoneKeys(b, "z:work", 1)
	b.SetBytes(256)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		pt := make([]byte, 256)
		dst := make([]byte, 0, SealedBodyLen(256))
		for pb.Next() {
			dst = k.SealBody(dst[:0], fcp.ObjectID{1}, Salt{2}, pt)
		}
	})
}

func BenchmarkOpenBody(b *testing.B) {
	for _, n := range []int{256, 1024, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := testZoneKeys(b, "z:work", 1)
			ct := k.SealBody(nil, fcp.ObjectID{1}, Salt{2}, make([]byte, n))
			dst := make([]byte, 0, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, err = k.OpenBody(dst[:0], fcp.ObjectID{1}, Salt{2}, ct); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpenBodyRange4KiBOf1MiB(b *testing.B) {
	k := testZoneKeys(b, "z:work", 1)
	ct := k.SealBody(nil, fcp.ObjectID{1}, Salt{2}, make([]byte, 1<<20))
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.OpenBodyRange(dst, fcp.ObjectID{1}, Salt{2}, ct, 500_000, 4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealFrame(b *testing.B) {
	k, err := NewSegmentKey(testRand(1))
	if err != nil {
		b.Fatal(err)
	}
	c, err := k.Cipher([]byte("feed"))
	if err != nil {
		b.Fatal(err)
	}
	pt := make([]byte, FrameSize)
	dst := make([]byte, 0, sealedSize)
	b.SetBytes(FrameSize)
	b.ReportAllocs()
	for b.Loop() {
		dst = c.SealFrame(dst[:0], pt, 1, false)
	}
}

func BenchmarkVerifyRevocation(b *testing.B) {
	o := testOwner(b, 1)
	msg, err := SignRevocation(testNow, o, testCut(9, 9), "lost")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := VerifyRevocation(o.Public(), msg); err != nil {
			b.Fatal(err)
		}
	}
}
