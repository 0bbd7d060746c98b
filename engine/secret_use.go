package engine

import (
	"context"
	"io"
	"time"

	"fcp"
	"fcp/authority"
)

// ShareSource reaches the other devices that hold shares. A mesh node implements it
// over its sessions; the answer is (*Engine).AnswerShareAsk of the device.
type ShareSource interface {
	// AskShare brings ask to a device and returns its answer. The session tells the
	// device who asks. Called from several goroutines at once; it returns soon after
	// ctx ends.
	AskShare(ctx context.Context, device fcp.WriterID, ask []byte) (answer []byte, err error)
}

// SecretUse says which secret is to be used, by whom and for what.
type SecretUse struct {
	Zone    fcp.ZoneID // "": DefaultZone
	Name    string
	Purpose string // "": "use"; for the access token, at most authority.MaxText bytes of printable UTF-8

	Caller *Caller            // somebody at this device with a capability token for OperationUse; or
	By     authority.AdminKey // the owner, or an admin who may grant; or
	// Sign is likewise, with a key that is elsewhere: it returns a secret access token.
	Sign func(*authority.Secret, authority.SecretAccessSpec) ([]byte, error)

	Sources ShareSource // nil: this device's share alone
}

// SecretUsed says what a use took.
type SecretUsed struct {
	State   SecretState
	Request fcp.ObjectID   // under which each device put it on record
	Devices []fcp.WriterID // whose shares were taken
	Refused []Refused      // devices that gave none, or a wrong one
}

// Refused is why a device did not do what it was asked for.
type Refused struct {
	Device fcp.WriterID
	Err    error
}

// accessLifetime is how long a secret access token of a use is valid.
const accessLifetime = 2 * time.Minute

// UseSecret decides, puts the use on record, gathers Threshold shares, rebuilds the
// value in memory, calls use with it and wipes it when use returns; use must not keep
// it. Each device that is asked decides by itself and puts it on record, too. Errors
// are those of GatherShares and that of use.
func (e *Engine) UseSecret(ctx context.Context, u SecretUse, use func(value []byte) error) (out SecretUsed, err error) {
	var g GatheredShares
	defer g.Wipe()
	if out, err = e.GatherShares(ctx, u, func(s *authority.Secret, x SealedShare) error { return g.Take(e.node, s, x) }); err != nil {
		return out, err
	}
	return out, g.Use(use)
}

// permitUse decides and puts on record, and returns what the other devices are asked
// with.
func (e *Engine) permitUse(ctx context.Context, f *ZoneFacts, s *authority.Secret, u *SecretUse) (*authority.ShareAsk, error) {
	id, err := e.requestID()
	if err != nil {
		return nil, err
	}
	ask := &authority.ShareAsk{Zone: f.Zone, Secret: s.ID(), Version: s.Number(), Request: id}
	switch {
	case u.Caller != nil && u.Caller.Token != nil:
		return ask, e.permitCaller(ctx, f, s, u.Caller, ask)
	case u.By != nil || u.Sign != nil:
		return ask, e.permitOwner(ctx, f, s, u, ask)
	}
	return nil, fcp.Errorf(fcp.CodeUnauthorized, "a secret is used with a capability token, or by the owner").
		WithNext("give --token FILE and --key FILE, or --identity FILE")
}

// secretRequest is the request of a use; every device makes the same of an ask.
func secretRequest(ask *authority.ShareAsk, f *ZoneFacts, name string, device fcp.WriterID) *authority.Request {
	return &authority.Request{ID: ask.Request, Zone: ask.Zone, Principal: ask.Principal, Device: device, Connector: StoreConnector, Instance: SecretInstance,
		Capability: SecretCapability, Operation: OperationUse, Resource: ResourceOf(name), Tier: authority.TierRisky, Carrier: authority.CarrierLocal,
		Data: authority.Label{Origin: ask.Zone, Levels: f.Levels}}
}

