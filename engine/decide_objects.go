package engine

import (
	"context"
	"io"
	"strings"

	"fcp"
	"fcp/authority"
)

// What tokens for the objects of a store name (docs/format.md "Tokens"). The store
// is a connector of the node itself, so such tokens name no binary.
const (
	StoreConnector  fcp.CanonicalID = "fcp.store"
	StoreInstance   fcp.CanonicalID = "objects"
	StoreCapability fcp.CanonicalID = "store.objects"

	OperationGet    fcp.CanonicalID = "object.get"    // safe
	OperationPut    fcp.CanonicalID = "object.put"    // risky
	OperationRemove fcp.CanonicalID = "object.remove" // risky
)

// StoreOperations returns the operations that tokens for objects can permit.
func StoreOperations() []fcp.CanonicalID {
	return []fcp.CanonicalID{OperationGet, OperationPut, OperationRemove}
}

// StoreCapabilities returns the capabilities of the store itself. All others are of
// connectors.
func StoreCapabilities() []fcp.CanonicalID {
	return []fcp.CanonicalID{StoreCapability, SecretCapability}
}

// CapabilityOperations returns the operations of a capability of the store; nil for
// another capability, whose operations its connector defines.
func CapabilityOperations(capability fcp.CanonicalID) []fcp.CanonicalID {
	switch capability {
	case StoreCapability:
		return StoreOperations()
	case SecretCapability:
		return []fcp.CanonicalID{OperationUse}
	}
	return nil
}

func tierOf(operation fcp.CanonicalID) authority.Tier {
	if operation == OperationGet {
		return authority.TierSafe
	}
	return authority.TierRisky
}

