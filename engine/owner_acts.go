package engine

import (
	"bytes"
	"context"
	"slices"

	"fcp"
	"fcp/authority"
)

// What the owner signs elsewhere, and what a decision says to somebody who is not
// in this process: the owner's key never has to come here.

// AppendRevocation appends a revocation that the owner signed, and an audit entry.
// CodeSignature for one that this store's owner did not sign.
func (e *Engine) AppendRevocation(ctx context.Context, body []byte) (*authority.Revocation, error) {
	r, err := authority.VerifyRevocation(e.genesis.Owner, body)
	if err != nil {
		return nil, err
	}
	if _, err := e.AppendSigned(ctx, r.Zone(), fcp.KindRevocationIssued, body); err != nil {
		return nil, err
	}
	return r, e.noteAct(ctx, r.Zone(), authority.AuditRevocation, r.Ref())
}

// NewRefusal makes a Refusal of what another process was told; err is what it
// wraps.
func NewRefusal(d authority.Decision, request fcp.ObjectID, receipt fcp.Hash, err error) *Refusal {
	return &Refusal{Decision: d, Request: request, Receipt: receipt, err: err}
}

// RefusalBytes returns a receipt as its device signed it, and that device's key.
func (e *Engine) RefusalBytes(r *RefusalRecord) (receipt []byte, key authority.SigningPublic, err error) {
	keys, err := e.signingKeys()
	if err != nil {
		return nil, key, err
	}
	ev, _, err := e.log.Read(r.feed, r.seq)
	if err != nil {
		return nil, key, err
	}
	return bytes.Clone(ev.Body), keys[r.Node()], nil
}

// HasRevocation reports whether a revocation is here, in any zone.
func (e *Engine) HasRevocation(ref fcp.Hash) (bool, error) {
	for _, zone := range e.Zones() {
		f, err := e.ZoneFacts(zone)
		if err != nil {
			return false, err
		}
		if slices.Contains(f.Revocations.Refs(), ref) {
			return true, nil
		}
	}
	return false, nil
}
