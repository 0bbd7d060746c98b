package wire

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"fcp"
)

// Layout is the byte layout of a symbol frame.
type Layout uint8

// The layouts. Their numbers are the version field of the frame.
const (
	LayoutReference Layout = 1 // 114-byte header, no checksum (spec/wire.md section 8.1)
	LayoutNative    Layout = 2 // 106-byte header, XXH3-64 checksum (docs/format.md "Symbol frame")
)

// Sizes of a frame, in bytes.
const (
	headNative    = 106
	headReference = 114
	checksumSize  = 8
	// RecordOverhead is what a symbol record has beside the symbol's bytes.
	RecordOverhead = 4 + 2 + TagSize
	// TagSize is the length of an authentication tag.
	TagSize = 16
)

// Limits of the policy step, Frame.Check (spec/wire.md section 8.3).
const (
	MinSymbolSize   = 256
	MaxSymbolSize   = 16384
	MaxFrameSymbols = 256
	MaxFramePayload = 4 << 20
	// DefaultDatagram is the largest UDP payload when nothing else was agreed.
	DefaultDatagram = 1200
)

// Overhead returns the bytes of a frame of that layout beside its records.
func (l Layout) Overhead() int {
	if l == LayoutReference {
		return headReference
	}
	return headNative + checksumSize
}

// Flags of a symbol frame (spec/wire.md section 8.4).
type Flags uint16

// The flags.
const (
	FlagRequiresAck Flags = 1 << iota
	FlagCompressed
	FlagEncrypted
	FlagResponse
	FlagError
	FlagStreaming
	FlagStreamEnd
	FlagCapToken
	FlagZoneCrossing
	FlagPriority
	FlagRaptorQ
	FlagControlPlane
	flagEnd

	knownFlags   = flagEnd - 1
	DefaultFlags = FlagEncrypted | FlagRaptorQ
)

// Header is what the symbols of a frame have in common.
type Header struct {
	Flags      Flags
	Object     [32]byte // segment id, or object id
	SymbolSize uint16   // bytes of each symbol
	ZoneKey    [8]byte  // id of the zone key; zeros where the sender knows none
	ZoneHash   fcp.Hash // fcp.ZoneID.Hash; zeros where the sender knows none
	Epoch      uint64
	Sender     uint64 // sender instance id; LayoutReference only
	Seq        uint64 // never repeats under one key
}

// Record is one sealed symbol.
type Record struct {
	ESI  uint32 // RFC 6330 encoding symbol id
	K    uint16 // source symbols of the block
	Data []byte // Header.SymbolSize bytes
	Tag  [TagSize]byte
}

// Frame is a symbol frame.
type Frame struct {
	Header
	Records []Record
}

// AppendTo appends the encoded frame. It fails with CodeInvalidArgument for a
// symbol of another length than the header says, or more of them than fit.
func (f *Frame) AppendTo(b []byte, l Layout) ([]byte, error) {
	payload := uint64(len(f.Records)) * (RecordOverhead + uint64(f.SymbolSize))
	if f.SymbolSize == 0 || payload > 1<<32-1 || l != LayoutNative && l != LayoutReference {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a frame of %d symbols of %d bytes in layout %d", len(f.Records), f.SymbolSize, l)
	}
	start := len(b)
	b = f.Header.appendTo(b, l, uint32(len(f.Records)), uint32(payload))
	for i := range f.Records {
		r := &f.Records[i]
		if len(r.Data) != int(f.SymbolSize) {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a symbol of %d bytes in a frame of %d-byte symbols", len(r.Data), f.SymbolSize)
		}
		b = r.AppendTo(b)
	}
	if l == LayoutNative {
		b = appendChecksum(b, start)
	}
	return b, nil
}

// appendChecksum appends the checksum over the frame that starts at start.
func appendChecksum(b []byte, start int) []byte {
	return binary.LittleEndian.AppendUint64(b, xxh3.Hash(b[start:]))
}

// AppendTo appends the record: u32le ESI, u16le K, symbol, tag (spec/wire.md
// section 8.2).
func (r *Record) AppendTo(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, r.ESI)
	b = binary.LittleEndian.AppendUint16(b, r.K)
	b = append(b, r.Data...)
	return append(b, r.Tag[:]...)
}

