package node

import (
	"crypto/ed25519"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/symbols"
	"fcp/gossip"
	"fcp/log"
)

// A control message is a payload: schema hash, then a canonical map (docs/format.md
// "Control messages"). The schemas are the closed set of messages.
var (
	schemaCapabilities = fcp.MustSchema("fcp.mesh:Capabilities@1.0.0")
	schemaVector       = fcp.MustSchema("fcp.mesh:Vector@1.0.0")
	schemaDigest       = fcp.MustSchema("fcp.mesh:Digest@1.0.0")
	schemaUpdate       = fcp.MustSchema("fcp.mesh:Inventory@1.0.0")
	schemaWhoHas       = fcp.MustSchema("fcp.mesh:WhoHas@1.0.0")
	schemaLeave        = fcp.MustSchema("fcp.mesh:Leave@1.0.0")
	schemaWant         = fcp.MustSchema("fcp.mesh:Want@1.0.0")
	schemaEvents       = fcp.MustSchema("fcp.mesh:Events@1.0.0")
	schemaSaltsWanted  = fcp.MustSchema("fcp.mesh:SaltsWanted@1.0.0")
	schemaSalts        = fcp.MustSchema("fcp.mesh:Salts@1.0.0")
	schemaOffer        = fcp.MustSchema("fcp.mesh:SymbolDeliveryHint@1.0.0")
	schemaShareQuery   = fcp.MustSchema("fcp.mesh:ShareQuery@1.0.0")
	schemaShareHeads   = fcp.MustSchema("fcp.mesh:ShareHeads@1.0.0")
	schemaRequest      = fcp.MustSchema("fcp.mesh:SymbolRequest@1.0.0")
	schemaReply        = fcp.MustSchema("fcp.mesh:SymbolReply@1.0.0")
	schemaStatus       = fcp.MustSchema("fcp.mesh:DecodeStatus@1.0.0")
	schemaAck          = fcp.MustSchema("fcp.mesh:SymbolAck@1.0.0")
)

// capabilities is the first message each side sends: what it can do, under the
// session's keys, so nobody can talk a pair down.
type capabilities struct {
	Versions   []uint64 `cbor:"versions"`    // of this protocol, best first
	Layouts    []uint64 `cbor:"layouts"`     // wire.Layout, best first
	Carriers   []uint64 `cbor:"carriers"`    // carrier, any order
	Compress   []string `cbor:"compression"` // of control frames; none yet
	MaxControl uint64   `cbor:"max_control"` // bytes of a control message it takes
	MaxFrame   uint64   `cbor:"max_frame"`   // bytes of a session datagram on a stream it takes
	Genesis    fcp.Hash `cbor:"genesis"`     // of its store: another one is another mesh
	Listen     string   `cbor:"listen,omitempty"`
	Bulk       uint64   `cbor:"bulk,omitempty"` // port for bulk connections, at the address that the session is with
}

const protocolVersion = 1

// carrier is how symbols travel.
type carrier uint64

const (
	carrierDatagram carrier = 1 // QUIC DATAGRAM frames
	carrierStream   carrier = 2 // a QUIC stream for each reply, u16be length in front of each datagram
	carrierLane     carrier = 3 // the node's UDP socket beside QUIC
	carrierWhole    carrier = 4 // a QUIC stream for each share, without frames
	carrierBulk     carrier = 5 // a bulk connection, likewise
	carrierPart     carrier = 6 // a bulk connection, for parts of shares
)

// want asks for events of a feed.
type want struct {
	Zone        fcp.ZoneID   `cbor:"zone"`
	Writer      fcp.WriterID `cbor:"writer"`
	Incarnation uint64       `cbor:"incarnation"`
	Ranges      [][2]uint64  `cbor:"ranges"` // first and last, ascending
}

func (w *want) feed() fcp.Feed {
	return fcp.Feed{Zone: w.Zone, Writer: w.Writer, Incarnation: w.Incarnation, Plane: fcp.PlaneControl}
}

