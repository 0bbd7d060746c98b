package vectors

import (
	"crypto/ecdh"
	_ "embed"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"

	"fcp"
	"fcp/authority"
	"fcp/conformance/internal/catalog"
	"fcp/conformance/internal/respond"
	"fcp/node/wire"
)

// hybridManifest was made once, with the catalog's keys: boxes of the hybrid KEM
// cannot be repeated, because crypto/hpke takes no randomness.
//
//go:embed fixed/hybrid-manifest.cbor
var hybridManifest []byte

func (m *maker) tokens() {
	issuance, other := m.c.Node.Public().Issuance, m.c.Second.Public().Issuance
	token := func(name, what string, chain []byte, code fcp.Code, key []byte) {
		m.cbor("tokens", name, what, "token.verify", chain, code, "issuer", hexed(key))
	}
	one, err := authority.NewChain(m.c.Token)
	if err != nil {
		panic(err) // the catalog's own
	}
	both := m.c.Chain
	token("token", "a chain of one token and its ref", one.Bytes(), 0, issuance[:])
	token("chain", "a token and a narrower one", both.Bytes(), 0, issuance[:])
	token("other-issuer", "signed by another node", one.Bytes(), fcp.CodeSignature, other[:])
	token("signature", "a changed signature", flip(one.Bytes(), -1), fcp.CodeSignature, issuance[:])
	token("claim", "a changed claim", flip(one.Bytes(), find(one.Bytes(), "mail-1")), fcp.CodeSignature, issuance[:])
	token("child-signature", "a changed signature of the child", flip(both.Bytes(), -1), fcp.CodeSignature, issuance[:])
	tokens := both.Tokens()
	if child, err := authority.NewChain(tokens[1]); err == nil {
		token("child-alone", "a child without its parent", child.Bytes(), fcp.CodeDenied, issuance[:])
	}
	token("trailing", "a byte behind the chain", append(slices.Clone(one.Bytes()), 0), fcp.CodeMalformed, issuance[:])
	token("empty", "a chain of none", []byte{0x80}, fcp.CodeTooLarge, issuance[:])
	m.cbor("tokens", "reference", "a token of the reference profile", "token.reference", m.c.Reference, 0, "issuer", hexed(issuance[:]))
	m.cbor("tokens", "reference-signature", "a changed signature", "token.reference", flip(m.c.Reference, -1), fcp.CodeSignature, "issuer", hexed(issuance[:]))
	m.cbor("tokens", "reference-native", "a native token is none of the reference profile", "token.reference", m.c.Token, fcp.CodeDenied, "issuer", hexed(issuance[:]))

	challenge := authority.Challenge{Kind: authority.ChallengeNonce, Value: [32]byte(catalog.Bytes(71, 32))}
	request := fcp.Hash(catalog.Bytes(72, 32))
	sig := m.c.Holder.Prove(challenge, one.Leaf(), request)
	proof := func(name, what string, sig []byte, code fcp.Code, kind string, request fcp.Hash) {
		m.add("tokens", name, what, "proof.verify", sig, code, "chain", hexed(one.Bytes()), "kind", kind, "challenge", hexed(challenge.Value[:]), "request", hexed(request[:]))
	}
	proof("proof", "the holder proves possession", sig, 0, "1", request)
	proof("proof-request", "the proof of another request", sig, fcp.CodeSignature, "1", fcp.Hash{1})
	proof("proof-kind", "the proof over another kind of challenge", sig, fcp.CodeSignature, "2", request)
	proof("proof-changed", "a changed proof", flip(sig, 3), fcp.CodeSignature, "1", request)
}

