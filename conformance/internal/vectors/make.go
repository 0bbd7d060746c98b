package vectors

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"fcp"
	"fcp/authority"
	"fcp/conformance/internal/catalog"
	"fcp/conformance/internal/respond"
)

var knownSchemas = append(fcp.BuiltinSchemas(), authority.SchemaResource, authority.SchemaSanitizerReceipt, authority.SchemaSecretAccess)

// maker collects cases.
type maker struct {
	c   *catalog.Catalog
	out []Case
}

// All makes every vector, sorted by name. It fails when this product refuses a good
// one, or refuses a bad one with another code than is written here.
func All() ([]Case, error) {
	c, err := catalog.New()
	if err != nil {
		return nil, err
	}
	m := &maker{c: c}
	for _, step := range []func(){m.encoding, m.identity, m.objects, m.signed, m.tokens, m.sealed, m.frames, m.session, m.symbols, m.decisions, m.shared} {
		step()
	}
	slices.SortFunc(m.out, func(a, b Case) int { return strings.Compare(a.Class+"/"+a.Name, b.Class+"/"+b.Name) })
	for i := range m.out {
		x := &m.out[i]
		got := respond.Answer(x.Request(0))
		var wrong, bad error
		switch {
		case got.Unsupported:
			wrong = fmt.Errorf("%s/%s: no operation %s", x.Class, x.Name, x.Op)
		case x.Error != 0 && got.Error != x.Error.String():
			wrong = fmt.Errorf("%s/%s: %q instead of %s", x.Class, x.Name, got.Error, x.Error)
		case x.Error == 0 && !got.OK:
			wrong = fmt.Errorf("%s/%s: refused with %s", x.Class, x.Name, got.Error)
		}
		x.Output, bad = hex.DecodeString(got.Output)
		err = errors.Join(err, wrong, bad)
	}
	return m.out, err
}

// add keeps a case; params are names and values in turn.
func (m *maker) add(class, name, what, op string, in []byte, code fcp.Code, params ...string) *Case {
	c := Case{Class: class, Name: name, What: what, Op: op, Input: in, Error: code, Params: map[string]string{}}
	for i := 0; i+1 < len(params); i += 2 {
		c.Params[params[i]] = params[i+1]
	}
	m.out = append(m.out, c)
	return &m.out[len(m.out)-1]
}

func (m *maker) cbor(class, name, what, op string, in []byte, code fcp.Code, params ...string) *Case {
	c := m.add(class, name, what, op, in, code, params...)
	c.CBOR = true
	return c
}

func hexed(b []byte) string { return hex.EncodeToString(b) }

// flip returns b with a bit changed at i; negative from the end.
func flip(b []byte, i int) []byte {
	b = slices.Clone(b)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 1
	return b
}

// find returns where a text that is there begins.
func find(b []byte, text string) int { return max(bytes.Index(b, []byte(text)), 0) }

func (m *maker) encoding() {
	good := func(name, what, item string) { m.cbor("cbor", name, what, "cbor.check", unhex(item), 0) }
	bad := func(name, what, item string, code fcp.Code) {
		m.cbor("cbor", name, what, "cbor.check", unhex(item), code)
	}
	good("uint-0", "the smallest number", "00")
	good("uint-23", "the last number that fits the head", "17")
	good("uint-24", "the first number with a byte of its own", "1818")
	good("uint-256", "two bytes", "190100")
	good("uint-65536", "four bytes", "1a00010000")
	good("uint-2-64-1", "the largest number", "1bffffffffffffffff")
	good("nint-24", "a negative number", "37")
	good("bytes", "a byte string", "43010203")
	good("text", "a text of two-byte characters", "64c3bcc3a4")
	good("array-nested", "arrays inside each other", "8281018102")
	good("map-order", "a map: shorter keys first, then bytewise", "a3613101613202623130 03")
	good("map-order-types", "an unsigned key of three bytes comes behind a text key of two: length first", "a2 6161 01 190100 02")
	good("bool-null", "simple values", "83f4f5f6")
	bad("long-head", "1 in two bytes", "1801", fcp.CodeNonCanonical)
	bad("long-length", "the length 1 in two bytes", "580161", fcp.CodeNonCanonical)
	bad("map-unsorted", "keys not in order", "a2613201613101", fcp.CodeNonCanonical)
	bad("map-bytewise", "keys in bytewise order where length decides", "a2 190100 02 6161 01", fcp.CodeNonCanonical)
	bad("map-duplicate", "one key twice", "a2613101613102", fcp.CodeMalformed)
	bad("indefinite", "an array of indefinite length", "9f01ff", fcp.CodeNonCanonical)
	bad("trailing", "a byte behind the item", "0000", fcp.CodeMalformed)
	bad("truncated", "a string that ends early", "4301", fcp.CodeMalformed)
	bad("utf-8", "a text that is no UTF-8", "61ff", fcp.CodeMalformed)
	bad("tag", "a tagged item", "c000", fcp.CodeMalformed)
	bad("undefined", "undefined", "f7", fcp.CodeMalformed)
	bad("nan", "not a number", "f97e00", fcp.CodeMalformed)
	bad("deep", "seventeen arrays inside each other", strings.Repeat("81", 17)+"00", fcp.CodeTooLarge)
	bad("huge-count", "an array that claims 2^63 elements", "9b8000000000000000", fcp.CodeMalformed)

	blob := m.c.Find("blob").Bytes
	m.cbor("cbor", "payload", "a payload: schema hash, then the body", "payload.check", blob, 0, "schema", "fcp.core:Blob@1.0.0")
	m.cbor("cbor", "payload-schema", "the payload of another schema", "payload.check", blob, fcp.CodeSchema, "schema", "fcp.core:Role@1.0.0")
	m.cbor("cbor", "payload-short", "a payload that ends in the schema hash", "payload.check", blob[:31], fcp.CodeSchema, "schema", "fcp.core:Blob@1.0.0")
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err) // a constant of this file
	}
	return b
}