// ResourceOf returns the resource that stands for a name: its bytes, with each one
// that is no printable ASCII character, a space, '%' or '*' as '%' and two
// upper-case hex digits. A prefix of a name becomes a prefix of its resource.
func ResourceOf(key string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		if c <= ' ' || c >= 0x7f || c == '%' || c == '*' {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Caller is somebody who is not the owner at this device: what he may do is what
// his token says. The methods without a Caller are the owner's own.
type Caller struct {
	Token     *authority.Chain
	Principal fcp.CanonicalID   // "": the one that the token names
	Device    fcp.WriterID      // that the session authenticated; zero: this one
	Carrier   authority.Carrier // "": authority.CarrierLocal
	Data      authority.Label   // of what drives the use; the zero Label is data of the zone itself
	Approvals []*authority.Approval

	// Challenge is the session's own (authority.ChallengeExporter); the zero one has
	// a fresh nonce drawn for each request.
	Challenge authority.Challenge
	// Prove asks the holder to sign (authority.HolderKey.Prove); over a network it is
	// one round trip.
	Prove func(c authority.Challenge, leaf, request fcp.Hash) ([]byte, error)
}

// Request makes the request of a caller to use an object, with the holder's proof
// of possession. A proof that does not verify is no error here: the decision says it.
func (e *Engine) Request(c *Caller, operation fcp.CanonicalID, zone fcp.ZoneID, key string, idempotency string, size uint64) (*authority.Request, error) {
	if zone == "" {
		zone = DefaultZone
	}
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return nil, err
	}
	id, err := e.requestID()
	if err != nil {
		return nil, err
	}
	r := &authority.Request{ID: id, Zone: zone, Principal: c.Principal, Device: c.Device, Connector: StoreConnector, Instance: StoreInstance,
		Capability: StoreCapability, Operation: operation, Resource: ResourceOf(key), IdempotencyKey: idempotency, Bytes: size,
		Tier: tierOf(operation), Carrier: c.Carrier, Data: c.Data, Token: c.Token, Approvals: c.Approvals}
	if r.Device.IsZero() {
		r.Device = e.node.Writer()
	}
	if r.Carrier == "" {
		r.Carrier = authority.CarrierLocal
	}
	if r.Data.Origin == "" {
		r.Data = authority.Label{Origin: zone, Levels: f.Levels}
	}
	if c.Token == nil {
		return r, nil
	}
	if r.Principal == "" {
		tokens := c.Token.Tokens()
		last, err := authority.InspectToken(tokens[len(tokens)-1])
		if err != nil {
			return nil, err
		}
		r.Principal = last.Principal
	}
	return r, e.prove(c, r)
}

// prove has the holder sign and keeps the proof if it is one.
func (e *Engine) prove(c *Caller, r *authority.Request) error {
	if c.Prove == nil {
		return nil
	}
	challenge := c.Challenge
	if challenge == (authority.Challenge{}) {
		challenge.Kind = authority.ChallengeNonce
		if _, err := io.ReadFull(e.env.Rand, challenge.Value[:]); err != nil {
			return fcp.Wrap(fcp.CodeInternal, err, "read randomness for a challenge")
		}
	}
	signature, err := c.Prove(challenge, c.Token.Leaf(), r.Hash())
	if err != nil {
		return err
	}
	proof, err := authority.VerifyProof(c.Token, challenge, r.Hash(), signature)
	switch {
	case err == nil:
		r.Proof = proof
	case authority.ReasonOf(err) != authority.ReasonProof:
		return err
	}
	return nil
}

// authorize makes the caller's request and decides it.
func (e *Engine) authorize(ctx context.Context, c *Caller, operation fcp.CanonicalID, zone fcp.ZoneID, key, idempotency string, size uint64) error {
	r, err := e.Request(c, operation, zone, key, idempotency, size)
	if err != nil {
		return err
	}
	_, err = e.Authorize(ctx, r)
	return err
}

// GetFor is Get for a caller with a token. A token names resources, so it opens
// names and no object by its id; it opens the past of a name with its present.
// A denial is a *Refusal; the other errors are those of Get.
func (e *Engine) GetFor(ctx context.Context, c *Caller, r GetRequest) (*Reader, error) {
	if r.Key == "" {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a token reads by name, not by the id of an object")
	}
	if err := e.authorize(ctx, c, OperationGet, r.Zone, r.Key, "", 0); err != nil {
		return nil, err
	}
	return e.Get(ctx, r)
}

// PutFor is Put for a caller with a token. The body must be in r.Bytes: its size is
// part of what is decided. A dry run decides and leaves no trace.
func (e *Engine) PutFor(ctx context.Context, c *Caller, r PutRequest) (PutResult, error) {
	if r.Body != nil {
		return PutResult{}, fcp.Errorf(fcp.CodeInvalidArgument, "the body of a put with a token must be at hand")
	}
	if r.DryRun {
		if err := e.rehearse(c, OperationPut, r.Zone, r.Key, r.Idempotency, uint64(len(r.Bytes))); err != nil {
			return PutResult{}, err
		}
	} else if err := e.authorize(ctx, c, OperationPut, r.Zone, r.Key, r.Idempotency, uint64(len(r.Bytes))); err != nil {
		return PutResult{}, err
	}
	return e.Put(ctx, r)
}

// RemoveFor is Remove for a caller with a token. A dry run decides and leaves no
// trace.
func (e *Engine) RemoveFor(ctx context.Context, c *Caller, r RemoveRequest) (PutResult, error) {
	if r.DryRun {
		if err := e.rehearse(c, OperationRemove, r.Zone, r.Key, r.Idempotency, 0); err != nil {
			return PutResult{}, err
		}
	} else if err := e.authorize(ctx, c, OperationRemove, r.Zone, r.Key, r.Idempotency, 0); err != nil {
		return PutResult{}, err
	}
	return e.Remove(ctx, r)
}

// rehearse decides and leaves no trace.
func (e *Engine) rehearse(c *Caller, operation fcp.CanonicalID, zone fcp.ZoneID, key, idempotency string, size uint64) error {
	r, err := e.Request(c, operation, zone, key, idempotency, size)
	if err != nil {
		return err
	}
	d, err := e.Decide(r)
	if err != nil || d.Allowed() {
		return err
	}
	return &Refusal{Decision: d, Request: r.ID, err: d.Err()}
}