func (m *maker) sealed() {
	owner, secret := m.c.Owner.Public(), hexed(m.c.Second.Secret())
	entropy := hexed(m.c.Owner.Entropy())
	byNode := []string{"owner", hexed(owner[:]), "node", secret, "entropy", ""}
	byOwner := []string{"owner", hexed(owner[:]), "node", "", "entropy", entropy}
	m.add("sealed", "owner", "the owner's keys", "owner.key", m.c.Owner.Entropy(), 0)
	m.add("sealed", "owner-short", "too little entropy", "owner.key", m.c.Owner.Entropy()[:16], fcp.CodeMalformed)
	m.cbor("sealed", "boxes-node", "boxes opened by a node", "manifest.open", m.c.Manifest, 0, byNode...)
	m.cbor("sealed", "boxes-recovery", "boxes opened by the recovery key", "manifest.open", m.c.Manifest, 0, byOwner...)
	m.cbor("sealed", "boxes-stranger", "a node that is no recipient", "manifest.open", m.c.Manifest, fcp.CodeWrongKey, "owner", hexed(owner[:]),
		"node", hexed(m.c.Node.Secret()), "entropy", "")
	m.cbor("sealed", "boxes-changed", "a changed box breaks the owner's signature", "manifest.open", flip(m.c.Manifest, find(m.c.Manifest, "enc")+20), fcp.CodeSignature, byNode...)

	m.cbor("sealed", "boxes-hybrid", "boxes of the hybrid KEM, opened by a node", "manifest.open", hybridManifest, 0, byNode...)
	m.cbor("sealed", "boxes-hybrid-recovery", "and by the recovery key", "manifest.open", hybridManifest, 0, byOwner...)
	m.cbor("sealed", "boxes-hybrid-stranger", "a node that is no recipient", "manifest.open", hybridManifest, fcp.CodeWrongKey, "owner", hexed(owner[:]),
		"node", hexed(m.c.Node.Secret()), "entropy", "")

	object, salt := fcp.ObjectID(catalog.Bytes(73, 32)), authority.Salt(catalog.Bytes(74, authority.SaltSize))
	body := func(name, what string, b []byte, code fcp.Code, id fcp.ObjectID) {
		params := append([]string{"manifest", hexed(m.c.Manifest), "object", id.String(), "salt", hexed(salt[:])}, byNode...)
		m.add("sealed", name, what, "body.open", b, code, params...)
	}
	small := m.c.Keys.SealBody(nil, object, salt, []byte("a sealed body"))
	large := m.c.Keys.SealBody(nil, object, salt, catalog.Bytes(75, authority.FrameSize+1))
	body("body", "a body of one frame", small, 0, object)
	body("body-empty", "an empty body is one empty frame", m.c.Keys.SealBody(nil, object, salt, nil), 0, object)
	body("body-frames", "a body of two frames", large, 0, object)
	body("body-changed", "a changed byte", flip(small, 3), fcp.CodeCorrupt, object)
	body("body-cut", "the last frame is missing", large[:authority.FrameSize+authority.TagSize], fcp.CodeCorrupt, object)
	body("body-moved", "the body of another object", small, fcp.CodeCorrupt, fcp.ObjectID{1})
	m.segment(byNode)
}

// segment makes the frames of a segment and their wrapped key.
func (m *maker) segment(keys []string) {
	address := []byte("an address of 32 bytes and more...")
	key, err := authority.NewSegmentKey(catalog.Random(76))
	if err != nil {
		panic(err) // repeatable
	}
	wrapped, err := m.c.Keys.WrapSegmentKey(catalog.Random(77), key, address)
	if err != nil {
		panic(err)
	}
	cipher, err := key.Cipher(address)
	if err != nil {
		panic(err)
	}
	frames := cipher.SealFrame(nil, []byte("the first frame"), 0, false)
	frames = cipher.SealFrame(frames, []byte("the last"), 1, true)
	add := func(name, what string, b []byte, code fcp.Code, address []byte, lengths string) {
		params := append([]string{"manifest", hexed(m.c.Manifest), "wrapped", hexed(wrapped[:]), "address", hexed(address), "frames", lengths}, keys...)
		m.add("sealed", name, what, "segment.open", b, code, params...).parts = []part{{15, "frame 0"}, {16, "its tag"}, {8, "frame 1, the last"}, {16, "its tag"}}[:min(4, len(b)/12)]
	}
	add("segment", "frames of a segment", frames, 0, address, "15,8")
	add("segment-address", "the key of another place", frames, fcp.CodeWrongKey, []byte("elsewhere"), "15,8")
	add("segment-cut", "a segment without its last frame", frames[:31], fcp.CodeCorrupt, address, "15")
}

