package respond

import (
	"context"
	"encoding/binary"

	"fcp"
	"fcp/coding"
)

// shape is that of a segment's symbols.
var shape = coding.Shape{SymbolSize: fcp.SymbolSize, SubBlocks: 1, Alignment: fcp.SymbolAlignment}

// maxCoded bounds what the responder codes, in bytes.
const maxCoded = fcp.MaxSegment

var symbolOps = []Operation{
	{Name: "symbol.encode", Input: "a segment's ciphertext", Params: []Param{{"esi", "encoding symbol id"}}, Output: "the symbol, 1,024 bytes",
		run: func(in []byte, p *params) ([]byte, error) {
			if len(in) == 0 || len(in) > maxCoded {
				return nil, fcp.Errorf(fcp.CodeTooLarge, "%d bytes", len(in))
			}
			k := fcp.SegmentTransmission(uint64(len(in))).Symbols()
			plan, err := coding.NewPlan(context.Background(), k)
			if err != nil {
				return nil, err
			}
			e, err := coding.NewEncoder(plan, k, shape, coding.EncoderOptions{})
			if err != nil {
				return nil, err
			}
			block := make([]byte, k*fcp.SymbolSize)
			copy(block, in)
			if err := e.Reset(block); err != nil {
				return nil, err
			}
			if err := e.Encode(context.Background()); err != nil {
				return nil, err
			}
			out := make([]byte, fcp.SymbolSize)
			return out, e.Symbol(out, uint32(min(p.number("esi"), 1<<32-1)))
		}},
	{Name: "symbol.decode", Input: "symbols: u32be encoding symbol id and 1,024 bytes each", Params: []Param{{"length", "bytes of the ciphertext"}},
		Output: "the ciphertext", run: rebuildSymbols},
	{Name: "symbol.commit", Input: "a source symbol, the last one without its padding", Params: []Param{{"esi", "its number"}}, Output: "its commitment",
		run: func(in []byte, p *params) ([]byte, error) {
			c := fcp.SymbolCommitment(uint32(min(p.number("esi"), 1<<32-1)), in)
			return c[:], nil
		}},
	{Name: "segment.source", Input: "a segment's ciphertext", Output: "the root over the commitments of its source symbols", run: func(in []byte, _ *params) ([]byte, error) {
		h := fcp.CommitmentRoot(fcp.SourceCommitments(in, fcp.SymbolSize))
		return h[:], nil
	}},
}

func rebuildSymbols(in []byte, p *params) ([]byte, error) {
	const record = 4 + fcp.SymbolSize
	n := p.number("length")
	if n == 0 || n > maxCoded || len(in)%record != 0 {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%d bytes of symbols for %d", len(in), n)
	}
	k := fcp.SegmentTransmission(n).Symbols()
	d, err := coding.NewDecoder(k, shape, coding.DecoderOptions{})
	if err != nil {
		return nil, err
	}
	for ; len(in) > 0; in = in[record:] {
		if _, err := d.Add(binary.BigEndian.Uint32(in), in[4:record]); err != nil {
			return nil, err
		}
	}
	if !d.Ready() {
		return nil, fcp.Errorf(fcp.CodeNotEnough, "%d symbols more are needed", d.Needs())
	}
	if err := d.Decode(context.Background()); err != nil {
		return nil, fcp.Wrap(fcp.CodeNotEnough, err, "decode")
	}
	block, err := d.Block()
	if err != nil {
		return nil, err
	}
	return block[:n], nil
}
