package authority

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/tyler-smith/go-bip39"
	"github.com/tyler-smith/go-bip39/wordlists"

	"fcp"
	"fcp/authority/shamir"
)

// MaxPaperSecret limits a secret that is put on paper, in bytes: about a hundred
// lines of words.
const MaxPaperSecret = 1024

// PaperShare is one share of a secret on paper: a sharing of its own, apart from
// the one among devices, so that neither helps the other.
//
// Its bytes are 01 || set[4] || k || n || index || u16be length || values ||
// SHA-256("FCP2-PAPER-V1" || all before)[:4]. What is shared is
// SHA-256("FCP2-PAPER-SECRET-V1" || set || secret)[:8] || secret.
type PaperShare struct {
	redacted
	p func() *paperSecret
}

type paperSecret struct {
	set   [4]byte
	k, n  byte
	share shamir.Share
}

const (
	paperVersion = 1
	paperHead    = 1 + 4 + 3 + 2
	paperSum     = 4
	paperCheck   = 8

	lineWords = 8                  // of 11 bits
	lineBytes = lineWords*11/8 - 1 // and one byte of checksum
	maxPaper  = 64 << 10           // bytes of text that are looked at
	paperCode = "FCP-SHARE-1:"     // in front of the QR code's text
	paperText = "FCP secret share %d of %d; any %d of set %s rebuild the secret"
)

var paperBase32 = base32.StdEncoding.WithPadding(base32.NoPadding)

// Set returns the set's number in eight hex digits: shares of different sets do not
// go together.
func (s *PaperShare) Set() string { return hex.EncodeToString(s.p().set[:]) }

// Index returns the share's number, from 1.
func (s *PaperShare) Index() int { return int(s.p().share.X) }

// Threshold returns how many shares of the set rebuild the secret, and of how many.
func (s *PaperShare) Threshold() (k, n int) { return int(s.p().k), int(s.p().n) }

// Wipe overwrites the share. It is unusable after.
func (s *PaperShare) Wipe() { s.p().share.Wipe() }

func newPaper(p *paperSecret) *PaperShare { return &PaperShare{p: func() *paperSecret { return p }} }

// SplitPaper splits a secret of 1 to MaxPaperSecret bytes into n paper shares of
// which any k rebuild it. The caller wipes them.
func SplitPaper(rand io.Reader, secret []byte, k, n int) ([]*PaperShare, error) {
	if len(secret) == 0 || len(secret) > MaxPaperSecret {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a secret of %d bytes; paper takes 1 to %d", len(secret), MaxPaperSecret)
	}
	var set [4]byte
	if _, err := io.ReadFull(rand, set[:]); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for paper shares")
	}
	value := append(paperDigest(set, secret), secret...)
	defer clear(value)
	shares, err := shamir.Split(rand, value, k, n)
	if err != nil {
		return nil, err
	}
	out := make([]*PaperShare, n)
	for i := range shares {
		out[i] = newPaper(&paperSecret{set, byte(k), byte(n), shares[i]})
	}
	return out, nil
}

func paperDigest(set [4]byte, secret []byte) []byte {
	h := sha256.New()
	io.WriteString(h, "FCP2-PAPER-SECRET-V1")
	h.Write(set[:])
	h.Write(secret)
	// Room for the secret, so that appending it leaves no copy behind.
	return append(make([]byte, 0, paperCheck+len(secret)), h.Sum(nil)[:paperCheck]...)
}

// CombinePaper rebuilds a secret from its paper shares, calls use with it and wipes
// it when use returns. Errors: CodeNotEnough for too few shares, CodeConflict for
// one of another set, CodeInvalidArgument for one that is there twice, CodeChecksum
// when the shares do not give the secret of their set.
func CombinePaper(shares []*PaperShare, use func(secret []byte) error) error {
	if len(shares) == 0 {
		return fcp.Errorf(fcp.CodeNotEnough, "no share")
	}
	first := shares[0].p()
	var points []shamir.Share
	for _, s := range shares {
		p := s.p()
		if p.set != first.set || p.k != first.k || p.n != first.n || len(p.share.Y) != len(first.share.Y) {
			return fcp.Errorf(fcp.CodeConflict, "share %d is of set %s, share %d of set %s", s.Index(), s.Set(), shares[0].Index(), shares[0].Set())
		}
		points = append(points, p.share)
	}
	if len(points) < int(first.k) {
		return fcp.Errorf(fcp.CodeNotEnough, "%d of %d shares of set %s", len(points), first.k, shares[0].Set()).WithNext("find another share of the set")
	}
	value, err := shamir.Combine(points)
	if err != nil {
		return err
	}
	defer clear(value)
	secret := value[paperCheck:]
	if !bytes.Equal(value[:paperCheck], paperDigest(first.set, secret)[:paperCheck]) {
		return fcp.Errorf(fcp.CodeChecksum, "the shares of set %s do not fit together: one is a forgery", shares[0].Set())
	}
	return use(secret)
}

func (s *PaperShare) bytes() []byte {
	p := s.p()
	b := append([]byte{paperVersion}, p.set[:]...)
	b = append(b, p.k, p.n, p.share.X)
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.share.Y)))
	b = append(b, p.share.Y...)
	return append(b, paperChecksum(b)...)
}

func paperChecksum(b []byte) []byte {
	h := sha256.New()
	io.WriteString(h, "FCP2-PAPER-V1")
	h.Write(b)
	return h.Sum(nil)[:paperSum]
}

// Code returns the share as the text of a QR code, in the alphabet of its
// alphanumeric mode: "FCP-SHARE-1:" and base32. It is secret.
func (s *PaperShare) Code() string {
	b := s.bytes()
	defer clear(b)
	return paperCode + paperBase32.EncodeToString(b)
}