func (m *maker) frames() {
	h := wire.Header{Flags: wire.DefaultFlags, Object: [32]byte(catalog.Bytes(80, 32)), SymbolSize: 256, ZoneKey: [8]byte{1}, ZoneHash: fcp.ZoneWork.Hash(),
		Epoch: 5_900_000, Seq: 1}
	key := wire.Key(catalog.Bytes(81, 32))
	cipher, err := wire.NewSymbolCipher(key)
	if err != nil {
		panic(err) // a key of the right length
	}
	frame := cipher.AppendSealed(nil, wire.LayoutNative, &h, 40, []uint32{0, 41}, func(i int) []byte { return catalog.Bytes(byte(82+i), 256) })
	parts := []part{{4, `"FCPS"`}, {2, "version 2"}, {2, "flags"}, {4, "number of symbols"}, {4, "bytes of the records"}, {32, "segment id"}, {2, "symbol size"},
		{8, "zone key id"}, {32, "zone id hash"}, {8, "epoch"}, {8, "frame number"}, {4, "encoding symbol id"}, {2, "K"}, {256, "sealed symbol"}, {16, "tag"},
		{4, "encoding symbol id"}, {2, "K"}, {256, "sealed symbol"}, {16, "tag"}, {8, "XXH3-64 of everything before"}}
	check := func(name, what string, b []byte, code fcp.Code, limit string) {
		c := m.add("frames", name, what, "symbols.check", b, code, "layout", "2", "limit", limit)
		if len(b) == len(frame) {
			c.parts = parts
		}
	}
	resum := func(change func(b []byte)) []byte { // a frame that is wrong and has the right checksum
		b := slices.Clone(frame)
		change(b)
		end := len(b) - 8
		return binary.LittleEndian.AppendUint64(b[:end], xxh3.Hash(b[:end]))
	}
	check("symbols", "a frame of two symbols", frame, 0, "0")
	check("symbols-checksum", "a changed byte", flip(frame, 200), fcp.CodeChecksum, "0")
	check("symbols-version", "another version", resum(func(b []byte) { b[4] = 9 }), fcp.CodeVersion, "0")
	check("symbols-magic", "another magic", resum(func(b []byte) { b[0] = 'X' }), fcp.CodeMalformed, "0")
	check("symbols-flags", "an unknown flag", resum(func(b []byte) { b[7] |= 0x80 }), fcp.CodeMalformed, "0")
	check("symbols-count", "more symbols than there are", resum(func(b []byte) { b[8] = 3 }), fcp.CodeMalformed, "0")
	check("symbols-size", "a symbol size of zero", resum(func(b []byte) { b[48], b[49] = 0, 0 }), fcp.CodeMalformed, "0")
	check("symbols-short", "a frame that ends in its head", frame[:50], fcp.CodeMalformed, "0")
	check("symbols-limit", "a frame above the session's limit", frame, fcp.CodeTooLarge, "400")
	reference := wire.Frame{Header: h, Records: []wire.Record{{ESI: 3, K: 40, Data: catalog.Bytes(90, 256), Tag: [16]byte{1}}}}
	reference.Sender = 7
	if b, err := reference.AppendTo(nil, wire.LayoutReference); err == nil {
		m.add("frames", "symbols-reference", "a frame of the reference layout (wire 8.1)", "symbols.check", b, 0, "layout", "1", "limit", "0")
	}
	open := func(name, what string, b []byte, code fcp.Code, key wire.Key) {
		m.add("frames", name, what, "symbols.open", b, code, "key", hexed(key[:])).parts = parts
	}
	open("symbols-open", "the symbols of a frame", frame, 0, key)
	open("symbols-open-key", "another session's key", frame, fcp.CodeChecksum, wire.Key{1})
	open("symbols-open-changed", "a changed tag under a right checksum", resum(func(b []byte) { b[len(b)-10] ^= 1 }), fcp.CodeChecksum, key)

	session, ctx := catalog.Session(), wire.Key(catalog.Bytes(83, 32))
	control, err := wire.NewControlCipher(session, ctx)
	if err != nil {
		panic(err)
	}
	sealed, err := control.Seal(nil, wire.ToResponder, 1, wire.ControlEncrypted, []byte("a control message"))
	if err != nil {
		panic(err)
	}
	c := func(name, what string, b []byte, code fcp.Code, direction string) {
		m.add("frames", name, what, "control.open", b, code, "session", hexed(session[:]), "key", hexed(ctx[:]), "direction", direction)
	}
	c("control", "a control frame", sealed, 0, "0")
	c("control-direction", "sent back to its sender", sealed, fcp.CodeChecksum, "1")
	c("control-changed", "a changed byte", flip(sealed, -1), fcp.CodeChecksum, "0")
	c("control-short", "a frame that ends early", sealed[:20], fcp.CodeMalformed, "0")
	c("control-version", "another version", flip(sealed, 4), fcp.CodeVersion, "0")
	m.datagrams(frame, session)
}