// events carries consecutive events of a control feed under a signed head. When
// the last of them is not the head's, Proof is its inclusion proof (RFC 9162
// section 2.1.3) in the tree of Head.Seq leaves with root Head.Root.
type events struct {
	Head   gossip.Head `cbor:"head"`
	First  uint64      `cbor:"first"`
	Events [][]byte    `cbor:"events"` // canonical, in order
	Proof  []fcp.Hash  `cbor:"proof,omitempty"`
	Salts  []byte      `cbor:"salts"`           // log.SaltSize bytes for each event
	Asked  bool        `cbor:"asked,omitempty"` // the answer to a want; else pushed
	None   bool        `cbor:"none,omitempty"`  // the sender cannot give what was asked
}

// saltsWanted asks for the body salts of segments; salts gives those of one.
type saltsWanted struct {
	Segments []fcp.SegmentID `cbor:"segments"`
}

type salts struct {
	Segment fcp.SegmentID `cbor:"segment"`
	Salts   []byte        `cbor:"salts"` // log.SaltSize bytes for each event; none: not here
}

// offer is a symbol delivery hint: the sender asks the receiver to hold a share
// and has it ready.
type offer struct {
	Manifest []byte `cbor:"manifest"` // the minter's signed manifest of the share
	First    uint64 `cbor:"first"`
	Count    uint64 `cbor:"count"`
}

// shareQuery asks which shares of a segment a peer can give symbols of; shareHeads
// describes them.
type shareQuery struct {
	Segment fcp.SegmentID `cbor:"segment"`
	First   uint64        `cbor:"first,omitempty"` // with Count: this share alone
	Count   uint64        `cbor:"count,omitempty"` // 0: those that are there
	Try     uint64        `cbor:"try,omitempty"`   // over the lane: counts from 1, and the answer comes over the lane
	ID      uint64        `cbor:"id,omitempty"`    // of the question, in the answer too
}

type shareHeads struct {
	Segment fcp.SegmentID `cbor:"segment"`
	Shares  []shareHead   `cbor:"shares"`
	ID      uint64        `cbor:"id,omitempty"`
}

type shareHead struct {
	Manifest []byte `cbor:"manifest"`
	First    uint64 `cbor:"first"`
	Count    uint64 `cbor:"count"`
	Head     []byte `cbor:"head"` // a share file up to its symbols
}

// symbolRequest asks for symbols of one share. It is signed by who asks, over the
// payload without the signature, so that a flood can be proven.
type symbolRequest struct {
	ID        uint64                      `cbor:"id"` // counts up in a session
	Segment   fcp.SegmentID               `cbor:"segment"`
	First     uint64                      `cbor:"first"` // of the share
	Count     uint64                      `cbor:"count"`
	Wanted    []byte                      `cbor:"wanted"` // roaring bitmap of encoding symbol ids
	Max       uint64                      `cbor:"max_symbols"`
	Carrier   uint64                      `cbor:"carrier"`
	Zone      fcp.Hash                    `cbor:"zone_hash"` // zeros: not known
	ZoneKey   [8]byte                     `cbor:"zone_key"`
	Epoch     uint64                      `cbor:"epoch"`
	Requester [ed25519.PublicKeySize]byte `cbor:"requester"`
	At        uint64                      `cbor:"requested_at"` // unix milliseconds
	Deadline  uint64                      `cbor:"deadline"`     // unix milliseconds
	Signature []byte                      `cbor:"signature,omitempty"`
}

// sign signs the request; verify is its counterpart.
func (r *symbolRequest) sign(s log.Signer) error {
	r.Requester, r.Signature = [ed25519.PublicKeySize]byte(s.Public()), nil
	m, err := fcp.MarshalPayload(schemaRequest, r)
	if err != nil {
		return err
	}
	r.Signature, err = s.Sign(m)
	return err
}

func (r *symbolRequest) verify() error {
	signed := *r
	signed.Signature = nil
	m, err := fcp.MarshalPayload(schemaRequest, &signed)
	if err != nil {
		return err
	}
	if len(r.Signature) != ed25519.SignatureSize || !ed25519.Verify(r.Requester[:], m, r.Signature) {
		return fcp.Errorf(fcp.CodeSignature, "a symbol request")
	}
	return nil
}

// symbolReply says what a responder does with a request, before the first symbol.
type symbolReply struct {
	ID      uint64   `cbor:"id"`
	Granted uint64   `cbor:"granted"` // symbols that come
	Refused fcp.Code `cbor:"refused,omitempty"`
}

