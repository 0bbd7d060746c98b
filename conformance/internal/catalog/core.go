package catalog

import (
	"crypto/ed25519"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/node/wire"
)

// Ciphertext is the segment that the card is of: three symbols, the last one short.
func Ciphertext() []byte { return Bytes(40, 2*fcp.SymbolSize+100) }

func (c *Catalog) core() {
	full := fcp.PlainHeader(fcp.SchemaBlob, fcp.ZoneWork, uint64(Now.Unix()))
	token, ttl := "approval-1", uint64(3600)
	full.Provenance.Chain = []fcp.ProvenanceStep{{TimestampMS: uint64(Now.UnixMilli()), Zone: fcp.ZonePublic, Actor: "user:alice", Action: "import", Resource: "file"}}
	full.Provenance.Taint, full.Provenance.Elevated, full.Provenance.ElevationToken = fcp.Tainted, true, &token
	full.Refs, full.ForeignRefs, full.TTL = []fcp.ObjectID{{1}}, []fcp.ObjectID{{2}}, &ttl
	full.Placement = &fcp.PlacementPolicy{MinNodes: 2, MaxNodeFractionBPS: 5000, TargetCoverageBPS: 15000, MinSourceDiversity: 1,
		Preferred: []fcp.DeviceSelector{{Kind: fcp.SelectTag, Text: "nas"}, {Kind: fcp.SelectNode, Node: 7}},
		Excluded:  []fcp.DeviceSelector{{Kind: fcp.SelectZone, Text: "z:public"}}}
	b, err := fcp.Marshal(&full)
	c.item("header", "ObjectHeader", b, err)
	c.item("header-plain", "ObjectHeader", fcp.AppendPlainHeader(nil, fcp.SchemaBlob, fcp.ZoneWork, uint64(Now.Unix())), nil)
	b, err = fcp.MarshalPayload(fcp.SchemaBlob, []byte("hello, mesh"))
	c.add("blob", fcp.SchemaBlob, b, err)

	e := c.Event(3, fcp.Hash{1}, []byte("sealed"))
	e.Kind, e.Key, e.Object, e.Generation, e.Size, e.Idempotency = fcp.KindObjectPut, []byte("notes/today"), fcp.ObjectID{5}, 2, 11, Bytes(41, fcp.IdempotencySize)
	e.Replaces = e.Replaces.Append(fcp.Hash{6}).Append(fcp.Hash{7})
	c.item("event", "Event", e.AppendTo(nil), nil)
	c.item("event-content", "EventContent", e.Content.AppendTo(nil), nil)
	small := c.Event(1, fcp.Hash{}, nil)
	small.Kind, small.Object = fcp.KindObjectTombstone, fcp.ObjectID{}
	small.Key, small.Generation = []byte("notes/today"), 3
	small.Replaces = small.Replaces.Append(e.Hash())
	c.item("event-tombstone", "Event", small.AppendTo(nil), nil)

	connector, retry := Connector, uint64(250)
	b, err = fcp.Marshal(fcp.ThrottleViolation{TimestampMS: uint64(Now.UnixMilli()), Zone: fcp.ZoneWork, Connector: &connector, Limit: fcp.ThrottleRPM,
		LimitValue: 60, CurrentValue: 61, RetryAfterMS: retry})
	c.item("throttle-violation", "ThrottleViolation", b, err)
	b, err = fcp.Marshal(fcp.Backpressure{Level: fcp.BackpressureSoft, UtilizationBPS: 9000, RetryAfterMS: &retry})
	c.item("backpressure", "Backpressure", b, err)

	body := Ciphertext()
	public := c.Node.Public().Signing
	card := fcp.Card{Format: fcp.CardFormat, Segment: fcp.SegmentID(blake3.Sum256(body)), Info: fcp.SegmentTransmission(uint64(len(body))).Bytes(),
		Source: fcp.CommitmentRoot(fcp.SourceCommitments(body, fcp.SymbolSize)), Signer: [ed25519.PublicKeySize]byte(public)}
	signed, err := card.SignedBytes()
	if take(c, signed, err); c.err != nil {
		return
	}
	card.Signature = c.Node.Sign(signed)
	b, err = card.Encode()
	c.add("card", fcp.SchemaSegmentCard, b, err)
	c.handshake()
}

// Hello and Ack are the handshake of the catalog: Second opens a session to Node.
func (c *Catalog) Hello() wire.Hello {
	h := wire.Hello{From: c.Second.Writer().String(), To: c.Node.Writer().String(), Ephemeral: [wire.KeySize]byte(Bytes(50, wire.KeySize)),
		Nonce: [wire.NonceSize]byte(Bytes(51, wire.NonceSize)), Timestamp: uint64(Now.Unix()), Suites: []wire.Suite{wire.SuiteBLAKE3, wire.SuiteHMAC}, Limit: 1400}
	return h
}

func (c *Catalog) handshake() {
	h := c.Hello()
	message, err := h.Transcript()
	h.Signature = c.Second.Sign(take(c, message, err))
	b, err := h.Encode()
	c.item("hello", "Hello", b, err)
	retry := wire.Retry{From: h.To, To: h.From, Timestamp: h.Timestamp}
	if retry.Cookie, err = wire.CookieFor(CookieKey(), &h); err != nil {
		take(c, 0, err)
		return
	}
	b, err = retry.Encode()
	c.item("retry", "Retry", b, err)
	again := h
	again.Cookie, again.Signature = retry.Cookie[:], nil
	message, err = again.Transcript()
	again.Signature = c.Second.Sign(take(c, message, err))
	b, err = again.Encode()
	c.item("hello-cookie", "Hello", b, err)
	a := wire.Ack{From: h.To, To: h.From, Ephemeral: [wire.KeySize]byte(Bytes(52, wire.KeySize)), Nonce: [wire.NonceSize]byte(Bytes(53, wire.NonceSize)),
		Session: Session(), Suite: wire.SuiteBLAKE3, Timestamp: h.Timestamp}
	message, err = a.Transcript(&h)
	a.Signature = c.Node.Sign(take(c, message, err))
	b, err = a.Encode()
	c.item("ack", "Ack", b, err)
}

// CookieKey is the responder's key for cookies.
func CookieKey() wire.Key { return wire.Key(Bytes(54, wire.KeySize)) }

// Session is the session id of the catalog.
func Session() wire.SessionID {
	s := wire.SessionID(Bytes(55, wire.SessionIDSize))
	s[0] &= 0x3f
	return s
}