func (m *maker) datagrams(frame []byte, session wire.SessionID) {
	for _, suite := range []wire.Suite{wire.SuiteHMAC, wire.SuiteBLAKE3} {
		key := wire.Key(catalog.Bytes(84, 32))
		mac, err := wire.NewMAC(suite, key, session, wire.ToInitiator)
		if err != nil {
			panic(err)
		}
		sum := mac.Sum(1, frame)
		b := append(slices.Clone(session[:]), 1, 0, 0, 0, 0, 0, 0, 0)
		b = append(append(b, sum[:]...), frame...)
		add := func(name, what string, b []byte, code fcp.Code, direction string) {
			x := m.add("frames", fmt.Sprintf("datagram-%d%s", suite, name), what, "datagram.check", b, code, "suite", fmt.Sprint(suite), "key", hexed(key[:]),
				"session", hexed(session[:]), "direction", direction)
			if len(b) > 40 {
				x.parts = []part{{16, "session id"}, {8, "number"}, {16, "MAC"}}
			}
		}
		add("", "a frame in its envelope", b, 0, "1")
		add("-direction", "sent back to its sender", b, fcp.CodeChecksum, "0")
		add("-changed", "a changed frame", flip(b, 60), fcp.CodeChecksum, "1")
		add("-short", "an envelope that ends early", b[:30], fcp.CodeMalformed, "1")
	}
	m.add("frames", "replay", "a replay window of four", "replay.accept", nil, 0, "window", "4", "numbers", "1,1,5,2,3,5,1,9,6,0")
}