// permitCaller decides by the caller's token. His proof is over a challenge that all
// devices of this use take.
func (e *Engine) permitCaller(ctx context.Context, f *ZoneFacts, s *authority.Secret, c *Caller, ask *authority.ShareAsk) error {
	if !c.Device.IsZero() && c.Device != e.node.Writer() {
		return fcp.Errorf(fcp.CodeInvalidArgument, "a secret is rebuilt on the device that its caller is at")
	}
	ask.Principal = c.Principal
	if ask.Principal == "" {
		tokens := c.Token.Tokens()
		last, err := authority.InspectToken(tokens[len(tokens)-1])
		if err != nil {
			return err
		}
		ask.Principal = last.Principal
	}
	if _, err := io.ReadFull(e.env.Rand, ask.Nonce[:]); err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "read randomness for a challenge")
	}
	ask.At, ask.Token = e.env.Now().Truncate(time.Second), c.Token.Bytes()
	r := secretRequest(ask, f, s.Name(), e.node.Writer())
	r.Token, r.Approvals = c.Token, c.Approvals
	if c.Data.Origin != "" {
		r.Data = c.Data
	}
	if c.Carrier != "" {
		r.Carrier = c.Carrier
	}
	bound := *c
	bound.Challenge = ask.Challenge()
	if prove := c.Prove; prove != nil {
		bound.Prove = func(ch authority.Challenge, leaf, request fcp.Hash) (signature []byte, err error) {
			signature, err = prove(ch, leaf, request)
			ask.Signature = signature
			return signature, err
		}
	}
	if err := e.prove(&bound, r); err != nil {
		return err
	}
	_, err := e.Authorize(ctx, r)
	return err
}

// permitOwner signs a secret access token for this use alone, judges it as the other
// devices will, and puts the use on record.
func (e *Engine) permitOwner(ctx context.Context, f *ZoneFacts, s *authority.Secret, u *SecretUse, ask *authority.ShareAsk) (err error) {
	ask.Principal = "owner:" + fcp.CanonicalID(e.node.Writer().String()[:16])
	purpose := u.Purpose
	if purpose == "" {
		purpose = "use"
	}
	sign := u.Sign
	if sign == nil {
		sign = func(_ *authority.Secret, spec authority.SecretAccessSpec) ([]byte, error) {
			return authority.SignSecretAccess(e.env.Rand, u.By, spec)
		}
	}
	now := e.env.Now().Truncate(time.Second)
	r := secretRequest(ask, f, s.Name(), e.node.Writer())
	if ask.Access, err = sign(s, authority.SecretAccessSpec{Zone: f.Zone, Secret: s.ID(), Holder: e.node.Writer(), Request: r.Hash(), Purpose: purpose,
		NotBefore: now, Expires: now.Add(accessLifetime)}); err != nil {
		return err
	}
	return e.judgeAccess(ctx, f, s, r, ask.Access)
}

// judgeAccess takes a secret access token or refuses it, and leaves an audit entry
// either way. The owner's own is as fresh as its signature; an admin's needs fresh
// knowledge of revocations, as any risky operation does.
func (e *Engine) judgeAccess(ctx context.Context, f *ZoneFacts, s *authority.Secret, r *authority.Request, token []byte) error {
	now := e.env.Now()
	view := &factsView{f: f, at: now}
	access, err := authority.VerifySecretAccess(&f.Authorities, token)
	if err == nil {
		err = access.Permits(r.Device, r.Hash(), s.ID(), now, view)
	}
	if err == nil && access.Spec().Zone != f.Zone {
		err = fcp.Errorf(fcp.CodeZone, "secret access in another zone")
	}
	if err == nil && access.Issuer() != f.Authorities.Owner {
		if fresh := f.FreshFor(authority.TierRisky, now); !fresh.Revocations.Allowed || !fresh.Checkpoint {
			err = fcp.Errorf(fcp.CodeDenied, "secret access by an admin: %w", authority.ReasonRevocationStale)
		}
	}
	entry := authority.AuditEvent{Zone: f.Zone, Type: authority.AuditSecretAccess, Actor: string(r.Principal), Connector: r.Connector, Operation: r.Operation,
		Request: fcp.Hash(r.ID), Result: s.Ref()}
	if err != nil {
		entry.Type, entry.Reason = authority.AuditDenied, authority.ReasonOf(err)
		more, one := e.decisions.admitDenial(r.Device, entry.Reason, f.Zone, now)
		if !one {
			return err // counted: a flood does not fill the log
		}
		entry.More = more
	} else {
		entry.Token = access.Ref()
	}
	if auditErr := e.Audit(ctx, entry); auditErr != nil && err == nil {
		err = auditErr // what cannot be put on record does not happen
	}
	return err
}