// Text returns the share as numbered lines of eight words of the BIP-39 English
// list, each line with a checksum of its own, under a line that says what it is. It
// is secret.
func (s *PaperShare) Text() string {
	b := s.bytes()
	defer clear(b)
	k, n := s.Threshold()
	var out strings.Builder
	fmt.Fprintf(&out, paperText+"\n\n", s.Index(), n, k, s.Set())
	for i := 0; i*lineBytes < len(b); i++ {
		fmt.Fprintf(&out, "%3d  %s\n", i+1, strings.Join(lineOf(i+1, b[i*lineBytes:]), " "))
	}
	return out.String()
}

// lineOf returns the words of a line: ten bytes, filled up with zeros, and SHA-256 of
// "FCP2-PAPER-LINE-V1", the line's number as u16be and those, one byte of it.
func lineOf(number int, b []byte) []string {
	var line [lineBytes + 1]byte
	copy(line[:lineBytes], b)
	line[lineBytes] = lineSum(number, line[:lineBytes])
	words := make([]string, lineWords)
	for i := range words {
		v := 0
		for bit := i * 11; bit < i*11+11; bit++ {
			v = v<<1 | int(line[bit/8]>>(7-bit%8)&1)
		}
		words[i] = wordlists.English[v]
	}
	return words
}

func lineSum(number int, b []byte) byte {
	h := sha256.New()
	io.WriteString(h, "FCP2-PAPER-LINE-V1")
	h.Write(binary.BigEndian.AppendUint16(nil, uint16(number)))
	h.Write(b)
	return h.Sum(nil)[0]
}

// ParsePaperShare reads a share as it was typed or scanned: a text with a line that
// begins with "FCP-SHARE-1:", or the numbered lines of words in any case; other
// lines are left out. What was mistyped is named by line and word, which are never
// repeated. Errors: CodeInvalidArgument for a word or line that cannot be, CodeChecksum
// for a line or share with a wrong checksum, CodeMalformed, CodeTooLarge.
func ParsePaperShare(text string) (*PaperShare, error) {
	if len(text) > maxPaper {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a share of %d bytes of text", len(text))
	}
	var b []byte
	defer func() { clear(b) }()
	lines := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if code, ok := strings.CutPrefix(strings.ToUpper(line), paperCode); ok {
			raw, err := paperBase32.DecodeString(code)
			if err != nil || paperBase32.EncodeToString(raw) != code {
				return nil, fcp.Errorf(fcp.CodeMalformed, "the code of a share is damaged")
			}
			defer clear(raw)
			return parsePaper(raw, 0)
		}
		words := strings.Fields(strings.ToLower(line))
		if len(words) == 0 {
			continue
		}
		number, err := strconv.ParseUint(strings.TrimSuffix(words[0], "."), 10, 16)
		if err != nil {
			continue // a heading, or what a QR code looks like as text
		}
		if number != uint64(lines)+1 {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "line %d of a share follows line %d", number, lines)
		}
		lines++
		if b, err = appendLine(b, lines, words[1:]); err != nil {
			return nil, err
		}
	}
	if lines == 0 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "no share: neither numbered lines of words nor a code")
	}
	return parsePaper(b, lineBytes-1)
}

func appendLine(b []byte, number int, words []string) ([]byte, error) {
	if len(words) != lineWords {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "line %d of a share has %d words, not %d", number, len(words), lineWords)
	}
	var line [lineBytes + 1]byte
	defer clear(line[:])
	for i, w := range words {
		v, ok := bip39.GetWordIndex(w)
		if !ok {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "line %d, word %d of a share is not in the list", number, i+1)
		}
		for j := range 11 {
			bit := i*11 + j
			line[bit/8] |= byte(v>>(10-j)&1) << (7 - bit%8)
		}
	}
	if line[lineBytes] != lineSum(number, line[:lineBytes]) {
		return nil, fcp.Errorf(fcp.CodeChecksum, "line %d of a share: a word is wrong or out of order", number).WithNext("compare the line with the paper, word by word")
	}
	return append(b, line[:lineBytes]...), nil
}

// parsePaper reads the bytes, behind which the last line may have up to fill zeros.
func parsePaper(b []byte, fill int) (*PaperShare, error) {
	if len(b) < paperHead+1+paperSum {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a share of %d bytes: lines are missing", len(b))
	}
	if b[0] != paperVersion {
		return nil, fcp.Errorf(fcp.CodeVersion, "a paper share in format %d", b[0])
	}
	size := int(binary.BigEndian.Uint16(b[paperHead-2:]))
	end := paperHead + size + paperSum
	if size <= paperCheck || size > paperCheck+MaxPaperSecret || len(b) < end || len(b)-end > fill || len(bytes.Trim(b[min(end, len(b)):], "\x00")) != 0 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a share of %d bytes that should have %d: lines are missing or too many", len(b), end)
	}
	if !bytes.Equal(paperChecksum(b[:end-paperSum]), b[end-paperSum:end]) {
		return nil, fcp.Errorf(fcp.CodeChecksum, "share %d is mistyped, but each line by itself could be right: compare all of them", b[paperHead-3])
	}
	p := &paperSecret{set: [4]byte(b[1:5]), k: b[5], n: b[6], share: shamir.Share{X: b[7], Y: bytes.Clone(b[paperHead : paperHead+size])}}
	if shamir.Check(int(p.k), int(p.n)) != nil || p.share.X == 0 || p.share.X > p.n {
		return nil, fcp.Errorf(fcp.CodeMalformed, "share %d of %d, %d wanted", p.share.X, p.n, p.k)
	}
	return newPaper(p), nil
}
