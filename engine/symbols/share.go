package symbols

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"fcp"
	"fcp/coding"
)

// MaxExtra is how many symbols more than its source symbols a share may have.
const MaxExtra = 64

// A share file is docs/format.md "Share":
//
//	"FCPSYM01" | segment id[32] | transmission information[12] | u32be first |
//	u32be count | proof | count x commitment[16] | count x symbol[T]
const (
	shareMagic = "FCPSYM01"
	shareHead  = len(shareMagic) + fcp.HashSize + fcp.TransmissionInfoSize + 4 + 4
)

// Ref names a share: a range of the encoding symbols of a segment of Size bytes.
type Ref struct {
	Segment fcp.SegmentID
	Size    uint32 // of the ciphertext, TinySegment to MaxSegment
	First   uint32 // encoding symbol id
	Count   uint32
}

// Coded reports whether a segment of that many bytes is coded, not copied whole.
func Coded(size uint32) bool { return size >= fcp.TinySegment }

// K returns the number of source symbols.
func (r Ref) K() int                { return sourceSymbols(r.Size) }
func sourceSymbols(size uint32) int { return (int(size) + fcp.SymbolSize - 1) / fcp.SymbolSize }

// End returns the id behind the last.
func (r *Ref) End() uint32 { return r.First + r.Count }

// Valid reports whether there can be such a share.
func (r *Ref) Valid() bool {
	return Coded(r.Size) && r.Size <= fcp.MaxSegment && r.Count > 0 && int(r.Count) <= r.K()+MaxExtra &&
		uint64(r.First)+uint64(r.Count) <= coding.MaxESI+1
}

// sources is the number of source symbols in the share; they come first.
func (r *Ref) sources() int { return max(0, min(int(r.Count), r.K()-int(r.First))) }

func (r *Ref) proofSize() int {
	if n := r.sources(); n > 0 {
		return fcp.HashSize * proofLen(int(r.First), int(r.First)+n, r.K())
	}
	return 0
}

// FileSize returns the size of the share's file.
func (r *Ref) FileSize() int64 {
	return int64(shareHead + r.proofSize() + int(r.Count)*(fcp.CommitmentSize+fcp.SymbolSize))
}

func (r *Ref) appendHead(b []byte) []byte {
	info := fcp.SegmentTransmission(uint64(r.Size)).Bytes()
	b = append(b, shareMagic...)
	b = append(b, r.Segment[:]...)
	b = append(b, info[:]...)
	b = binary.BigEndian.AppendUint32(b, r.First)
	return binary.BigEndian.AppendUint32(b, r.Count)
}

// HeadSize returns the bytes of the share's file before its symbols.
func (r *Ref) HeadSize() int { return int(r.FileSize()) - int(r.Count)*fcp.SymbolSize }

// FillSource completes the file of a share of all source symbols, of which the symbols
// are there, and returns the root over its commitments. It is for a file of
// r.FileSize bytes whose ciphertext was checked.
func (r *Ref) FillSource(file []byte) (root fcp.Hash, err error) {
	if !r.Valid() || r.First != 0 || int(r.Count) != r.K() || int64(len(file)) != r.FileSize() {
		return root, fcp.Errorf(fcp.CodeInvalidArgument, "a share of %d symbols from %d is not all of the source", r.Count, r.First)
	}
	head := r.appendHead(file[:0])
	commits := fcp.SourceCommitments(file[r.HeadSize():][:r.Size], fcp.SymbolSize)
	copy(file[len(head):r.HeadSize()], commits)
	return fcp.CommitmentRoot(commits), nil
}

// FileName returns the share's name below its folder: "<segment id>.<first, 8
// digits>.<count, 4 digits>.sym".
func (r *Ref) FileName() string { return fileName(r.Segment, r.First, r.Count) }

func fileName(segment fcp.SegmentID, first, count uint32) string {
	return fmt.Sprintf("%s.%08d.%04d.sym", segment, first, count)
}

// ParseFileName is the inverse of FileName, without the size.
func ParseFileName(name string) (segment fcp.SegmentID, first, count uint32, err error) {
	bad := fcp.Errorf(fcp.CodeMalformed, "%.128q is no name of a share", name)
	p := strings.Split(name, ".")
	if len(p) != 4 {
		return segment, 0, 0, bad
	}
	h, err := fcp.ParseHash(p[0])
	if err != nil {
		return segment, 0, 0, bad
	}
	f, err1 := strconv.ParseUint(p[1], 10, 32)
	c, err2 := strconv.ParseUint(p[2], 10, 32)
	if err1 != nil || err2 != nil || fileName(fcp.SegmentID(h), uint32(f), uint32(c)) != name {
		return segment, 0, 0, bad
	}
	return fcp.SegmentID(h), uint32(f), uint32(c), nil
}

