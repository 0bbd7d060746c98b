package engine

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/log"
)

// A segment file is one sealed segment as a member hands it to another
// (docs/format.md "Segment file"):
//
//	"FCPSEG01" | u32be length | remainder | u32be count | count x salt[16] | ciphertext | BLAKE3 of everything before[32]
//
// The remainder is the body of the segment.sealed event and has the card inside.
const (
	segmentFileMagic = "FCPSEG01"
	maxSegmentFile   = len(segmentFileMagic) + 4 + fcp.MaxClearBody + 4 + maxSaltFile + fcp.MaxSegment + fcp.HashSize
)

// MaxSegmentFile bounds a segment file, in bytes.
const MaxSegmentFile = maxSegmentFile

// ExportSegment returns a sealed segment as a segment file. Only a member of the
// zone can read what is inside, but the remainder's counts and object ids are in
// the clear. Errors: CodeNotFound, CodeChecksum when the segment is damaged here.
func (e *Engine) ExportSegment(s *log.SegmentInfo) ([]byte, error) {
	ciphertext, err := e.log.Ciphertext(s.No)
	if err != nil {
		return nil, err
	}
	if _, err := log.CheckCiphertext(s.CardBytes, ciphertext); err != nil {
		return nil, err
	}
	remainder, err := fcp.MarshalPayload(fcp.SchemaSegmentRemainder, &s.Remainder)
	if err != nil {
		return nil, err
	}
	salts, err := e.SegmentSalts(&s.Remainder)
	if err != nil {
		return nil, err
	}
	return encodeSegmentFile(remainder, salts, ciphertext), nil
}

func encodeSegmentFile(remainder, salts, ciphertext []byte) []byte {
	b := make([]byte, 0, len(segmentFileMagic)+8+len(remainder)+len(salts)+len(ciphertext)+fcp.HashSize)
	b = append(b, segmentFileMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(remainder)))
	b = append(b, remainder...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(salts)/log.SaltSize))
	b = append(b, salts...)
	b = append(b, ciphertext...)
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

// decodeSegmentFile splits a segment file. The parts alias b.
func decodeSegmentFile(b []byte) (r log.Remainder, salts, ciphertext []byte, err error) {
	bad := func(what string) (log.Remainder, []byte, []byte, error) {
		return log.Remainder{}, nil, nil, fcp.Errorf(fcp.CodeMalformed, "a segment file: %s", what)
	}
	if len(b) > maxSegmentFile {
		return r, nil, nil, fcp.Errorf(fcp.CodeTooLarge, "a segment file of %d bytes", len(b))
	}
	rest, ok := bytes.CutPrefix(b, []byte(segmentFileMagic))
	if !ok || len(rest) < fcp.HashSize {
		return bad("it does not begin as one")
	}
	body := b[:len(b)-fcp.HashSize]
	if fcp.Hash(blake3.Sum256(body)) != fcp.Hash(b[len(body):]) {
		return r, nil, nil, fcp.Errorf(fcp.CodeChecksum, "a segment file")
	}
	rest = rest[:len(rest)-fcp.HashSize]
	take := func(unit int) []byte {
		if len(rest) < 4 {
			ok = false
			return nil
		}
		n := uint64(binary.BigEndian.Uint32(rest)) * uint64(unit)
		if rest = rest[4:]; n > uint64(len(rest)) {
			ok = false
			return nil
		}
		part := rest[:n:n]
		rest = rest[n:]
		return part
	}
	remainder := take(1)
	salts = take(log.SaltSize)
	if !ok {
		return bad("a length")
	}
	if r, err = log.DecodeRemainder(remainder); err != nil {
		return log.Remainder{}, nil, nil, err
	}
	if uint64(len(salts)/log.SaltSize) != r.Last-r.First+1 {
		return bad("the number of salts")
	}
	return r, salts, rest, nil
}

// ImportSegment takes a segment file in: the next segment of the feed of another
// member. Ciphertext, card, frames, chain and Merkle root are checked as in a
// restore. It answers taken false when the segment is here already and whole.
// Errors: CodeUnauthorized when the writer is no member, CodeConflict when the
// feed does not stand where the segment begins, those of class Corrupt.
func (e *Engine) ImportSegment(ctx context.Context, file []byte) (r log.Remainder, taken bool, err error) {
	r, salts, ciphertext, err := decodeSegmentFile(file)
	if err != nil {
		return r, false, err
	}
	if err := e.checkMember(r.Feed().Writer); err != nil {
		return r, false, fcp.Errorf(fcp.CodeUnauthorized, "the writer %.16s of the segment is no member of this store", r.Feed().Writer.String())
	}
	no, there, err := e.log.FindSegment(fcp.SegmentID(r.Segment))
	if err != nil {
		return r, false, err
	}
	if there {
		here, err := e.log.Ciphertext(no)
		if err == nil && !bytes.Equal(here, ciphertext) {
			err = fcp.Errorf(fcp.CodeChecksum, "segment %s is damaged in this store", fcp.SegmentID(r.Segment))
		}
		return r, false, err
	}
	if err := e.log.ImportSegment(ctx, r, ciphertext); err != nil {
		return r, false, err
	}
	feed, ok := e.log.FeedNo(r.Feed())
	if !ok {
		return r, true, fcp.Errorf(fcp.CodeInternal, "the feed of a segment that was taken in is not there")
	}
	return r, true, e.log.SetSalts(feed, r.First, salts)
}
