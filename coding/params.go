package coding

import (
	"encoding/binary"
	"fmt"

	"fcp/coding/internal/rfc6330"
)

// Limits of RFC 6330.
const (
	MaxSourceSymbols  = rfc6330.MaxKPrime // K'max, section 5.1.2
	MaxESI            = rfc6330.MaxESI    // section 3.2
	MaxSymbolSize     = 1<<16 - 1         // section 3.3.2
	MaxTransferLength = 946270874880      // section 3.3.2
	MaxSourceBlocks   = 255               // Z is one octet, section 3.3.3
	ParamsSize        = 12                // sections 3.3.2 and 3.3.3 together
	PayloadIDSize     = 4                 // section 3.2
)

// Params is the FEC object transmission information (section 3.3): what a
// receiver must know to decode an object. The zero value is not valid.
type Params struct {
	TransferLength uint64 // F, octets, up to MaxTransferLength
	SymbolSize     uint16 // T, octets, a multiple of Alignment
	SourceBlocks   uint8  // Z
	SubBlocks      uint16 // N
	Alignment      uint8  // Al, octets
}

// Validate checks the limits of sections 3.3.2, 3.3.3 and 4.4.1.2.
func (p Params) Validate() error {
	switch {
	case p.TransferLength > MaxTransferLength:
		return fmt.Errorf("%w: transfer length %d", ErrParams, p.TransferLength)
	case p.SourceBlocks == 0 || p.SubBlocks == 0 || p.Alignment == 0 || p.SymbolSize == 0:
		return fmt.Errorf("%w: a field that must not be zero is", ErrParams)
	case p.SymbolSize%uint16(p.Alignment) != 0:
		return fmt.Errorf("%w: symbol size %d is no multiple of the alignment %d", ErrParams, p.SymbolSize, p.Alignment)
	case p.SubBlocks > p.SymbolSize/uint16(p.Alignment):
		return fmt.Errorf("%w: %d sub-blocks in a symbol of %d units", ErrParams, p.SubBlocks, p.SymbolSize/uint16(p.Alignment))
	case p.symbols() > MaxSourceSymbols*uint64(p.SourceBlocks):
		return fmt.Errorf("%w: %d symbols in %d source blocks", ErrParams, p.symbols(), p.SourceBlocks)
	case p.symbols() < uint64(p.SourceBlocks):
		return fmt.Errorf("%w: %d source blocks for %d symbols", ErrParams, p.SourceBlocks, p.symbols())
	}
	return nil
}

// symbols is Kt, the number of source symbols of the object.
func (p Params) symbols() uint64 {
	t := uint64(p.SymbolSize)
	return (p.TransferLength + t - 1) / t
}

// AppendBinary appends the 12 octets of sections 3.3.2 and 3.3.3.
func (p Params) AppendBinary(b []byte) ([]byte, error) {
	if p.TransferLength > MaxTransferLength {
		return b, fmt.Errorf("%w: transfer length %d", ErrParams, p.TransferLength)
	}
	b = binary.BigEndian.AppendUint64(b, p.TransferLength<<24) // five octets, one reserved, two for T
	binary.BigEndian.PutUint16(b[len(b)-2:], p.SymbolSize)
	b = append(b, p.SourceBlocks)
	b = binary.BigEndian.AppendUint16(b, p.SubBlocks)
	return append(b, p.Alignment), nil
}

// ParseParams reads and validates the 12 octets AppendBinary writes. A reserved
// octet that is not zero is refused.
func ParseParams(b []byte) (Params, error) {
	if len(b) != ParamsSize {
		return Params{}, fmt.Errorf("%w: transmission information of %d octets", ErrSize, len(b))
	}
	if b[5] != 0 {
		return Params{}, fmt.Errorf("%w: reserved octet is %d", ErrParams, b[5])
	}
	p := Params{
		TransferLength: binary.BigEndian.Uint64(b) >> 24,
		SymbolSize:     binary.BigEndian.Uint16(b[6:]),
		SourceBlocks:   b[8],
		SubBlocks:      binary.BigEndian.Uint16(b[9:]),
		Alignment:      b[11],
	}
	return p, p.Validate()
}

