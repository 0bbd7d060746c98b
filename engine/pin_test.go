package engine

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"fcp"
)

// TestPinsCountInOneOrder: which of two pins counts does not depend on which came
// first, and there is always one.
func TestPinsCountInOneOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func() Pin {
		p := Pin{Zone: fcp.ZoneWork, Device: fcp.WriterID{1}, Key: "a", Number: 1 + r.Uint64N(3), By: fcp.WriterID{byte(1 + r.IntN(3))}}
		switch r.IntN(3) {
		case 0:
			p.Off = true
		case 1:
			p.Until = time.Unix(1+r.Int64N(3), 0).UTC()
		}
		return p
	}
	for range 5000 {
		a, b, c := some(), some(), some()
		if a.before(&b) && b.before(&a) {
			t.Fatalf("%+v and %+v are before each other", a, b)
		}
		if a != b && !a.before(&b) && !b.before(&a) {
			t.Fatalf("neither %+v nor %+v is before the other", a, b)
		}
		if a.before(&b) && b.before(&c) && !a.before(&c) {
			t.Fatalf("%+v, %+v, %+v", a, b, c)
		}
		if a.Number == b.Number && a.Off && !b.Off && !a.before(&b) {
			t.Fatal("of a pin and its end, made at one time, the end counts")
		}
	}
}

// FuzzPin decodes hostile pins.
func FuzzPin(f *testing.F) {
	for _, p := range []Pin{
		{Zone: fcp.ZoneWork, Device: fcp.WriterID{1}, Key: "a/", Prefix: true, Number: 1, By: fcp.WriterID{2}},
		{Zone: fcp.ZoneWork, Device: fcp.WriterID{1}, Prefix: true, Number: 2, By: fcp.WriterID{2}, Until: time.Unix(5, 0)},
		{Zone: fcp.ZoneWork, Device: fcp.WriterID{1}, Key: "b", Number: 3, By: fcp.WriterID{2}, Off: true},
	} {
		b, err := EncodePin(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePin(b)
		if err != nil {
			return
		}
		if again, err := EncodePin(p); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%+v encodes to %x, %v", p, again, err)
		}
	})
}

func TestPinsAreChecked(t *testing.T) {
	good := Pin{Zone: fcp.ZoneWork, Device: fcp.WriterID{1}, Key: "a", Number: 1, By: fcp.WriterID{2}}
	for name, change := range map[string]func(*Pin){
		"no zone":      func(p *Pin) { p.Zone = "" },
		"no device":    func(p *Pin) { p.Device = fcp.WriterID{} },
		"no writer":    func(p *Pin) { p.By = fcp.WriterID{} },
		"no name":      func(p *Pin) { p.Key = "" },
		"a long name":  func(p *Pin) { p.Key = string(make([]byte, fcp.MaxKey+1)) },
		"a bad name":   func(p *Pin) { p.Key = "\xff" },
		"no number":    func(p *Pin) { p.Number = 0 },
		"an end twice": func(p *Pin) { p.Off, p.Until = true, time.Unix(5, 0) },
		"the past":     func(p *Pin) { p.Until = time.Unix(-1, 0) },
	} {
		p := good
		change(&p)
		if _, err := EncodePin(p); err == nil {
			t.Error(name, "is taken")
		}
	}
	b, err := EncodePin(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodePin(append(b, 0)); err == nil || errors.Is(err, fcp.CodeInternal) {
		t.Error("a byte too many:", err)
	}
}