// AnswerShareAsk is what a device does with the ask of another one, whom the session
// authenticated: it decides by what it knows itself, puts it on record, and seals its
// share to the asker. It answers for the version in force only: shares before it are
// void. Errors: those of decoding, CodeNotFound, CodeConflict for another version,
// CodeDenied for a device that is no member, a *Refusal, those of the token.
func (e *Engine) AnswerShareAsk(ctx context.Context, from fcp.WriterID, message []byte) ([]byte, error) {
	ask, err := authority.DecodeShareAsk(message)
	if err != nil {
		return nil, err
	}
	q := PutSecretRequest{Zone: ask.Zone}
	f, err := e.secretFacts(&q)
	if err != nil {
		return nil, err
	}
	s, err := e.findSecret(f, secretText(ask.Secret), false)
	if err != nil {
		return nil, err
	}
	if s.Number() != ask.Version {
		return nil, fcp.Errorf(fcp.CodeConflict, "version %d of the sharing of %s is not the one in force here, %d", ask.Version, s.Name(), s.Number()).
			WithNext("let the two devices exchange events first")
	}
	to, err := e.shareRecipient(from)
	if err != nil {
		return nil, err
	}
	r := secretRequest(ask, f, s.Name(), from)
	if ask.Access != nil {
		err = e.judgeAccess(ctx, f, s, r, ask.Access)
	} else {
		err = e.judgeCaller(ctx, ask, r)
	}
	if err != nil {
		return nil, err
	}
	share, err := s.OpenShare(e.node)
	if err != nil {
		return nil, err
	}
	defer share.Wipe()
	return s.Release(e.env.Rand, e.env.Now(), share, to)
}

// judgeCaller decides a caller's request as if it were made here.
func (e *Engine) judgeCaller(ctx context.Context, ask *authority.ShareAsk, r *authority.Request) error {
	if !ask.Fresh(e.env.Now()) {
		return fcp.Errorf(fcp.CodeTokenExpired, "the proof of possession is not of now").WithNext("repeat the use, and check the clocks of the devices")
	}
	chain, err := authority.ParseChain(ask.Token)
	if err != nil {
		return err
	}
	r.Token = chain
	proof, err := authority.VerifyProof(chain, ask.Challenge(), r.Hash(), ask.Signature)
	switch {
	case err == nil:
		r.Proof = proof
	case authority.ReasonOf(err) != authority.ReasonProof:
		return err
	}
	_, err = e.Authorize(ctx, r)
	return err
}

// shareRecipient returns a device as the recipient of a share: one that was enrolled
// and not revoked.
func (e *Engine) shareRecipient(device fcp.WriterID) (authority.Recipient, error) {
	devices, err := e.devices()
	if err != nil {
		return authority.Recipient{}, err
	}
	revoked, err := e.revokedWriters()
	if err != nil {
		return authority.Recipient{}, err
	}
	d := devices[device]
	if d == nil || revoked[device] {
		return authority.Recipient{}, fcp.Errorf(fcp.CodeDenied, "device %.16s is no member, or was revoked", device)
	}
	return d.Recipient(), nil
}