// Share is a share file as it was read: possibly damaged, cut short or forged.
// Its methods say what holds.
type Share struct {
	Ref
	HeadOK bool // the head says what Ref says
	Cut    int  // bytes missing at the end

	proof   []byte
	commits []byte
	symbols []byte // Count of them, or fewer
}

// ParseShare takes a file apart. It is given what the share must be, by its
// name and the segment's size, so that a damaged head costs nothing. It fails
// only for a Ref that cannot be and keeps a reference to b.
func ParseShare(r Ref, b []byte) (*Share, error) {
	if !r.Valid() {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a share of %d symbols from %d of a segment of %d bytes", r.Count, r.First, r.Size)
	}
	s := &Share{Ref: r, Cut: max(0, int(r.FileSize())-len(b))}
	b = b[:min(len(b), int(r.FileSize()))]
	take := func(n int) []byte {
		n = min(n, len(b))
		out := b[:n:n]
		b = b[n:]
		return out
	}
	s.HeadOK = bytes.Equal(take(shareHead), r.appendHead(nil))
	s.proof = take(r.proofSize())
	s.commits = take(int(r.Count) * fcp.CommitmentSize)
	s.symbols = b
	return s, nil
}

// whole reports whether all commitments are there.
func (s *Share) whole() bool { return len(s.commits) == int(s.Count)*fcp.CommitmentSize }

// Root returns the root over the commitments in the file.
func (s *Share) Root() (fcp.Hash, bool) {
	if !s.whole() {
		return fcp.Hash{}, false
	}
	return fcp.CommitmentRoot(s.commits), true
}

// SourceProven reports whether the commitments to the source symbols are those
// that the segment's card is signed over, whose root is given.
func (s *Share) SourceProven(source fcp.Hash) bool {
	n := s.sources()
	return n > 0 && s.whole() && proves(source, s.commits[:n*fcp.CommitmentSize], int(s.First), s.K(), s.proof)
}

// Recommit replaces the commitments by those of the symbols that are there and
// returns their root. It fails when a symbol is missing.
func (s *Share) Recommit() (fcp.Hash, bool) {
	if len(s.symbols) != int(s.Count)*fcp.SymbolSize {
		return fcp.Hash{}, false
	}
	commits := make([]byte, 0, int(s.Count)*fcp.CommitmentSize)
	var h hasher
	for i := range s.Count {
		b, _ := s.raw(s.First + i)
		c := h.commit(&s.Ref, s.First+i, b)
		commits = append(commits, c[:]...)
	}
	s.commits = commits
	return fcp.CommitmentRoot(commits), true
}

// raw returns a symbol as it stands in the file.
func (s *Share) raw(esi uint32) ([]byte, bool) {
	at := int(esi-s.First) * fcp.SymbolSize
	if esi < s.First || esi >= s.End() || at+fcp.SymbolSize > len(s.symbols) {
		return nil, false
	}
	return s.symbols[at : at+fcp.SymbolSize : at+fcp.SymbolSize], true
}

// Symbol returns a symbol if it fits its commitment.
func (s *Share) Symbol(h *Hasher, esi uint32) ([]byte, bool) {
	b, ok := s.raw(esi)
	at := int(esi-s.First) * fcp.CommitmentSize
	if !ok || at+fcp.CommitmentSize > len(s.commits) {
		return nil, false
	}
	c := h.h.commit(&s.Ref, esi, b)
	return b, bytes.Equal(c[:], s.commits[at:at+fcp.CommitmentSize]) && zero(b[paddedFrom(&s.Ref, esi):])
}

// paddedFrom is where the zeros behind the ciphertext begin in a symbol.
func paddedFrom(r *Ref, esi uint32) int {
	if int(esi) == r.K()-1 {
		return int(r.Size) - int(esi)*fcp.SymbolSize
	}
	return fcp.SymbolSize
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// Hasher computes commitments without allocating. It is for one goroutine.
type Hasher struct{ h hasher }

type hasher struct {
	buf [10 + fcp.SymbolSize]byte
}

// commit is fcp.SymbolCommitment: the last source symbol is hashed without its
// padding.
func (h *hasher) commit(r *Ref, esi uint32, symbol []byte) [fcp.CommitmentSize]byte {
	copy(h.buf[:], "FCP-S1")
	binary.BigEndian.PutUint32(h.buf[6:], esi)
	n := copy(h.buf[10:], symbol[:paddedFrom(r, esi)])
	sum := sha256.Sum256(h.buf[:10+n])
	return [fcp.CommitmentSize]byte(sum[:])
}