func (m *maker) identity() {
	m.add("ids", "schema", "the hash of a schema id", "schema.hash", nil, 0, "schema", "fcp.core:Blob@1.0.0")
	m.add("ids", "schema-malformed", "a schema id without a version", "schema.hash", nil, fcp.CodeInvalidArgument, "schema", "fcp.core:Blob")
	m.add("ids", "zone", "the hash of a zone id", "zone.hash", []byte("z:work"), 0)
	for name, text := range map[string]string{"empty": "", "prefix": "work", "character": "z:Work", "long": "z:" + strings.Repeat("a", 63)} {
		m.add("ids", "zone-"+name, "a text that is no zone id", "zone.hash", []byte(text), fcp.CodeZone)
	}
	m.add("ids", "identifier", "a canonical identifier", "identifier.check", []byte("fcp.mail:operational:1.0.0"), 0)
	for name, text := range map[string]string{"empty": "", "upper": "Mail", "start": ".mail", "character": "mail box", "long": strings.Repeat("a", 129)} {
		m.add("ids", "identifier-"+name, "a text that is no identifier", "identifier.check", []byte(text), fcp.CodeInvalidArgument)
	}
	signing := m.c.Node.Public().Signing
	m.add("ids", "kid", "the id of a key", "kid", signing[:], 0)
	m.add("ids", "writer", "the writer id of a signing key", "writer.id", signing[:], 0)
	f := m.c.Feed()
	m.add("ids", "feed", "the id of a feed", "feed.id", nil, 0, "zone", string(f.Zone), "writer", f.Writer.String(), "incarnation", "7", "plane", "1")
	m.add("ids", "feed-zone", "a feed of no zone", "feed.id", nil, fcp.CodeZone, "zone", "work", "writer", f.Writer.String(), "incarnation", "7", "plane", "1")
	key := hexed(catalog.Bytes(70, 32))
	m.add("ids", "content-zone", "content of no zone", "content.id", []byte("hello"), fcp.CodeZone, "key", key, "zone", "", "schema", "fcp.core:RawChunk@1.0.0")
	m.add("ids", "content", "a keyed id", "content.id", []byte("hello"), 0, "key", key, "zone", "z:work", "schema", "fcp.core:RawChunk@1.0.0")
	m.add("ids", "content-other-zone", "the same content in another zone has another id", "content.id", []byte("hello"), 0, "key", key, "zone", "z:private", "schema", "fcp.core:RawChunk@1.0.0")
	m.add("ids", "unscoped", "an id without a key", "content.unscoped", []byte("hello"), 0)
}

