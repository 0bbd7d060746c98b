package authority

import (
	"time"

	"fcp"
)

// maxEvidence limits the refs of one decision receipt.
const maxEvidence = 64

// receiptObject is DecisionReceipt in the native profile on the wire.
type receiptObject struct {
	Format      uint64       `cbor:"format"`
	Zone        fcp.ZoneID   `cbor:"zone_id"`
	Request     fcp.ObjectID `cbor:"request_object_id"`
	RequestHash fcp.Hash     `cbor:"request_hash"`
	Decision    string       `cbor:"decision"` // "allow" or "deny"
	Reason      fcp.Reason   `cbor:"reason_code"`
	Evidence    []fcp.Hash   `cbor:"evidence"` // in the order of use
	Explanation string       `cbor:"explanation,omitempty"`
	Smallest    *smallest    `cbor:"smallest_grant,omitempty"` // of a denial that a grant would cure
	DecidedAt   uint64       `cbor:"decided_at"`               // unix seconds
	Node        fcp.WriterID `cbor:"decided_by"`
	Signature   []byte       `cbor:"signature,omitempty"`
}

// smallest is the grant that would have passed, for the zone of the receipt.
type smallest struct {
	Principal   fcp.CanonicalID `cbor:"principal"`
	Rights      []Right         `cbor:"caps"`
	Constraints Constraints     `cbor:"constraints"`
	ValidFrom   uint64          `cbor:"valid_from"`  // unix seconds, inclusive
	ValidUntil  uint64          `cbor:"valid_until"` // unix seconds, exclusive
}

// DecisionReceipt is a verified record of a decision, made by VerifyDecision.
type DecisionReceipt struct {
	ref fcp.Hash
	o   receiptObject
}

// Ref returns RefOf the receipt's bytes.
func (d *DecisionReceipt) Ref() fcp.Hash { return d.ref }

// Zone, Request, Reason, Evidence, Explanation, DecidedAt and Node return what the
// receipt says. The caller must not change the evidence.
func (d *DecisionReceipt) Zone() fcp.ZoneID      { return d.o.Zone }
func (d *DecisionReceipt) Request() fcp.ObjectID { return d.o.Request }                   // see Zone
func (d *DecisionReceipt) Allowed() bool         { return d.o.Decision == decisionAllow } // see Zone
func (d *DecisionReceipt) Reason() fcp.Reason    { return d.o.Reason }                    // see Zone
func (d *DecisionReceipt) Evidence() []fcp.Hash  { return d.o.Evidence }                  // see Zone
func (d *DecisionReceipt) Explanation() string   { return d.o.Explanation }               // see Zone
func (d *DecisionReceipt) DecidedAt() time.Time  { return fromUnix(d.o.DecidedAt) }
func (d *DecisionReceipt) Node() fcp.WriterID    { return d.o.Node } // see Zone

// Smallest returns the smallest grant that would have passed when the decision was
// made; false when no grant would.
func (d *DecisionReceipt) Smallest() (GrantSpec, bool) {
	s := d.o.Smallest
	if s == nil {
		return GrantSpec{}, false
	}
	return GrantSpec{Zone: d.o.Zone, Principal: s.Principal, Rights: s.Rights, Constraints: s.Constraints,
		NotBefore: fromUnix(s.ValidFrom), NotAfter: fromUnix(s.ValidUntil)}, true
}

// RequestHash returns Request.Hash of what was decided.
func (d *DecisionReceipt) RequestHash() fcp.Hash { return d.o.RequestHash }

const (
	decisionAllow = "allow"
	decisionDeny  = "deny"
)

// NeedsReceipt reports whether a decision must leave a receipt: every denial of
// what is more than safe (40-authority "Decide").
func (d *Decision) NeedsReceipt(t Tier) bool { return !d.allow && t.AtLeast(TierRisky) }

// SignDecision returns the receipt of a decision about a request, signed by the
// node that decided.
func SignDecision(now time.Time, node *NodeKeys, r *Request, d *Decision) ([]byte, error) {
	if d.Request != r.Hash() {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "the decision is about another request")
	}
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	o := receiptObject{
		Format: ObjectFormat, Zone: r.Zone, Request: r.ID, RequestHash: d.Request, Decision: decisionDeny, Reason: d.Reason,
		Evidence: d.Evidence, Explanation: cutText(d.Detail), DecidedAt: at, Node: node.Writer(),
	}
	if d.allow {
		o.Decision = decisionAllow
	}
	if g := d.Smallest; g != nil {
		from, err := unixSeconds(g.NotBefore)
		if err != nil {
			return nil, err
		}
		until, err := unixSeconds(g.NotAfter)
		if err != nil {
			return nil, err
		}
		o.Smallest = &smallest{g.Principal, g.Rights, g.Constraints, from, until}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(node, fcp.SchemaDecisionReceipt, &o, &o.Signature)
}

// cutText makes any text printable and short enough for an object.
func cutText(s string) string {
	for !printable(s) {
		if len(s) > MaxText {
			s = s[:MaxText]
			continue
		}
		b := []byte(s)
		for i := range b {
			if b[i] < ' ' || b[i] >= 0x7f {
				b[i] = '?'
			}
		}
		s = string(b)
	}
	return s
}

// VerifyDecision decodes a decision receipt and checks that the node's key signed
// exactly these bytes.
func VerifyDecision(key SigningPublic, b []byte) (*DecisionReceipt, error) {
	var o receiptObject
	s, err := decodeSigned(fcp.SchemaDecisionReceipt, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Node != fcp.WriterOf(key[:]) {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "decision receipt of node %.16s", o.Node)
	}
	if !key.Verify(s.message, s.signature) {
		return nil, fcp.Errorf(fcp.CodeSignature, "decision receipt of node %.16s", o.Node)
	}
	return &DecisionReceipt{RefOf(b), o}, nil
}

func (o *receiptObject) check() error {
	if err := checkCommon(fcp.SchemaDecisionReceipt, o.Format, o.DecidedAt); err != nil {
		return err
	}
	allow := o.Decision == decisionAllow
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "decision receipt in zone %.64q", string(o.Zone))
	case !allow && o.Decision != decisionDeny || allow != (o.Reason == ReasonAllow) || !validToken(string(o.Reason), fcp.MaxIdentifier):
		return fcp.Errorf(fcp.CodeMalformed, "decision receipt that says %.20q for %.40q", o.Decision, string(o.Reason))
	case len(o.Evidence) > maxEvidence || !printable(o.Explanation):
		return fcp.Errorf(fcp.CodeTooLarge, "decision receipt with %d refs", len(o.Evidence))
	case o.Smallest != nil && allow:
		return fcp.Errorf(fcp.CodeMalformed, "decision receipt that permits and proposes a grant")
	}
	if s := o.Smallest; s != nil {
		g := grantObject{Format: ObjectFormat, Zone: o.Zone, Principal: s.Principal, Rights: s.Rights, Constraints: s.Constraints,
			ValidFrom: s.ValidFrom, ValidUntil: s.ValidUntil}
		return g.check()
	}
	return nil
}