// decodeStatus tells a responder how far the asker is; complete stops it. On the
// lane it tells besides which symbols of the share came, and of packets what the
// responder paces itself by.
type decodeStatus struct {
	ID       uint64 `cbor:"id"`
	Received uint64 `cbor:"received_unique"`
	Complete bool   `cbor:"complete"`
	First    uint32 `cbor:"first,omitempty"`  // symbol of the first bit of Have
	Have     []byte `cbor:"have,omitempty"`   // bit i%8 of byte i/8: symbol First+i came
	Frame    uint64 `cbor:"frame,omitempty"`  // number of the newest frame with symbols that came over the lane
	Frames   uint64 `cbor:"frames,omitempty"` // how many of them came in this session
	At       uint64 `cbor:"at,omitempty"`     // when the newest came: unix microseconds of the asker's clock
	Held     uint64 `cbor:"held,omitempty"`   // microseconds from then to this status
}

// maxHave is the bitmap of the largest share.
const maxHave = (fcp.MaxSegment/fcp.SymbolSize + symbols.MaxExtra + 7) / 8

// has reports whether a symbol came.
func (m *decodeStatus) has(esi uint32) bool {
	i := esi - m.First
	return esi >= m.First && int(i/8) < len(m.Have) && m.Have[i/8]>>(i%8)&1 == 1
}

// tell fills in which symbols of a share came.
func (m *decodeStatus) tell(r *symbols.Ref, got *roaring.Bitmap) {
	m.First, m.Have = r.First, make([]byte, (r.Count+7)/8)
	for it := got.Iterator(); it.HasNext(); {
		if i := it.Next() - r.First; i < r.Count {
			m.Have[i/8] |= 1 << (i % 8)
		}
	}
}

// symbolAck is the responder's last word on a request: everything that it grants
// was sent (spec/wire.md section 10.4).
type symbolAck struct {
	ID      uint64 `cbor:"id"`
	Reason  string `cbor:"reason"`
	Final   uint64 `cbor:"final_symbol_count"` // symbols sent
	Carrier uint64 `cbor:"carrier"`            // that the last of them went over
}

// The reasons of a symbolAck.
const (
	ackComplete  = "complete"
	ackCancelled = "cancelled"
)

// encodeMessage returns the payload of a message.
func encodeMessage(m any) ([]byte, error) {
	if g, ok := m.(gossip.Message); ok {
		body, err := g.Encode()
		if err != nil {
			return nil, err
		}
		h := gossipSchema(g).Hash()
		return append(h[:], body...), nil
	}
	for _, k := range messages {
		if k.is(m) {
			return fcp.MarshalPayload(k.schema, m)
		}
	}
	return nil, fcp.Errorf(fcp.CodeInternal, "%T is no message", m)
}

func gossipSchema(m gossip.Message) fcp.Schema {
	switch m.(type) {
	case *gossip.Vector:
		return schemaVector
	case *gossip.Digest:
		return schemaDigest
	case *gossip.Update:
		return schemaUpdate
	case *gossip.WhoHas:
		return schemaWhoHas
	}
	return schemaLeave
}

// kind is one row of the table of messages.
type kind struct {
	schema fcp.Schema
	is     func(any) bool
	decode func(payload, body []byte) (any, error)
}

// own is the row of a message of this package, with a check of its sizes.
func own[T any](s fcp.Schema, check func(*T) bool) kind {
	return kind{s, func(m any) bool { _, ok := m.(*T); return ok }, func(payload, _ []byte) (any, error) {
		m := new(T)
		if err := fcp.UnmarshalPayload(s, payload, m); err != nil {
			return nil, err
		}
		if !check(m) {
			return nil, fcp.Errorf(fcp.CodeMalformed, "a message %s with a field out of bounds", s)
		}
		return m, nil
	}}
}

// foreign is the row of a message of package gossip.
func foreign[T gossip.Message](s fcp.Schema, decode func([]byte) (T, error)) kind {
	return kind{s, func(m any) bool { _, ok := m.(T); return ok }, func(_, body []byte) (any, error) { return decode(body) }}
}

