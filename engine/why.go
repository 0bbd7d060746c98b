package engine

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// RefusalRecord is a decision receipt that is in the log.
type RefusalRecord struct {
	*authority.DecisionReceipt
	Position uint64 // local position of its event
	feed     log.FeedNo
	seq      uint64
}

// FindRefusal finds a decision receipt by the first digits, at least MinHashPrefix,
// of the id of its request or of its own ref. Errors: CodeNotFound, CodeGuess when
// several fit, CodeInvalidArgument.
func (e *Engine) FindRefusal(id string) (*RefusalRecord, error) {
	if len(id) < MinHashPrefix || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%.80q is not %d or more hex digits of a request or receipt", id, MinHashPrefix)
	}
	var found []*RefusalRecord
	err := e.EachDecision(func(r *RefusalRecord) error {
		if strings.HasPrefix(r.Request().String(), id) || strings.HasPrefix(r.Ref().String(), id) {
			found = append(found, r)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fcp.Errorf(fcp.CodeNotFound, "no decision receipt of %s", id).WithNext("list the denials with `fcpctl audit tail --type capability.denied`")
	case len(found) > 1:
		return nil, fcp.Errorf(fcp.CodeGuess, "%d decision receipts begin with %s", len(found), id)
	}
	return found[0], nil
}

// EachDecision calls fn with each decision receipt that is here, by zone. One whose
// signature is not that of the device in whose feed it is, is left out.
func (e *Engine) EachDecision(fn func(*RefusalRecord) error) error {
	keys, err := e.signingKeys()
	if err != nil {
		return err
	}
	for _, zone := range e.Zones() {
		no, ok := e.fold.zoneNumber(zone)
		if !ok {
			continue
		}
		prefix := appendPrefix(nil, no, e.fold.slot(projDecisions))
		err := e.st.Scan(prefix, upperBound(prefix), func(key []byte, v state.Value) (bool, error) {
			if len(key) < keyPrefix+fcp.HashSize {
				return false, fcp.Errorf(fcp.CodeCorrupt, "a decision's key in the state does not decode")
			}
			at, err := decodePlace(v.Local)
			if err != nil {
				return false, err
			}
			d, err := authority.VerifyDecision(keys[fcp.WriterID(key[keyPrefix:keyPrefix+fcp.HashSize])], bytes.Clone(v.Canonical))
			if err != nil || d.Zone() != zone {
				return true, nil
			}
			return true, fn(&RefusalRecord{d, at.position, at.feed, at.seq})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// signingKeys returns the signing key of each device that was ever enrolled.
func (e *Engine) signingKeys() (map[fcp.WriterID]authority.SigningPublic, error) {
	devices, err := e.devices()
	if err != nil {
		return nil, err
	}
	keys := map[fcp.WriterID]authority.SigningPublic{e.genesis.Writer: e.genesis.Node.Signing}
	for w, d := range devices {
		keys[w] = d.Node().Signing
	}
	return keys, nil
}

// refusalFormat names the form of a refusal bundle (docs/format.md "Refusal
// bundle").
const refusalFormat = "fcp-refusal/1"

// maxRefusal bounds a refusal bundle, in bytes.
const maxRefusal = 8 << 20

// refusalBundle is a refusal with everything that its check needs, as JSON.
type refusalBundle struct {
	Format   string   `json:"format"`
	Proof    string   `json:"proof"`    // that the receipt is in the log of the device that decided
	Genesis  []byte   `json:"genesis"`  // whose store it is
	Device   []byte   `json:"device"`   // the enrollment of the device that decided; empty: genesis names it
	Evidence [][]byte `json:"evidence"` // signed objects that the receipt names, ascending by ref

	// Delegations are those of the admins who signed a revocation in Evidence,
	// ascending by ref; left out when there are none.
	Delegations [][]byte `json:"delegations,omitempty"`
}

// ProveRefusal returns a bundle that shows anybody, with no store and no network,
// that this refusal was decided, by whom, why, and on which signed objects.
func (e *Engine) ProveRefusal(r *RefusalRecord) ([]byte, error) {
	proof, err := e.log.Bundle(r.feed, r.seq)
	if err != nil {
		return nil, err
	}
	b := refusalBundle{Format: refusalFormat, Proof: string(proof), Device: []byte{}, Evidence: [][]byte{}}
	if b.Genesis, err = e.GenesisBytes(); err != nil {
		return nil, err
	}
	admins := map[authority.OwnerPublic]bool{}
	for _, zone := range slices.Compact([]fcp.ZoneID{fcp.ZoneOwner, r.Zone()}) {
		for _, projection := range []string{projRevocations, projCapabilities, projAttestations, projBindings, projIssuers} {
			err := e.records(zone, projection, func(body []byte) error {
				if !slices.Contains(r.Evidence(), authority.RefOf(body)) {
					return nil
				}
				b.Evidence = append(b.Evidence, body)
				if u, err := authority.OpenRevocation(e.genesis.Owner, body); err == nil && u.Issuer() != e.genesis.Owner {
					admins[u.Issuer()] = true
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	if len(admins) > 0 {
		err := e.records(fcp.ZoneOwner, projDelegations, func(body []byte) error {
			d, err := authority.VerifyDelegation(e.genesis.Owner, body)
			if err == nil && admins[authority.OwnerPublic(d.Spec().Admin)] {
				b.Delegations = append(b.Delegations, body)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if r.Node() != e.genesis.Writer {
		err := e.records(fcp.ZoneOwner, projDevices, func(body []byte) error {
			d, err := authority.VerifyDevice(e.genesis.Owner, body)
			if err == nil && d.Writer() == r.Node() {
				b.Device = body
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for _, list := range []*[][]byte{&b.Evidence, &b.Delegations} {
		slices.SortFunc(*list, func(x, y []byte) int {
			a, c := authority.RefOf(x), authority.RefOf(y)
			return bytes.Compare(a[:], c[:])
		})
		*list = slices.CompactFunc(*list, bytes.Equal)
	}
	out, err := b.encode()
	if err != nil {
		return nil, err
	}
	_, err = OpenRefusal(out)
	return out, err
}

func (b *refusalBundle) encode() ([]byte, error) {
	out, err := json.Marshal(b)
	return append(out, '\n'), fcp.Wrap(fcp.CodeInternal, err, "encode a refusal bundle")
}

// ProvenRefusal is what a checked refusal bundle shows.
type ProvenRefusal struct {
	*authority.DecisionReceipt
	Owner    authority.OwnerPublic // of the store; whether it is the right one only the reader can say
	Evidence []ProvenEvidence
	Revoked  *authority.Revocation // of something that the receipt names, by the owner or an admin, active when it was decided; nil: none

	authorities authority.Authorities // the owner and the admins whose delegations came with it
}

// ProvenEvidence is one signed object behind a decision.
type ProvenEvidence struct {
	Ref  fcp.Hash
	What string // "revocation", "grant", "attestation", "binding" or "issuer set"
}

// IsRefusal reports whether b looks like a refusal bundle and no other proof.
func IsRefusal(b []byte) bool { return bytes.HasPrefix(b, []byte(`{"format":"`+refusalFormat+`"`)) }

// OpenRefusal checks a refusal bundle offline: the log proof, the signature of the
// receipt by the device that decided, that the owner of the genesis checkpoint
// enrolled that device, and that each object of the evidence is signed and named by
// the receipt; a receipt that says "revoked" must come with the revocation, by the
// owner or by an admin whose delegation comes with it.
// Any other bytes than those ProveRefusal makes are refused. Errors: CodeMalformed,
// CodeNonCanonical, CodeTooLarge, CodeVersion, CodeChecksum, CodeSignature,
// CodeWrongKey, CodeMissingField.
func OpenRefusal(bundle []byte) (*ProvenRefusal, error) {
	if len(bundle) > maxRefusal {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a refusal bundle of %d bytes", len(bundle))
	}
	var b refusalBundle
	if err := json.Unmarshal(bundle, &b); err != nil {
		return nil, fcp.Errorf(fcp.CodeMalformed, "the refusal bundle is not JSON of the expected shape")
	}
	if b.Format != refusalFormat {
		return nil, fcp.Errorf(fcp.CodeVersion, "refusal format %.32q, this build knows %q", b.Format, refusalFormat)
	}
	if again, err := b.encode(); err != nil || !bytes.Equal(again, bundle) {
		return nil, fcp.Errorf(fcp.CodeNonCanonical, "the refusal bundle is not in its one form")
	}
	genesis, err := authority.VerifyGenesis(b.Genesis)
	if err != nil {
		return nil, err
	}
	node := genesis.Node
	if len(b.Device) > 0 {
		d, err := authority.VerifyDevice(genesis.Owner, b.Device)
		if err != nil {
			return nil, err
		}
		node = d.Node()
	}
	ev, err := log.OpenProof([]byte(b.Proof), node.Signing[:])
	if err != nil {
		return nil, err
	}
	if ev.Content.Kind != fcp.KindDecisionRecorded || ev.Feed.Writer != node.Writer() {
		return nil, fcp.Errorf(fcp.CodeMalformed, "the event proven is no decision of that device")
	}
	receipt, err := authority.VerifyDecision(node.Signing, ev.Content.Body)
	if err != nil {
		return nil, err
	}
	if receipt.Allowed() || receipt.Zone() != ev.Feed.Zone {
		return nil, fcp.Errorf(fcp.CodeMalformed, "the receipt is of a permission, or of another zone")
	}
	out := &ProvenRefusal{DecisionReceipt: receipt, Owner: genesis.Owner, authorities: authority.Authorities{Owner: genesis.Owner}}
	for _, body := range b.Delegations {
		d, err := authority.VerifyDelegation(genesis.Owner, body)
		if err != nil {
			return nil, err
		}
		out.authorities.Add(d)
	}
	return out, out.takeEvidence(b.Evidence)
}

func (p *ProvenRefusal) takeEvidence(bodies [][]byte) error {
	named := p.DecisionReceipt.Evidence()
	for i, body := range bodies {
		ref := authority.RefOf(body)
		if !slices.Contains(named, ref) {
			return fcp.Errorf(fcp.CodeChecksum, "evidence %d is not named by the receipt", i)
		}
		what, err := p.openEvidence(body, named)
		if err != nil {
			return err
		}
		p.Evidence = append(p.Evidence, ProvenEvidence{ref, what})
	}
	if strings.HasPrefix(string(p.Reason()), "revoked.") && p.Revoked == nil {
		return fcp.Errorf(fcp.CodeMissingField, "the receipt says %s and no revocation comes with it", p.Reason())
	}
	return nil
}

// openEvidence verifies one object by whichever schema its prefix names.
func (p *ProvenRefusal) openEvidence(body []byte, named []fcp.Hash) (string, error) {
	is := func(s fcp.Schema) bool { h := s.Hash(); return bytes.HasPrefix(body, h[:]) }
	switch {
	case is(fcp.SchemaRevocation):
		u, err := authority.OpenRevocation(p.Owner, body)
		if err != nil {
			return "", err
		}
		r, err := u.Authorize(&p.authorities)
		if err != nil {
			return "", err
		}
		names := slices.ContainsFunc(r.Targets(), func(t fcp.Hash) bool { return slices.Contains(named, t) })
		if names && r.ActiveAt(p.DecidedAt()) {
			p.Revoked = r
		}
		return "revocation", nil
	case is(fcp.SchemaCapability):
		_, err := authority.VerifyGrant(body)
		return "grant", err
	case is(fcp.SchemaAttestation):
		_, err := authority.OpenAttestation(body)
		return "attestation", err
	case is(fcp.SchemaPrincipalBinding):
		_, err := authority.VerifyBinding(p.Owner, body)
		return "binding", err
	case is(fcp.SchemaIssuerSet):
		_, err := authority.VerifyIssuerSet(p.Owner, body)
		return "issuer set", err
	}
	return "", fcp.Errorf(fcp.CodeSchema, "evidence of schema %s", hex.EncodeToString(body[:min(8, len(body))]))
}

// AuditRecord is one audit entry that is in the log.
type AuditRecord struct {
	authority.AuditEvent
	Position uint64
	Writer   fcp.WriterID // the device in whose feed it is
	Time     time.Time    // of the event
}

// EachAudit calls fn with each audit entry of a zone, in the order of their times.
func (e *Engine) EachAudit(zone fcp.ZoneID, fn func(*AuditRecord) error) error {
	no, ok := e.fold.zoneNumber(zone)
	if !ok {
		return e.unknownZone(zone)
	}
	prefix := appendPrefix(nil, no, e.fold.slot(projAudit))
	return e.st.Scan(prefix, upperBound(prefix), func(key []byte, v state.Value) (bool, error) {
		a, err := authority.DecodeAuditEvent(v.Canonical)
		if err != nil {
			return false, err
		}
		at, err := decodePlace(v.Local)
		if err != nil || len(key) < keyPrefix+8+fcp.HashSize {
			return false, fcp.Errorf(fcp.CodeCorrupt, "an audit entry's key in the state does not decode")
		}
		r := AuditRecord{AuditEvent: a, Position: at.position, Writer: fcp.WriterID(key[keyPrefix+8 : keyPrefix+8+fcp.HashSize])}
		r.Time = fcp.Time(binary.BigEndian.Uint64(key[keyPrefix:])).Wall()
		return true, fn(&r)
	})
}
