package wire

import (
	"encoding/binary"

	"fcp"
)

// EnvelopeSize is what a session datagram has in front of its frame: session
// id[16], u64le number, MAC[16] (spec/wire.md section 8.7).
const EnvelopeSize = SessionIDSize + 8 + TagSize

// Datagram is a session datagram taken apart. Frame aliases the input.
type Datagram struct {
	Session SessionID
	Seq     uint64
	MAC     [TagSize]byte
	Frame   []byte
}

// DecodeDatagram takes a session datagram of at most limit bytes apart; it checks
// neither MAC nor frame. Errors: CodeMalformed with ReasonShort, CodeTooLarge with
// ReasonTooLarge.
func DecodeDatagram(b []byte, limit int) (Datagram, error) {
	const what = "a session datagram"
	switch {
	case len(b) > limit:
		return Datagram{}, refuse(fcp.CodeTooLarge, what, ReasonTooLarge)
	case len(b) < EnvelopeSize:
		return Datagram{}, refuse(fcp.CodeMalformed, what, ReasonShort)
	}
	return Datagram{Session: SessionID(b[:16]), Seq: binary.LittleEndian.Uint64(b[16:]), MAC: [TagSize]byte(b[24:]), Frame: b[EnvelopeSize:]}, nil
}
