package coding

import (
	"bytes"
	"errors"
	"testing"
)

func TestBlocksCoverTheObject(t *testing.T) {
	for _, p := range []Params{
		{TransferLength: 1, SymbolSize: 8, SourceBlocks: 1, SubBlocks: 1, Alignment: 8},
		{TransferLength: 12345, SymbolSize: 16, SourceBlocks: 7, SubBlocks: 2, Alignment: 4},
		{TransferLength: 1 << 20, SymbolSize: 1024, SourceBlocks: 255, SubBlocks: 1, Alignment: 8},
	} {
		next, symbols := uint64(0), uint64(0)
		for sbn := range int(p.SourceBlocks) {
			b, err := p.Block(uint8(sbn))
			if err != nil || b.Offset != next || b.Symbols < 1 || b.Length > b.Symbols*int(p.SymbolSize) {
				t.Fatalf("%+v block %d: %+v, %v", p, sbn, b, err)
			}
			next += uint64(b.Length)
			symbols += uint64(b.Symbols)
		}
		if next != p.TransferLength || symbols != p.symbols() {
			t.Errorf("%+v: blocks cover %d octets in %d symbols", p, next, symbols)
		}
		if _, err := p.Block(p.SourceBlocks); p.SourceBlocks < 255 && !errors.Is(err, ErrParams) {
			t.Errorf("%+v: block beyond the last: %v", p, err)
		}
	}
}

// FuzzParams: what parses must encode to the same octets, and its blocks must
// stay inside the object.
func FuzzParams(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0x86, 0xa0, 0, 0, 64, 3, 0, 4, 8})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParseParams(raw)
		if err != nil {
			if !errors.Is(err, ErrParams) && !errors.Is(err, ErrSize) {
				t.Fatalf("%v", err)
			}
			return
		}
		back, err := p.AppendBinary(nil)
		if err != nil || !bytes.Equal(back, raw) {
			t.Fatalf("%x encodes to %x, %v", raw, back, err)
		}
		b, err := p.Block(p.SourceBlocks - 1)
		if err != nil || b.Length < 1 || b.Offset+uint64(b.Length) != p.TransferLength {
			t.Fatalf("last block of %+v: %+v, %v", p, b, err)
		}
	})
}