// Derive is the example parameter derivation of section 4.3 for an object of f
// octets, packets of at most payload octets of symbol, a receiver that can
// work on blocks of memory octets, alignment al, and sub-symbols of at least
// minSub alignment units.
func Derive(f uint64, payload uint16, memory uint64, al uint8, minSub uint16) (Params, error) {
	if f > MaxTransferLength || al == 0 || minSub == 0 || payload < uint16(al) {
		return Params{}, fmt.Errorf("%w: length %d, payload %d, alignment %d, sub-symbol %d", ErrParams, f, payload, al, minSub)
	}
	a := uint64(al)
	t := uint64(payload) / a * a
	kt := max(1, (f+t-1)/t)
	nmax := max(1, t/(uint64(minSub)*a))
	// KL(n): the most source symbols of a block whose sub-blocks fit memory.
	kl := func(n uint64) uint64 {
		unit := a * ((t/a + n - 1) / n)
		if unit > memory {
			return 0
		}
		return uint64(rfc6330.LargestKPrime(memory / unit))
	}
	most := kl(nmax)
	if most == 0 {
		return Params{}, fmt.Errorf("%w: %d octets of memory hold no source block", ErrParams, memory)
	}
	z := (kt + most - 1) / most
	if z > 255 {
		return Params{}, fmt.Errorf("%w: %d source blocks", ErrParams, z)
	}
	per := (kt + z - 1) / z
	n := uint64(1)
	for per > kl(n) {
		n++
	}
	p := Params{TransferLength: f, SymbolSize: uint16(t), SourceBlocks: uint8(z), SubBlocks: uint16(n), Alignment: al}
	return p, p.Validate()
}

// Partition is the function Partition[I, J] of section 4.4.1.2: i things cut
// into j parts of about equal size, jl of il things and js of is things.
func Partition(i, j uint32) (il, is, jl, js uint32) {
	if j == 0 {
		return 0, 0, 0, 0
	}
	is = i / j
	jl = i - is*j
	il = is
	if jl > 0 {
		il++
	}
	return il, is, jl, j - jl
}

// BlockInfo says where a source block lies in its object.
type BlockInfo struct {
	Symbols int    // K
	Offset  uint64 // of its first octet in the object
	Length  int    // octets of the object in it; below K*T only in the last block
}

// Block returns the source block number sbn (section 4.4.1.2).
func (p Params) Block(sbn uint8) (BlockInfo, error) {
	if err := p.Validate(); err != nil {
		return BlockInfo{}, err
	}
	if sbn >= p.SourceBlocks {
		return BlockInfo{}, fmt.Errorf("%w: source block %d of %d", ErrParams, sbn, p.SourceBlocks)
	}
	kl, ks, zl, _ := Partition(uint32(p.symbols()), uint32(p.SourceBlocks))
	k, first := kl, uint64(sbn)*uint64(kl)
	if uint32(sbn) >= zl {
		k = ks
		first = uint64(zl)*uint64(kl) + uint64(uint32(sbn)-zl)*uint64(ks)
	}
	t := uint64(p.SymbolSize)
	b := BlockInfo{Symbols: int(k), Offset: first * t}
	b.Length = int(min(uint64(k)*t, p.TransferLength-b.Offset))
	return b, nil
}

// Shape returns the shape of the symbols of every block of the object.
func (p Params) Shape() Shape {
	return Shape{SymbolSize: int(p.SymbolSize), SubBlocks: int(p.SubBlocks), Alignment: int(p.Alignment)}
}

// AppendPayloadID appends the FEC payload id (section 3.2).
func AppendPayloadID(b []byte, sbn uint8, esi uint32) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(sbn)<<24|esi&MaxESI)
}

// ParsePayloadID reads an FEC payload id (section 3.2).
func ParsePayloadID(b []byte) (sbn uint8, esi uint32, err error) {
	if len(b) != PayloadIDSize {
		return 0, 0, fmt.Errorf("%w: payload id of %d octets", ErrSize, len(b))
	}
	v := binary.BigEndian.Uint32(b)
	return uint8(v >> 24), v & MaxESI, nil
}
