package conformance

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"testing"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/authority"
	"fcp/conformance/internal/catalog"
	"fcp/conformance/internal/respond"
	"fcp/node/wire"
)

// The five tests between implementations that the founding text names (section 9.4).
// The other implementation is a process that is asked over the runner's protocol;
// FCP_CONFORMANCE_PEER names a program to take its place. Each step that the two
// must agree on is computed on both sides.

// peer is the other implementation.
type peer struct {
	t   testing.TB
	in  io.Writer
	out *bufio.Reader
	id  uint64
}

func newPeer(t testing.TB) *peer {
	t.Helper()
	command := []string{os.Getenv("FCP_CONFORMANCE_PEER")}
	if command[0] == "" {
		command[0] = program(t, "right")
	}
	cmd := exec.CommandContext(t.Context(), command[0])
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("the other implementation: %v", err)
		}
	})
	return &peer{t: t, in: in, out: bufio.NewReader(out)}
}

// ask sends one request to the other implementation.
func (p *peer) ask(r respond.Request) (a respond.Response) {
	p.t.Helper()
	p.id++
	r.ID = p.id
	b, err := json.Marshal(r)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		p.t.Fatal(err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	if err := json.Unmarshal(line, &a); err != nil || a.ID != r.ID {
		p.t.Fatalf("%s: %v", line, err)
	}
	return a
}

// gives wants the operation to be taken, refuses wants it to be refused with a code.
func (p *peer) gives(op string, in []byte, params ...string) []byte {
	p.t.Helper()
	out, code := answerOf(p.t, p.ask, op, in, params...)
	if code != "" {
		p.t.Errorf("%s: refused with %s", op, code)
	}
	return out
}

func (p *peer) refuses(code fcp.Code, op string, in []byte, params ...string) {
	p.t.Helper()
	if _, got := answerOf(p.t, p.ask, op, in, params...); got != code.String() {
		p.t.Errorf("%s: %q instead of %s", op, got, code)
	}
}

// hexed returns the bytes of a slice or an array in hex, whatever its String says.
func hexed(v any) string {
	var b []byte
	for x := reflect.ValueOf(v); len(b) < x.Len(); {
		b = append(b, byte(x.Index(len(b)).Uint()))
	}
	return hex.EncodeToString(b)
}

// handshaken is a session after its handshake, as this side knows it.
type handshaken struct {
	hello, ack   []byte
	exporter     []byte
	scalar, peer *ecdh.PrivateKey // of the initiator and of the responder
	session      wire.SessionID
	suite        wire.Suite
	keys         wire.Keys
}

// handshake makes both messages with the product and has the other side verify each.
func handshake(t testing.TB, c *catalog.Catalog, p *peer) *handshaken {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := &handshaken{exporter: catalog.Bytes(1, 32), session: catalog.Session()}
	var err error
	s.scalar, err = ecdh.X25519().NewPrivateKey(catalog.Bytes(2, 32))
	must(err)
	s.peer, err = ecdh.X25519().NewPrivateKey(catalog.Bytes(3, 32))
	must(err)
	now := fmt.Sprint(catalog.Now.Unix())

	h := c.Hello()
	h.Ephemeral = [wire.KeySize]byte(s.scalar.PublicKey().Bytes())
	message, err := h.Transcript()
	must(err)
	h.Signature = c.Second.Sign(message)
	s.hello, err = h.Encode()
	must(err)
	second, node := c.Second.Public().Signing, c.Node.Public().Signing
	if signed := p.gives("hello.verify", s.hello, "to", h.To, "key", hexed(second), "now", now); !bytes.Equal(signed, message) {
		t.Error("the two sign different bytes of a hello")
	}

	var offered string
	for i, suite := range h.Suites {
		offered += fmt.Sprint([]string{"", ","}[min(i, 1)], suite)
	}
	picked := p.gives("suite.pick", nil, "initiator", offered, "responder", "1,2")
	s.suite, err = wire.PickSuite(h.Suites, []wire.Suite{wire.SuiteHMAC, wire.SuiteBLAKE3})
	must(err)
	if !bytes.Equal(picked, []byte{byte(s.suite)}) {
		t.Errorf("the two agree on suites %d and %d", picked, s.suite)
	}
	a := wire.Ack{From: h.To, To: h.From, Ephemeral: [wire.KeySize]byte(s.peer.PublicKey().Bytes()), Nonce: [wire.NonceSize]byte(catalog.Bytes(4, 16)),
		Session: s.session, Suite: s.suite, Timestamp: h.Timestamp}
	message, err = a.Transcript(&h)
	must(err)
	a.Signature = c.Node.Sign(message)
	s.ack, err = a.Encode()
	must(err)
	if signed := p.gives("ack.verify", s.ack, "hello", hexed(s.hello), "key", hexed(node), "now", now); !bytes.Equal(signed, message) {
		t.Error("the two sign different bytes of an ack")
	}

	secret, err := wire.SharedSecret(s.scalar, a.Ephemeral)
	must(err)
	s.keys, err = wire.DeriveKeys(secret, &wire.KeyInput{Initiator: h.From, Responder: h.To, HelloNonce: h.Nonce, AckNonce: a.Nonce, Session: a.Session,
		Binding: wire.Bind(s.exporter, s.hello, s.ack)})
	must(err)
	return s
}

// theirKeys are the keys that the other side, as the responder, derives.
func (s *handshaken) theirKeys(p *peer) []byte {
	return p.gives("session.keys", s.peer.Bytes(), "peer", hexed(s.scalar.PublicKey().Bytes()), "hello", hexed(s.hello),
		"ack", hexed(s.ack), "exporter", hexed(s.exporter))
}

// TestInterop1HandshakeNegotiation: both sides verify each other, agree on a suite
// and derive the same keys; nobody in between can change what was agreed.
func TestInterop1HandshakeNegotiation(t *testing.T) {
	c, p := newCatalog(t), newPeer(t)
	s := handshake(t, c, p)
	ours := slices.Concat(s.keys.MAC[wire.ToResponder][:], s.keys.MAC[wire.ToInitiator][:], s.keys.Context[:])
	if theirs := s.theirKeys(p); !bytes.Equal(theirs, ours) {
		t.Error("the two derive different keys")
	}
	// A suite taken out of the hello on its way breaks its signature; a hello from
	// another time, for another node or with no suite in common is refused.
	h, err := wire.DecodeHello(s.hello)
	if err != nil {
		t.Fatal(err)
	}
	to, now := h.To, fmt.Sprint(catalog.Now.Unix())
	key := hexed(c.Second.Public().Signing)
	h.Suites = h.Suites[1:]
	weaker, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	p.refuses(fcp.CodeSignature, "hello.verify", weaker, "to", to, "key", key, "now", now)
	p.refuses(fcp.CodeFuture, "hello.verify", s.hello, "to", to, "key", key, "now", fmt.Sprint(catalog.Now.Unix()-600))
	p.refuses(fcp.CodeUnauthorized, "hello.verify", s.hello, "to", "another", "key", key, "now", now)
	p.refuses(fcp.CodeVersion, "suite.pick", nil, "initiator", "7", "responder", "1,2")
	// Keys belong to one connection.
	s.exporter = catalog.Bytes(9, 32)
	if bytes.Equal(s.theirKeys(p), ours) {
		t.Error("another connection has the same keys")
	}
	cookie := p.gives("hello.cookie", s.hello, "key", hexed(catalog.CookieKey()))
	full, err := wire.DecodeHello(s.hello)
	if err != nil {
		t.Fatal(err)
	}
	full.Cookie = cookie
	if !wire.CookieFits(catalog.CookieKey(), &full) {
		t.Error("the two make different cookies")
	}
}

// TestInterop2SymbolExchange: symbols sealed by one side arrive at the other in
// frames, in envelopes; changed, repeated or sent back they do not.
func TestInterop2SymbolExchange(t *testing.T) {
	c, p := newCatalog(t), newPeer(t)
	s := handshake(t, c, p)
	text := catalog.Ciphertext()
	key, err := s.keys.SymbolKey(wire.ToInitiator)
	if err != nil {
		t.Fatal(err)
	}
	cipher, err := wire.NewSymbolCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	h := wire.Header{Flags: wire.DefaultFlags, Object: blake3.Sum256(text), SymbolSize: fcp.SymbolSize, ZoneHash: fcp.ZoneWork.Hash(), Seq: 1}
	frame := cipher.AppendSealed(nil, wire.LayoutNative, &h, 3, []uint32{1}, func(int) []byte { return text[fcp.SymbolSize : 2*fcp.SymbolSize] })
	mac, err := wire.NewMAC(s.suite, s.keys.MAC[wire.ToInitiator], s.session, wire.ToInitiator)
	if err != nil {
		t.Fatal(err)
	}
	sum := mac.Sum(1, frame)
	datagram := slices.Concat(s.session[:], binary.LittleEndian.AppendUint64(nil, 1), sum[:], frame)
	envelope := []string{"suite", fmt.Sprint(s.suite), "key", hexed(s.keys.MAC[wire.ToInitiator]), "session", hexed(s.session), "direction"}
	got := p.gives("datagram.check", datagram, append(envelope, "1")...)
	symbols := p.gives("symbols.open", got, "key", hexed(key))
	if !bytes.Equal(symbols, text[fcp.SymbolSize:2*fcp.SymbolSize]) {
		t.Error("another symbol arrived")
	}
	p.refuses(fcp.CodeChecksum, "datagram.check", datagram, append(envelope, "0")...)
	datagram[len(datagram)-20] ^= 1
	p.refuses(fcp.CodeChecksum, "datagram.check", datagram, append(envelope, "1")...)
	p.refuses(fcp.CodeChecksum, "symbols.open", frame, "key", hexed(catalog.Bytes(5, 32)))
	if taken := p.gives("replay.accept", nil, "window", "8192", "numbers", "1,2,1,3"); !bytes.Equal(taken, []byte{1, 1, 0, 1}) {
		t.Errorf("replays: %v", taken)
	}
	// What asks for them travels in control frames under the context key.
	control, err := wire.NewControlCipher(s.session, s.keys.Context)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := control.Seal(nil, wire.ToResponder, 1, wire.ControlEncrypted, []byte("a request"))
	if err != nil {
		t.Fatal(err)
	}
	opened := p.gives("control.open", sealed, "session", hexed(s.session), "key", hexed(s.keys.Context), "direction", "0")
	if string(opened) != "a request" {
		t.Errorf("a control message arrives as %q", opened)
	}
}

// TestInterop3ObjectReconstruction: each side rebuilds what the other coded, from
// symbols of both, checks it against the writer's card, and opens it.
func TestInterop3ObjectReconstruction(t *testing.T) {
	c, p := newCatalog(t), newPeer(t)
	object, salt := fcp.ObjectID(catalog.Bytes(6, 32)), authority.Salt(catalog.Bytes(7, authority.SaltSize))
	plain := catalog.Bytes(8, 9*fcp.SymbolSize)
	text := c.Keys.SealBody(nil, object, salt, plain)
	length := fmt.Sprint(len(text))
	var mixed []byte
	for i := range uint32(14) {
		id := 2 + 3*i
		theirs := p.gives("symbol.encode", text, "esi", fmt.Sprint(id))
		ours := encoded(t, text, id)
		if !bytes.Equal(ours[4:], theirs) {
			t.Errorf("the two make different symbols %d", id)
		}
		mixed = append(mixed, ours...)
	}
	rebuilt := p.gives("symbol.decode", mixed, "length", length)
	again, code := answer(t, "symbol.decode", mixed, "length", length)
	if code != "" || !bytes.Equal(rebuilt, text) || !bytes.Equal(again, text) {
		t.Fatalf("rebuilt something else: %s", code)
	}
	ours := fcp.CommitmentRoot(fcp.SourceCommitments(text, fcp.SymbolSize))
	if theirs := p.gives("segment.source", rebuilt); !bytes.Equal(theirs, ours[:]) {
		t.Error("the two commit to different symbols")
	}
	secret, owner := hexed(c.Second.Secret()), hexed(c.Owner.Public())
	opened := p.gives("body.open", rebuilt, "manifest", hexed(c.Manifest), "object", object.String(), "salt", hexed(salt),
		"owner", owner, "node", secret, "entropy", "")
	if !bytes.Equal(opened, plain) {
		t.Error("the other side reads something else")
	}
	p.refuses(fcp.CodeNotEnough, "symbol.decode", mixed[:4*(4+fcp.SymbolSize)], "length", length)
}

// TestInterop4CapabilityVerification: a token minted and narrowed by one side is
// verified by the other with its proof of possession, and nothing else is.
func TestInterop4CapabilityVerification(t *testing.T) {
	c, p := newCatalog(t), newPeer(t)
	issuer := hexed(c.Node.Public().Issuance)
	leaf := c.Chain.Leaf()
	if got := p.gives("token.verify", c.Chain.Bytes(), "issuer", issuer); !bytes.Equal(got, leaf[:]) {
		t.Error("the two name the token differently")
	}
	ref := c.Grant.Ref()
	if got := p.gives("signed.verify", c.Find("grant").Bytes, "key", hexed(c.Owner.Public()), "keys", ""); !bytes.Equal(got, ref[:]) {
		t.Error("the two name the grant differently")
	}
	info, err := authority.InspectToken(c.Token)
	if err != nil || !slices.Contains(info.Grants, ref) {
		t.Fatalf("the token does not name the grant (%v)", err)
	}
	one, err := authority.NewChain(c.Token)
	if err != nil {
		t.Fatal(err)
	}
	challenge := authority.Challenge{Kind: authority.ChallengeNonce, Value: [32]byte(catalog.Bytes(10, 32))}
	request := fcp.Hash(catalog.Bytes(11, 32))
	proof := func(r fcp.Hash) []string {
		return []string{"chain", hexed(one.Bytes()), "kind", "1", "challenge", hexed(challenge.Value), "request", r.String()}
	}
	sig := c.Holder.Prove(challenge, one.Leaf(), request)
	p.gives("proof.verify", sig, proof(request)...)
	p.refuses(fcp.CodeSignature, "proof.verify", sig, proof(fcp.Hash{1})...)
	p.refuses(fcp.CodeSignature, "token.verify", c.Chain.Bytes(), "issuer", hexed(c.Second.Public().Issuance))
	forged := slices.Clone(one.Bytes())
	forged[bytes.Index(forged, []byte("mail.get"))] ^= 1
	p.refuses(fcp.CodeSignature, "token.verify", forged, "issuer", issuer)
	// Revoked, it no longer stands.
	b, err := authority.Revoke(catalog.Now, c.Owner, authority.RevocationSpec{Zone: fcp.ZoneWork, Scope: authority.RevokeToken, Targets: []fcp.Hash{info.ID.Ref()}})
	if err != nil {
		t.Fatal(err)
	}
	target := info.ID.Ref()
	state := p.gives("revocation.check", target[:], "owner", hexed(c.Owner.Public()), "revocations", hexed(b), "scope", "token",
		"at", fmt.Sprint(catalog.Now.Unix()+1))
	revocation := authority.RefOf(b)
	if !bytes.Equal(state, append([]byte{1}, revocation[:]...)) {
		t.Errorf("the revoked token: %x", state)
	}
}

// TestInterop5CrossZoneBridging: both sides agree on what data needs to cross zones,
// the product refuses a bridge that hides where its data came from, and each zone has
// ids and keys of its own.
func TestInterop5CrossZoneBridging(t *testing.T) {
	c, p := newCatalog(t), newPeer(t)
	levels := func(l fcp.Levels) string { return fmt.Sprintf("%d,%d", l.Integrity, l.Confidentiality) }
	for _, from := range fcp.StandardZones() {
		for _, to := range fcp.StandardZones() {
			f := authority.FlowTo(from.Levels, to.Levels)
			want := byte(0)
			if f.Elevation {
				want |= 1
			}
			if f.Declassification {
				want |= 2
			}
			if got := p.gives("flow.check", nil, "from", levels(from.Levels), "to", levels(to.Levels)); !bytes.Equal(got, []byte{want}) {
				t.Errorf("from %s to %s: %v instead of %d", from.ID, to.ID, got, want)
			}
		}
	}
	work, _ := fcp.ZoneWork.StandardLevels()
	public, _ := fcp.ZonePublic.StandardLevels()
	h := fcp.PlainHeader(fcp.SchemaBlob, fcp.ZoneWork, uint64(catalog.Now.Unix()))
	h.ForeignRefs = []fcp.ObjectID{{1}}
	own := authority.Label{Origin: fcp.ZoneWork, Levels: work}
	foreign := []authority.ForeignRef{{ID: fcp.ObjectID{1}, Label: authority.Label{Origin: fcp.ZonePublic, Levels: public, Taint: authority.PublicInput}}}
	label, flow, err := authority.Bridge(&h, work, own, foreign)
	if err != nil || !flow.Elevation || label.Taint&authority.PublicInput == 0 || label.Taint&authority.CrossZoneUnapproved == 0 {
		t.Errorf("public data in a zone of work: %+v, %v, %v", label, flow, err)
	}
	if _, _, err := authority.Bridge(&h, work, own, nil); fcp.CodeOf(err) != fcp.CodeInvalidArgument {
		t.Errorf("a bridge that does not say where its data is from: %v", err)
	}
	// An approval that one side signs counts on the other, and only for its zones.
	approval := c.Find("approval-declassification").Bytes
	p.gives("signed.verify", approval, "key", hexed(c.Owner.Public()), "keys", "")
	p.refuses(fcp.CodeWrongKey, "signed.verify", approval, "key", hexed(c.Second.Public().Signing), "keys", "")
	// One content has another id in each zone, and a body of one zone opens in no other.
	ids := map[string]bool{}
	for _, z := range fcp.StandardZones() {
		ids[string(p.gives("content.id", []byte("content"), "key", hexed(catalog.Bytes(12, 32)), "zone", string(z.ID), "schema", "fcp.core:Blob@1.0.0"))] = true
	}
	if len(ids) != len(fcp.StandardZones()) {
		t.Error("two zones give one id")
	}
	other, err := authority.NewZoneKeys(catalog.Random(13), fcp.ZonePublic)
	if err != nil {
		t.Fatal(err)
	}
	sealed := other.SealBody(nil, fcp.ObjectID{1}, authority.Salt{2}, []byte("of another zone"))
	p.refuses(fcp.CodeCorrupt, "body.open", sealed, "manifest", hexed(c.Manifest), "object", fcp.ObjectID{1}.String(), "salt", hexed(authority.Salt{2}),
		"owner", hexed(c.Owner.Public()), "node", hexed(c.Second.Secret()), "entropy", "")
}
