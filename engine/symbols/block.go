package symbols

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/coding"
)

// Coder encodes and decodes segments. It keeps the plans used last, and the memory of
// rebuilds that are over; the zero value is ready and safe for concurrent use.
type Coder struct {
	plans coding.PlanCache
	idle  sync.Pool // of *Rebuild
}

var shape = coding.Shape{SymbolSize: fcp.SymbolSize, SubBlocks: 1, Alignment: fcp.SymbolAlignment}

// Block is a segment's ciphertext from which shares are made. It is for one
// goroutine.
type Block struct {
	segment    fcp.SegmentID
	ciphertext []byte
	enc        *coding.Encoder
	encoded    bool
	source     []byte // commitments
	tree       tree
}

// Block prepares a ciphertext of a coded segment.
func (c *Coder) Block(ctx context.Context, segment fcp.SegmentID, ciphertext []byte) (*Block, error) {
	r := Ref{Segment: segment, Size: uint32(len(ciphertext)), Count: 1}
	if len(ciphertext) > fcp.MaxSegment || !r.Valid() {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a segment of %d bytes is not coded", len(ciphertext))
	}
	plan, err := c.plans.Get(ctx, r.K())
	if err != nil {
		return nil, wrapCoding(ctx, err)
	}
	enc, err := coding.NewEncoder(plan, r.K(), shape, coding.EncoderOptions{})
	if err == nil {
		err = enc.Reset(ciphertext)
	}
	if err != nil {
		return nil, wrapCoding(ctx, err)
	}
	return &Block{segment: segment, ciphertext: ciphertext, enc: enc}, nil
}

// wrapCoding gives an error of the codec its code.
func wrapCoding(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fcp.Errorf(fcp.CodeInterrupted, "coding a segment")
	case errors.Is(err, coding.ErrNeedMore):
		return fcp.Wrap(fcp.CodeNotEnough, err, "decode a segment")
	}
	return fcp.Wrap(fcp.CodeInternal, err, "code a segment")
}

// Share makes the file of a share and the root over its commitments.
func (b *Block) Share(ctx context.Context, first, count uint32) (file []byte, root fcp.Hash, err error) {
	r := Ref{b.segment, uint32(len(b.ciphertext)), first, count}
	if !r.Valid() {
		return nil, root, fcp.Errorf(fcp.CodeInvalidArgument, "a share of %d symbols from %d", count, first)
	}
	n := r.sources()
	if n > 0 && b.tree == nil {
		b.source = fcp.SourceCommitments(b.ciphertext, fcp.SymbolSize)
		b.tree = newTree(b.source)
	}
	if n < int(count) && !b.encoded {
		if err := b.enc.Encode(ctx); err != nil {
			return nil, root, wrapCoding(ctx, err)
		}
		b.encoded = true
	}
	file = make([]byte, 0, r.FileSize())
	file = r.appendHead(file)
	if n > 0 {
		for _, h := range b.tree.proof(int(first), int(first)+n) {
			file = append(file, h[:]...)
		}
	}
	at := len(file)
	file = file[:r.FileSize()]
	commits, data := file[at:at+int(count)*fcp.CommitmentSize], file[at+int(count)*fcp.CommitmentSize:]
	copy(data, b.ciphertext[min(int(first)*fcp.SymbolSize, len(b.ciphertext)):])
	if n < int(count) {
		if err := b.enc.Repairs(data[n*fcp.SymbolSize:], first+uint32(n), int(count)-n); err != nil {
			return nil, root, wrapCoding(ctx, err)
		}
	}
	if n > 0 {
		copy(commits, b.source[int(first)*fcp.CommitmentSize:][:n*fcp.CommitmentSize])
	}
	var h hasher
	for i := n; i < int(count); i++ {
		c := h.commit(&r, first+uint32(i), data[i*fcp.SymbolSize:][:fcp.SymbolSize])
		copy(commits[i*fcp.CommitmentSize:], c[:])
	}
	return file, fcp.CommitmentRoot(commits), nil
}

// Same reports whether a symbol of a share is the one of this ciphertext.
func (b *Block) Same(ctx context.Context, s *Share, esi uint32) (bool, error) {
	got, ok := s.raw(esi)
	if !ok {
		return false, nil
	}
	if esi >= uint32(s.K()) && !b.encoded {
		if err := b.enc.Encode(ctx); err != nil {
			return false, wrapCoding(ctx, err)
		}
		b.encoded = true
	}
	var want [fcp.SymbolSize]byte
	if err := b.enc.Symbol(want[:], esi); err != nil {
		return false, wrapCoding(ctx, err)
	}
	return slices.Equal(got, want[:]), nil
}

// Rebuild collects symbols of one segment until they give its ciphertext. It is
// for one goroutine.
type Rebuild struct {
	segment fcp.SegmentID
	size    uint32
	dec     *coding.Decoder
}

// Rebuild prepares to rebuild a coded segment of that many bytes. Release it when it is
// needed no more.
func (c *Coder) Rebuild(segment fcp.SegmentID, size uint32) (*Rebuild, error) {
	r := Ref{Segment: segment, Size: size, Count: 1}
	if !r.Valid() {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a segment of %d bytes is not coded", size)
	}
	if b, ok := c.idle.Get().(*Rebuild); ok {
		return b, b.Reset(segment, size)
	}
	dec, err := coding.NewDecoder(r.K(), shape, coding.DecoderOptions{Plans: &c.plans})
	if err != nil {
		return nil, wrapCoding(context.Background(), err)
	}
	return &Rebuild{segment, size, dec}, nil
}

// Release gives a rebuild back, whose memory the next one uses. Neither it nor what
// Ciphertext returned may be used any more.
func (c *Coder) Release(r *Rebuild) { c.idle.Put(r) }

// Reset forgets all symbols and prepares to rebuild a segment of that many bytes.
func (r *Rebuild) Reset(segment fcp.SegmentID, size uint32) error {
	if !(&Ref{Segment: segment, Size: size, Count: 1}).Valid() {
		return fcp.Errorf(fcp.CodeInvalidArgument, "a segment of %d bytes is not coded", size)
	}
	r.segment, r.size = segment, size
	return wrapCoding(context.Background(), r.dec.Reuse(sourceSymbols(size)))
}

// Add adds a symbol. It tries to decode once that can succeed and reports
// whether the block is complete.
func (r *Rebuild) Add(ctx context.Context, esi uint32, symbol []byte) (complete bool, err error) {
	added, err := r.dec.Add(esi, symbol)
	if err != nil {
		return false, wrapCoding(ctx, err)
	}
	if r.dec.Complete() {
		return true, nil
	}
	if !added || !r.dec.Ready() {
		return false, nil
	}
	err = r.dec.Decode(ctx)
	if errors.Is(err, coding.ErrNeedMore) {
		return false, nil
	}
	return err == nil, wrapCoding(ctx, err)
}

// Needs returns how many more symbols are needed at least.
func (r *Rebuild) Needs() int { return r.dec.Needs() }

// Ciphertext returns the rebuilt ciphertext, valid until Reset or Release. It
// fails with CodeChecksum when its hash is not the segment's id: a symbol was a lie.
func (r *Rebuild) Ciphertext() ([]byte, error) {
	b, err := r.dec.Block()
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeNotEnough, err, "segment %s", r.segment)
	}
	b = b[:r.size]
	if blake3.Sum256(b) != r.segment {
		return nil, fcp.Errorf(fcp.CodeChecksum, "the ciphertext rebuilt for segment %s", r.segment)
	}
	return b, nil
}