func (m *maker) objects() {
	key := catalog.Bytes(70, 32)
	now := uint64(catalog.Now.Unix())
	object := func(name, what string, schema fcp.Schema, body any) []byte {
		h := fcp.PlainHeader(schema, fcp.ZoneWork, now)
		payload, err := fcp.MarshalPayload(schema, body)
		if err != nil {
			panic(err) // of constants
		}
		b, err := fcp.EncodeObject(&h, payload)
		if err != nil {
			panic(err)
		}
		id := fcp.StoredObjectID((*[32]byte)(key), fcp.ZoneWork, schema.Hash(), b)
		c := m.add("objects", name, what, "object.id", b, 0, "key", hexed(key))
		c.ObjectID = &id
		head := len(b) - len(payload)
		c.parts = []part{{head, "header, canonical"}, {fcp.HashSize, "hash of schema " + schema.String()}}
		return b
	}
	blob := object("blob", "an object in its stored form and its id", fcp.SchemaBlob, []byte("hello, mesh"))
	object("blob-empty", "an empty body", fcp.SchemaBlob, []byte{})
	object("manifest", "the manifest of a chunked object", fcp.SchemaChunkedManifest, map[string]any{"total_len": uint64(1<<20 + 1), "chunk_size": uint64(1 << 20),
		"chunks": []fcp.ObjectID{{1}, {2}}})
	credential := m.c.Find("credential-1").Bytes
	h := fcp.PlainHeader(fcp.SchemaCredential, fcp.ZoneWork, now)
	if b, err := fcp.EncodeObject(&h, credential); err == nil {
		id := fcp.StoredObjectID((*[32]byte)(key), fcp.ZoneWork, fcp.SchemaCredential.Hash(), b)
		m.add("objects", "credential", "a credential as a stored object", "object.id", b, 0, "key", hexed(key)).ObjectID = &id
	}
	m.add("objects", "check", "what the header says", "object.check", blob, 0)
	m.add("objects", "schema", "a payload of another schema than the header says", "object.id", flip(blob, len(blob)-20), fcp.CodeSchema, "key", hexed(key))
	m.add("objects", "header-cut", "a header that ends early", "object.check", blob[:40], fcp.CodeMalformed)
	m.cbor("objects", "event", "an event and its hash", "event.check", m.c.Find("event").Bytes, 0)
	m.cbor("objects", "event-tombstone", "the event that removes a name", "event.check", m.c.Find("event-tombstone").Bytes, 0)
	m.cbor("objects", "event-trailing", "a byte behind the event", "event.check", append(slices.Clone(m.c.Find("event").Bytes), 0), fcp.CodeMalformed)
	m.cbor("objects", "event-cut", "an event that ends early", "event.check", m.c.Find("event").Bytes[:60], fcp.CodeMalformed)
}

// byNode are signed by the first node; everything else by the owner, but what asks
// for a lease.
var byNode = map[string]bool{"decision": true, "decision-small": true, "intent": true, "intent-small": true, "receipt": true, "receipt-small": true,
	"audit-head": true, "audit-head-cosigned": true, "fork-proof": true, "sanitizer": true}

func (m *maker) signed() {
	owner, node, second := m.c.Owner.Public(), m.c.Node.Public().Signing, m.c.Second.Public().Signing
	skip := map[string]bool{"lease": true, "lease-proposed": true, "lease-release": true, "lease-promise": true, "lease-fence": true, "state-root": true,
		"state-root-crdt": true, "state": true, "state-first": true, "state-delta": true, "state-snapshot": true,
		"zone-checkpoint": true, "zone-checkpoint-owner": true, "blob": true, "card": true, "resource": true,
		"audit-event": true, "audit-event-small": true, "deletion-ack": true, "deletion-ack-forgotten": true, "credential-1": true, "credential-2": true, "credential-3": true}
	for i := range m.c.Objects {
		o := &m.c.Objects[i]
		if o.Schema == "" || skip[o.Name] {
			continue
		}
		key := owner[:]
		if byNode[o.Name] {
			key = node[:]
		}
		if o.Name == "lease-request" {
			key = second[:]
		}
		params := []string{"key", hexed(key), "keys", hexed(second[:])}
		m.cbor("signed", o.Name, "a good object; its ref", "signed.verify", o.Bytes, 0, params...)
		m.cbor("signed", o.Name+"-schema", "the same bytes as another schema", "signed.verify", flip(o.Bytes, 0), fcp.CodeSchema, params...)
	}
	sign := func(name, what string, b []byte, code fcp.Code, key []byte) {
		m.cbor("signed", name, what, "signed.verify", b, code, "key", hexed(key), "keys", "")
	}
	zone, grant, receipt := m.c.Find("zone").Bytes, m.c.Find("grant").Bytes, m.c.Find("receipt").Bytes
	sign("zone-changed", "a changed name under the old signature", flip(zone, find(zone, "Work")), fcp.CodeSignature, owner[:])
	sign("zone-stranger", "the key of somebody else", zone, fcp.CodeWrongKey, node[:])
	sign("zone-cut", "an object that ends early", zone[:len(zone)-1], fcp.CodeMalformed, owner[:])
	sign("zone-trailing", "a byte behind the object", append(slices.Clone(zone), 0), fcp.CodeMalformed, owner[:])
	sign("grant-changed", "a changed grant", flip(grant, find(grant, "mail.get")), fcp.CodeSignature, owner[:])
	sign("receipt-changed", "a changed receipt", flip(receipt, find(receipt, "once")), fcp.CodeSignature, node[:])
	sign("head-unknown-witness", "a witness whose key nobody knows", m.c.Find("audit-head-cosigned").Bytes, fcp.CodeDenied, node[:])
	card := m.c.Find("card").Bytes
	m.cbor("cards", "card", "a segment's card and its segment id", "card.verify", card, 0)
	m.cbor("cards", "card-changed", "another source root under the signature", "card.verify", flip(card, find(card, "source")+10), fcp.CodeSignature)
	m.cbor("cards", "card-schema", "another schema", "card.verify", flip(card, 0), fcp.CodeSchema)
	m.add("cards", "source", "the root that the card names", "segment.source", catalog.Ciphertext(), 0)
	m.add("cards", "commitment", "the commitment to a source symbol", "symbol.commit", catalog.Ciphertext()[:fcp.SymbolSize], 0, "esi", "0")
	m.add("cards", "commitment-last", "the last symbol is hashed without its padding", "symbol.commit", catalog.Ciphertext()[2*fcp.SymbolSize:], 0, "esi", "2")
}