var messages = []kind{
	foreign(schemaVector, gossip.DecodeVector),
	foreign(schemaDigest, gossip.DecodeDigest),
	foreign(schemaUpdate, gossip.DecodeUpdate),
	foreign(schemaWhoHas, gossip.DecodeWhoHas),
	foreign(schemaLeave, func(b []byte) (*gossip.Leave, error) {
		var m struct{}
		return &gossip.Leave{}, fcp.Unmarshal(b, &m)
	}),
	own(schemaCapabilities, func(m *capabilities) bool {
		return len(m.Versions) <= 16 && len(m.Layouts) <= 16 && len(m.Carriers) <= 16 && len(m.Compress) <= 16 && len(m.Listen) <= 256
	}),
	own(schemaWant, func(m *want) bool {
		if !m.Zone.Valid() || len(m.Ranges) == 0 || len(m.Ranges) > 64 {
			return false
		}
		last := uint64(0)
		for _, r := range m.Ranges {
			if r[0] <= last || r[1] < r[0] {
				return false
			}
			last = r[1]
		}
		return true
	}),
	own(schemaEvents, func(m *events) bool {
		return m.Head.Zone.Valid() && len(m.Events) <= maxBatchEvents && len(m.Salts) == len(m.Events)*log.SaltSize &&
			len(m.Proof) <= 64 && (m.None || m.First > 0 && len(m.Events) > 0)
	}),
	own(schemaTailPart, (*tailPart).ok),
	own(schemaTailHeld, func(*tailHeld) bool { return true }),
	own(schemaTailWanted, func(m *tailWanted) bool { return m.Zone.Valid() }),
	own(schemaLeafWanted, (*leafWanted).ok),
	own(schemaLeaf, (*leaf).ok),
	own(schemaProposal, (*checkpointProposal).ok),
	own(schemaAsk, (*ask).ok),
	own(schemaAnswer, (*answer).ok),
	own(schemaSaltsWanted, func(m *saltsWanted) bool { return len(m.Segments) > 0 && len(m.Segments) <= 64 }),
	own(schemaSalts, func(m *salts) bool { return len(m.Salts)%log.SaltSize == 0 }),
	own(schemaChallenge, (*possessionChallenge).ok),
	own(schemaProof, (*possessionProof).ok),
	own(schemaOffer, func(m *offer) bool { return m.First < 1<<24 && m.Count > 0 && m.Count < 1<<16 }),
	own(schemaSwim, func(m *swim) bool { return len(m.Packet) <= 64<<10 }),
	own(schemaAddresses, (*addresses).ok),
	own(schemaShareQuery, func(m *shareQuery) bool { return m.First < 1<<24 && m.Count < 1<<16 }),
	own(schemaShareHeads, func(m *shareHeads) bool { return len(m.Shares) <= maxShares }),
	own(schemaRequest, func(m *symbolRequest) bool {
		return m.First < 1<<24 && m.Count > 0 && m.Count < 1<<16 && len(m.Wanted) <= 16<<10
	}),
	own(schemaPinReports, (*pinReports).ok),
	own(schemaReply, func(*symbolReply) bool { return true }),
	own(schemaStatus, func(m *decodeStatus) bool { return len(m.Have) <= maxHave }),
	own(schemaAck, func(m *symbolAck) bool { return len(m.Reason) <= 32 }),
}

// decodeMessage decodes one control message strictly.
func decodeMessage(b []byte) (any, error) {
	if len(b) > maxMessage {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a message of %d bytes", len(b))
	}
	if len(b) < fcp.HashSize {
		return nil, fcp.Errorf(fcp.CodeSchema, "a message of %d bytes", len(b))
	}
	for i := range messages {
		if messages[i].schema.Hash() == fcp.Hash(b[:fcp.HashSize]) {
			return messages[i].decode(b, b[fcp.HashSize:])
		}
	}
	return nil, fcp.Errorf(fcp.CodeSchema, "a message of a kind that this build does not know")
}

// decodeWanted decodes the ids of a request: validated, at most max of them, all
// within the share.
func decodeWanted(b []byte, first, count uint64) (*roaring.Bitmap, error) {
	m, err := gossip.DecodeBitmap(b, uint32(first), uint32(first+count-1))
	return m, fcp.Wrap(fcp.CodeMalformed, err, "the ids of a symbol request")
}
