package symbols

import (
	"crypto/ed25519"

	"fcp"
)

// ManifestFormat is the version of the share manifest and of share files.
const ManifestFormat = 1

// Limits of a share manifest.
const (
	MaxManifest = 1 << 20 // bytes
	MaxSegments = 1 << 10 // segments in one
	MaxRanges   = 1 << 12 // of one segment
)

var schemaShareManifest = fcp.MustSchema("fcp.core:ShareManifest@1.0.0")

// Manifest is docs/format.md "Share manifest": which ranges of symbols of which
// segments somebody minted. It is written to every place before the symbols are,
// so that it is also the record of what is allotted.
type Manifest struct {
	Format    uint64                      `cbor:"format"`
	Genesis   fcp.Hash                    `cbor:"genesis"` // id of the genesis checkpoint of the store
	Minter    [ed25519.PublicKeySize]byte `cbor:"minter"`
	Device    []byte                      `cbor:"device,omitempty"` // the minter's enrollment by the owner
	Created   uint64                      `cbor:"created"`          // unix seconds
	Need      uint64                      `cbor:"need"`             // of the policy: places that are enough
	Segments  []Minted                    `cbor:"segments"`
	Signature []byte                      `cbor:"signature,omitempty"`
}

// Minted is what was minted of one segment.
type Minted struct {
	Card   []byte  `cbor:"card"`             // the segment's signed card
	Ranges []Range `cbor:"ranges,omitempty"` // none: the segment is copied whole
}

// Range is one share.
type Range struct {
	First uint64   `cbor:"first"`
	Count uint64   `cbor:"count"`
	Root  fcp.Hash `cbor:"root"` // RFC 6962 root over the commitments to its symbols
}

// Allotment is a Manifest whose cards were decoded.
type Allotment struct {
	Manifest
	Cards []fcp.Card // of Segments
}

// Sign encodes the manifest with a signature made by sign.
func (m *Manifest) Sign(sign func(message []byte) []byte) ([]byte, error) {
	m.Signature = nil
	if _, err := m.check(); err != nil {
		return nil, err
	}
	message, err := fcp.MarshalPayload(schemaShareManifest, m)
	if err != nil {
		return nil, err
	}
	m.Signature = sign(message)
	b, err := fcp.MarshalPayload(schemaShareManifest, m)
	if err == nil && len(b) > MaxManifest {
		err = fcp.Errorf(fcp.CodeTooLarge, "a share manifest of %d bytes", len(b))
	}
	return b, err
}

// DecodeManifest decodes a share manifest and verifies the cards in it and the
// signature of the minter it names. Who that is, and whether anybody vouches for
// it, is the caller's question.
func DecodeManifest(b []byte) (*Allotment, error) {
	if len(b) > MaxManifest {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a share manifest of %d bytes", len(b))
	}
	var m Manifest
	if err := fcp.UnmarshalPayload(schemaShareManifest, b, &m); err != nil {
		return nil, err
	}
	cards, err := m.check()
	if err != nil {
		return nil, err
	}
	signed := m
	signed.Signature = nil
	message, err := fcp.MarshalPayload(schemaShareManifest, &signed)
	if err != nil {
		return nil, err
	}
	if len(m.Signature) != ed25519.SignatureSize || !ed25519.Verify(m.Minter[:], message, m.Signature) {
		return nil, fcp.Errorf(fcp.CodeSignature, "share manifest of %s", fcp.KidOf(m.Minter[:]))
	}
	return &Allotment{m, cards}, nil
}

func (m *Manifest) check() ([]fcp.Card, error) {
	bad := func(what string) error { return fcp.Errorf(fcp.CodeMalformed, "share manifest: %s", what) }
	switch {
	case m.Format != ManifestFormat:
		return nil, fcp.Errorf(fcp.CodeVersion, "share manifest format %d, this build knows %d", m.Format, ManifestFormat)
	case m.Created > 1<<38:
		return nil, bad("time")
	case m.Need == 0 || m.Need > MaxPlaces:
		return nil, bad("policy")
	case len(m.Segments) == 0 || len(m.Segments) > MaxSegments:
		return nil, bad("number of segments")
	case len(m.Device) > fcp.MaxClearBody:
		return nil, bad("enrollment")
	}
	cards := make([]fcp.Card, len(m.Segments))
	for i := range m.Segments {
		s := &m.Segments[i]
		c, err := fcp.DecodeCard(s.Card)
		if err != nil {
			return nil, err
		}
		info, err := c.Transmission()
		if err != nil {
			return nil, err
		}
		if info != fcp.SegmentTransmission(info.F) {
			return nil, bad("transmission information")
		}
		if i > 0 && string(cards[i-1].Segment[:]) >= string(c.Segment[:]) {
			return nil, bad("order of segments")
		}
		if len(s.Ranges) > MaxRanges || len(s.Ranges) > 0 && !Coded(uint32(info.F)) {
			return nil, bad("ranges of a segment")
		}
		end := uint64(0)
		for _, r := range s.Ranges {
			if r.First > 1<<24 || r.Count > 1<<24 {
				return nil, bad("range")
			}
			ref := Ref{c.Segment, uint32(info.F), uint32(r.First), uint32(r.Count)}
			if !ref.Valid() || r.First < end {
				return nil, bad("range")
			}
			end = r.First + r.Count
		}
		cards[i] = c
	}
	return cards, nil
}