func (h *Header) appendTo(b []byte, l Layout, count, payload uint32) []byte {
	b = append(b, "FCPS"...)
	b = binary.LittleEndian.AppendUint16(b, uint16(l))
	b = binary.LittleEndian.AppendUint16(b, uint16(h.Flags))
	b = binary.LittleEndian.AppendUint32(b, count)
	b = binary.LittleEndian.AppendUint32(b, payload)
	b = append(b, h.Object[:]...)
	b = binary.LittleEndian.AppendUint16(b, h.SymbolSize)
	b = append(b, h.ZoneKey[:]...)
	b = append(b, h.ZoneHash[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.Epoch)
	if l == LayoutReference {
		b = binary.LittleEndian.AppendUint64(b, h.Sender)
	}
	return binary.LittleEndian.AppendUint64(b, h.Seq)
}

// DecodeFrame decodes exactly one frame of a layout, of at most limit bytes; 0
// means no limit but that of the numbers in it. It takes what the published
// reference takes: unknown flags are dropped and any symbol size but 0 is good.
// Check is the policy on top. Data of the records alias b. Errors: CodeTooLarge,
// CodeMalformed, CodeVersion, CodeChecksum, each with a Reason.
func DecodeFrame(b []byte, l Layout, limit int) (Frame, error) {
	const what = "a symbol frame"
	overhead := l.Overhead()
	switch {
	case limit > 0 && len(b) > limit:
		return Frame{}, refuse(fcp.CodeTooLarge, what, ReasonMTU)
	case len(b) < overhead:
		return Frame{}, refuse(fcp.CodeMalformed, what, ReasonShort)
	case string(b[:4]) != "FCPS":
		return Frame{}, refuse(fcp.CodeMalformed, what, ReasonMagic)
	case binary.LittleEndian.Uint16(b[4:]) != uint16(l):
		return Frame{}, refuse(fcp.CodeVersion, what, ReasonVersion)
	}
	f := Frame{Header: headerOf(b, l)}
	count, payload := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	record := RecordOverhead + uint64(f.SymbolSize)
	switch {
	case f.SymbolSize == 0:
		return Frame{}, refuse(fcp.CodeMalformed, what, ReasonSymbolSize)
	case uint64(payload) != uint64(count)*record, uint64(len(b)) != uint64(overhead)+uint64(payload):
		return Frame{}, refuse(fcp.CodeMalformed, what, ReasonLength)
	}
	if l == LayoutNative {
		body := len(b) - checksumSize
		if binary.LittleEndian.Uint64(b[body:]) != xxh3.Hash(b[:body]) {
			return Frame{}, refuse(fcp.CodeChecksum, what, ReasonChecksum)
		}
		b = b[:body]
	}
	f.Records = make([]Record, count) // count records are there: the length was checked
	rest := b[len(b)-int(payload):]
	for i := range f.Records {
		f.Records[i] = recordOf(rest[:record:record])
		rest = rest[record:]
	}
	return f, nil
}

// headerOf reads the header of a frame that is long enough.
func headerOf(b []byte, l Layout) Header {
	h := Header{Flags: Flags(binary.LittleEndian.Uint16(b[6:])) & knownFlags,
		Object: [32]byte(b[16:]), SymbolSize: binary.LittleEndian.Uint16(b[48:]),
		ZoneKey: [8]byte(b[50:]), ZoneHash: fcp.Hash(b[58:90]), Epoch: binary.LittleEndian.Uint64(b[90:])}
	if l == LayoutReference {
		h.Sender = binary.LittleEndian.Uint64(b[98:])
		h.Seq = binary.LittleEndian.Uint64(b[106:])
	} else {
		h.Seq = binary.LittleEndian.Uint64(b[98:])
	}
	return h
}

func recordOf(b []byte) Record {
	end := len(b) - TagSize
	return Record{ESI: binary.LittleEndian.Uint32(b), K: binary.LittleEndian.Uint16(b[4:]), Data: b[6:end:len(b)], Tag: [TagSize]byte(b[end:])}
}

// rawFlags returns the flags field of an encoded frame, unknown bits included.
func rawFlags(b []byte) Flags { return Flags(binary.LittleEndian.Uint16(b[6:])) }

// DecodeStrict is DecodeFrame followed by the policy of the specification: no
// unknown flag bits, symbols of MinSymbolSize to MaxSymbolSize bytes that are a
// multiple of 8, 1 to MaxFrameSymbols of them, at most MaxFramePayload bytes.
func DecodeStrict(b []byte, l Layout, limit int) (Frame, error) {
	const what = "a symbol frame"
	f, err := DecodeFrame(b, l, limit)
	switch {
	case err != nil:
		return Frame{}, err
	case rawFlags(b)&^knownFlags != 0:
		return Frame{}, refuse(fcp.CodeMalformed, what, ReasonFlags)
	case f.SymbolSize < MinSymbolSize || f.SymbolSize > MaxSymbolSize || f.SymbolSize%fcp.SymbolAlignment != 0:
		return Frame{}, refuse(fcp.CodeMalformed, what, ReasonSymbolSize)
	case len(f.Records) == 0 || len(f.Records) > MaxFrameSymbols || len(b) > MaxFramePayload:
		return Frame{}, refuse(fcp.CodeTooLarge, what, ReasonPayload)
	}
	return f, nil
}

// SymbolRoom returns the largest symbol of which n fit a frame within a datagram
// limit by the rule of the published reference, which leaves the session's
// envelope out of account; ok is false when none fits (spec/wire.md section 8.6).
func SymbolRoom(limit, n int) (size int, ok bool) {
	if n <= 0 || limit <= headReference {
		return 0, false
	}
	size = (limit-headReference)/n - RecordOverhead
	return size, size > 0
}

// FrameRoom returns how many symbols of a size fit a session datagram of limit
// bytes, envelope included, MaxFrameSymbols at most.
func FrameRoom(l Layout, symbolSize, limit int) int {
	return min(max(0, limit-EnvelopeSize-l.Overhead())/(RecordOverhead+symbolSize), MaxFrameSymbols)
}