func (m *maker) session() {
	node, second := m.c.Node.Public().Signing, m.c.Second.Public().Signing
	hello, ack := m.c.Find("hello").Bytes, m.c.Find("ack").Bytes
	to, now := m.c.Node.Writer().String(), fmt.Sprint(catalog.Now.Unix())
	h := func(name, what string, b []byte, code fcp.Code, to, now string) {
		m.cbor("session", name, what, "hello.verify", b, code, "to", to, "key", hexed(second[:]), "now", now)
	}
	h("hello", "a hello and what is signed of it", hello, 0, to, now)
	h("hello-cookie", "a hello with its cookie", m.c.Find("hello-cookie").Bytes, 0, to, now)
	h("hello-other", "a hello for another node", hello, fcp.CodeUnauthorized, "somebody", now)
	h("hello-old", "a hello from three minutes ago", hello, fcp.CodeFuture, to, fmt.Sprint(catalog.Now.Unix()+180))
	h("hello-signature", "a changed signature", flip(hello, find(hello, "signature")+30), fcp.CodeSignature, to, now)
	h("hello-cut", "a hello that ends early", hello[:40], fcp.CodeMalformed, to, now)
	a := func(name, what string, b []byte, code fcp.Code, hello []byte) {
		m.cbor("session", name, what, "ack.verify", b, code, "hello", hexed(hello), "key", hexed(node[:]), "now", now)
	}
	a("ack", "an ack and what is signed of it", ack, 0, hello)
	a("ack-other-hello", "an ack to another hello", ack, fcp.CodeSignature, m.otherHello())
	a("ack-suite", "a suite that was not offered", m.otherSuite(), fcp.CodeVersion, hello)
	cookie := catalog.CookieKey()
	m.cbor("session", "cookie", "the cookie for a hello", "hello.cookie", hello, 0, "key", hexed(cookie[:]))
	m.add("session", "suite", "the initiator's order counts", "suite.pick", nil, 0, "initiator", "2,1", "responder", "1,2")
	m.add("session", "suite-none", "no suite in common", "suite.pick", nil, fcp.CodeVersion, "initiator", "3", "responder", "1,2")
	own, peer := catalog.Bytes(85, 32), catalog.Bytes(86, 32)
	k, err := ecdh.X25519().NewPrivateKey(peer)
	if err != nil {
		panic(err)
	}
	keys := func(name, what string, code fcp.Code, peer []byte, exporter string) {
		m.add("session", name, what, "session.keys", own, code, "peer", hexed(peer), "hello", hexed(hello), "ack", hexed(ack), "exporter", exporter)
	}
	keys("keys", "session keys bound to the connection", 0, k.PublicKey().Bytes(), hexed(catalog.Bytes(87, 32)))
	keys("keys-unbound", "session keys of the reference, bound to nothing", 0, k.PublicKey().Bytes(), "")
	keys("keys-small-order", "a key of small order", fcp.CodeMalformed, make([]byte, 32), "")
}

// otherHello is a hello with another nonce.
func (m *maker) otherHello() []byte {
	h := m.c.Hello()
	h.Nonce[0] ^= 1
	h.Signature = make([]byte, 64)
	b, err := h.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

// otherSuite is an ack, well signed, with a suite that the hello does not offer.
func (m *maker) otherSuite() []byte {
	a, err := wire.DecodeAck(m.c.Find("ack").Bytes)
	if err != nil {
		panic(err)
	}
	h, err := wire.DecodeHello(m.c.Find("hello").Bytes)
	if err != nil {
		panic(err)
	}
	a.Suite = 9
	message, err := a.Transcript(&h)
	if err != nil {
		panic(err)
	}
	a.Signature = m.c.Node.Sign(message)
	b, err := a.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

func (m *maker) symbols() {
	text := catalog.Bytes(91, 12*fcp.SymbolSize-300)
	var repair []byte
	for esi := uint32(0); esi < 40; esi++ {
		if esi >= 3 && esi < 16 || esi%7 == 0 && esi > 0 && esi < 36 { // neither all source symbols nor consecutive
			r := respond.Answer(respond.Request{Op: "symbol.encode", Input: hexed(text), Params: map[string]string{"esi": fmt.Sprint(esi)}})
			repair = append(binary.BigEndian.AppendUint32(repair, esi), unhex(r.Output)...)
		}
		if esi == 0 || esi == 11 || esi == 12 || esi == 13 || esi == 39 {
			m.add("symbols", fmt.Sprintf("encode-%02d", esi), "a symbol of twelve source symbols", "symbol.encode", text, 0, "esi", fmt.Sprint(esi))
		}
	}
	length := fmt.Sprint(len(text))
	m.add("symbols", "decode", "more than K symbols, source and repair, rebuild", "symbol.decode", repair, 0, "length", length)
	m.add("symbols", "decode-few", "fewer than K symbols do not", "symbol.decode", repair[:11*(4+fcp.SymbolSize)], fcp.CodeNotEnough, "length", length)
	twice := slices.Concat(repair[:4+fcp.SymbolSize], repair[:11*(4+fcp.SymbolSize)])
	m.add("symbols", "decode-twice", "one symbol twice counts once", "symbol.decode", twice, fcp.CodeNotEnough, "length", length)
	m.add("symbols", "encode-empty", "nothing to encode", "symbol.encode", nil, fcp.CodeTooLarge, "esi", "0")
}