func (m *maker) decisions() {
	owner := m.c.Owner.Public()
	revocation := hexed(m.c.Find("revocation").Bytes)
	at := catalog.Now.Unix()
	revoked := func(name, what string, target byte, scope string, seconds int64, code fcp.Code, list string) {
		h := fcp.Hash{target}
		m.add("decisions", name, what, "revocation.check", h[:], code, "owner", hexed(owner[:]), "revocations", list, "scope", scope, "at", fmt.Sprint(seconds))
	}
	revoked("revoked", "a token that was revoked", 7, "token", at+120, 0, revocation)
	revoked("revoked-not-yet", "before the revocation takes effect", 7, "token", at, 0, revocation)
	revoked("revoked-expired", "behind the end of the revocation", 7, "token", at+7200, 0, revocation)
	revoked("revoked-other-scope", "the same bytes as something else", 7, "approval", at+120, 0, revocation)
	revoked("revoked-other", "another token", 9, "token", at+120, 0, revocation)
	revoked("revoked-none", "no revocations", 7, "token", at+120, 0, "")
	revoked("revoked-forged", "a list with a forged revocation", 7, "token", at+120, fcp.CodeSignature, hexed(flip(m.c.Find("revocation").Bytes, -1)))

	flow := func(name, what, from, to string) {
		m.add("decisions", name, what, "flow.check", nil, 0, "from", from, "to", to)
	}
	flow("flow-down", "integrity flows down, confidentiality up", "80,10", "20,90")
	flow("flow-elevation", "into a zone of higher integrity", "20,10", "80,90")
	flow("flow-declassification", "into a zone of lower confidentiality", "80,90", "20,10")
	flow("flow-both", "both", "20,90", "80,10")
	m.add("decisions", "flow-level", "a level above 100", "flow.check", nil, fcp.CodeInvalidArgument, "from", "101,0", "to", "0,0")
	for _, q := range [][2]string{{"1", "0"}, {"3", "0"}, {"4", "1"}, {"7", "2"}} {
		m.add("decisions", "quorum-"+q[0]+"-"+q[1], "signatures of a checkpoint", "quorum.need", nil, 0, "members", q[0], "faults", q[1])
	}
	m.add("decisions", "quorum-too-many", "more liars than can be survived", "quorum.need", nil, fcp.CodeInvalidArgument, "members", "3", "faults", "1")

	genesis, first, next := hexed(m.c.Genesis.Bytes), hexed(m.c.Find("zone-checkpoint-owner").Bytes), hexed(m.c.Find("zone-checkpoint").Bytes)
	judge := func(name, what, list string) {
		m.add("decisions", name, what, "checkpoints.judge", nil, 0, "genesis", genesis, "zone", "z:work", "checkpoints", list)
	}
	judge("checkpoints-none", "only genesis", "")
	judge("checkpoints-one", "the owner's signature stands in for a quorum", first)
	judge("checkpoints-two", "members sign the next one, in any order of arrival", next+","+first)
	judge("checkpoints-gap", "the second one without the first is not accepted", next)
}
