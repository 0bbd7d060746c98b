package wire

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"

	"fcp"
)

// KeySize is the length of every symmetric key here.
const KeySize = 32

// Key is a symmetric key.
type Key [KeySize]byte

// SymbolAADSize is the length of a symbol's additional data.
const SymbolAADSize = 86

// Nonce12 returns the ChaCha20-Poly1305 nonce of a symbol: u64le frame number,
// u32le ESI (spec/wire.md section 8.5).
func Nonce12(seq uint64, esi uint32) (n [12]byte) {
	binary.LittleEndian.PutUint64(n[:], seq)
	binary.LittleEndian.PutUint32(n[8:], esi)
	return n
}

// Nonce24 returns the XChaCha20-Poly1305 nonce of a symbol: u64le sender instance,
// u64le frame number, u32le ESI, four zeros.
func Nonce24(sender, seq uint64, esi uint32) (n [24]byte) {
	binary.LittleEndian.PutUint64(n[:], sender)
	binary.LittleEndian.PutUint64(n[8:], seq)
	binary.LittleEndian.PutUint32(n[16:], esi)
	return n
}

// AppendSymbolAAD appends the additional data of a symbol: object id, u32le ESI,
// u16le K, zone hash, zone key id, u64le epoch.
func AppendSymbolAAD(b []byte, h *Header, esi uint32, k uint16) []byte {
	b = append(b, h.Object[:]...)
	b = binary.LittleEndian.AppendUint32(b, esi)
	b = binary.LittleEndian.AppendUint16(b, k)
	b = append(b, h.ZoneHash[:]...)
	b = append(b, h.ZoneKey[:]...)
	return binary.LittleEndian.AppendUint64(b, h.Epoch)
}

// SenderKey returns the reference's key for symbols of one sender under a zone
// key: HKDF-SHA256 with the zone key id as salt, over "FCP2-SENDER-KEY-V1", node
// id and u64le instance (spec/wire.md section 8.5). Sessions use SymbolKey instead.
func SenderKey(zoneKey Key, zoneKeyID [8]byte, node string, instance uint64) (Key, error) {
	info := binary.LittleEndian.AppendUint64([]byte("FCP2-SENDER-KEY-V1"+node), instance)
	return expand(zoneKey[:], zoneKeyID[:], string(info))
}

func expand(secret, salt []byte, info string) (k Key, err error) {
	b, err := hkdf.Key(sha256.New, secret, salt, info, KeySize)
	if err != nil {
		return k, fcp.Wrap(fcp.CodeInternal, err, "derive a key")
	}
	copy(k[:], b)
	clear(b)
	return k, nil
}

// SymbolCipher seals and opens symbols under one key. Safe for concurrent use.
type SymbolCipher struct {
	aead   cipher.AEAD
	sender uint64 // enters the nonce of the extended form
}

// NewSymbolCipher returns ChaCha20-Poly1305 under key.
func NewSymbolCipher(key Key) (*SymbolCipher, error) {
	a, err := chacha20poly1305.New(key[:])
	return &SymbolCipher{aead: a}, fcp.Wrap(fcp.CodeInternal, err, "ChaCha20-Poly1305")
}

// NewExtendedSymbolCipher returns XChaCha20-Poly1305 under key, for one sender
// instance. It exists for interchange with the reference.
func NewExtendedSymbolCipher(key Key, sender uint64) (*SymbolCipher, error) {
	a, err := chacha20poly1305.NewX(key[:])
	return &SymbolCipher{a, sender}, fcp.Wrap(fcp.CodeInternal, err, "XChaCha20-Poly1305")
}

func (c *SymbolCipher) nonce(b []byte, seq uint64, esi uint32) []byte {
	if c.aead.NonceSize() == chacha20poly1305.NonceSizeX {
		n := Nonce24(c.sender, seq, esi)
		return append(b, n[:]...)
	}
	n := Nonce12(seq, esi)
	return append(b, n[:]...)
}

// AppendRecord appends the sealed record of one symbol. h.Seq and esi must not
// meet again under this key.
func (c *SymbolCipher) AppendRecord(b []byte, h *Header, esi uint32, k uint16, symbol []byte) []byte {
	var nonce [24]byte
	var aad [SymbolAADSize]byte
	b = binary.LittleEndian.AppendUint32(b, esi)
	b = binary.LittleEndian.AppendUint16(b, k)
	return c.aead.Seal(b, c.nonce(nonce[:0], h.Seq, esi), symbol, AppendSymbolAAD(aad[:0], h, esi, k))
}

// Open appends the symbol of a record. A forged one is CodeChecksum with
// ReasonAEAD.
func (c *SymbolCipher) Open(dst []byte, h *Header, r *Record) ([]byte, error) {
	var nonce [24]byte
	var aad [SymbolAADSize]byte
	// In a decoded frame the tag stands behind the symbol.
	n := len(r.Data)
	sealed := r.Data[:min(n+TagSize, cap(r.Data))]
	if !bytes.Equal(sealed[n:], r.Tag[:]) {
		sealed = append(append(make([]byte, 0, n+TagSize), r.Data...), r.Tag[:]...)
	}
	out, err := c.aead.Open(dst, c.nonce(nonce[:0], h.Seq, r.ESI), sealed, AppendSymbolAAD(aad[:0], h, r.ESI, r.K))
	if err != nil {
		return nil, refuse(fcp.CodeChecksum, "a symbol", ReasonAEAD)
	}
	return out, nil
}

// AppendSealed appends a frame of symbols, sealed: what a session sends. There is
// one symbol of h.SymbolSize bytes for each id. The result is the same as that of
// Frame.AppendTo over the sealed records.
func (c *SymbolCipher) AppendSealed(b []byte, l Layout, h *Header, k uint16, esis []uint32, symbol func(i int) []byte) []byte {
	start := len(b)
	b = h.appendTo(b, l, uint32(len(esis)), uint32(len(esis)*(RecordOverhead+int(h.SymbolSize))))
	for i, esi := range esis {
		b = c.AppendRecord(b, h, esi, k, symbol(i))
	}
	if l == LayoutNative {
		b = appendChecksum(b, start)
	}
	return b
}
