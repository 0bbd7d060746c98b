package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
)

// Shared secrets (docs/secrets.md). Each version is a signed object in the control
// plane, so every member knows which one is in force; the value is nowhere.

// What tokens for secrets name (docs/format.md "Tokens"): the store as a connector
// of its own, and the secret's name as the resource.
const (
	SecretInstance   fcp.CanonicalID = "secrets"
	SecretCapability fcp.CanonicalID = "store.secrets"
	OperationUse     fcp.CanonicalID = "secret.use" // risky: always on record
)

func secretKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	s, err := authority.OpenSecret(ev.Content.Body)
	if err != nil || s.Zone() != ev.From.Feed.Zone {
		return nil
	}
	id := s.ID()
	return binary.BigEndian.AppendUint64(append(key, id[:]...), s.Number())
}

func secretRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	s, err := authority.OpenSecret(body)
	if err != nil {
		return "", nil, err
	}
	return s.Name(), map[string]any{"id": secretText(s.ID()), "version": s.Number(), "value": s.Value(), "threshold": s.Threshold(),
		"shares": len(s.Holders()), "reason": string(s.Reason()), "issued": s.IssuedAt(), "ref": s.Ref().String()}, nil
}

func secretText(id authority.SecretID) string { return hex.EncodeToString(id[:]) }

// SecretState is one secret as this node sees it.
type SecretState struct {
	Zone      fcp.ZoneID
	ID        authority.SecretID
	Name      string
	Version   uint64 // of the sharing, from 1
	Value     uint64 // counts the values; a resharing keeps it
	Threshold int    // 0: removed
	Holders   []fcp.WriterID
	Lost      []fcp.WriterID // holders that were revoked since: share it again without them
	Reason    authority.SecretReason
	Issued    time.Time
	Ref       fcp.Hash
	Halted    error // two versions of one number; nobody gives a share out
}

// Removed reports whether the secret has no shares any more.
func (s *SecretState) Removed() bool { return s.Reason == authority.SecretRemoved }

// secretVersions reads the versions of a zone's secrets that somebody with the right
// signed.
func (e *Engine) secretVersions(f *ZoneFacts) (map[authority.SecretID]*authority.Versions[*authority.Secret], error) {
	out := map[authority.SecretID]*authority.Versions[*authority.Secret]{}
	err := e.records(f.Zone, projSecrets, func(body []byte) error {
		u, err := authority.OpenSecret(body)
		if err != nil {
			return err
		}
		s, err := u.Authorize(&f.Authorities)
		if err != nil {
			return nil // kept, because the right may still arrive, and without effect
		}
		v := out[s.ID()]
		if v == nil {
			v = new(authority.Versions[*authority.Secret])
			out[s.ID()] = v
		}
		v.Add(s)
		return nil
	})
	return out, err
}

// Secrets returns the secrets of a zone, by name, removed ones too.
func (e *Engine) Secrets(zone fcp.ZoneID) ([]SecretState, error) {
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return nil, err
	}
	all, err := e.secretVersions(f)
	if err != nil {
		return nil, err
	}
	revoked, err := e.revokedWriters()
	if err != nil {
		return nil, err
	}
	var out []SecretState
	for _, v := range all {
		s, _, err := v.Current()
		state := viewSecret(s, revoked)
		state.Halted = err
		out = append(out, state)
	}
	slices.SortFunc(out, func(a, b SecretState) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return out, nil
}

// ViewSecret describes a version of a secret by what it says itself.
func ViewSecret(s *authority.Secret) SecretState { return viewSecret(s, nil) }

func viewSecret(s *authority.Secret, revoked map[fcp.WriterID]bool) SecretState {
	out := SecretState{Zone: s.Zone(), ID: s.ID(), Name: s.Name(), Version: s.Number(), Value: s.Value(), Threshold: s.Threshold(),
		Holders: s.Holders(), Reason: s.Reason(), Issued: s.IssuedAt(), Ref: s.Ref()}
	for _, w := range out.Holders {
		if revoked[w] {
			out.Lost = append(out.Lost, w)
		}
	}
	return out
}

// findSecret returns the version of a secret that is in force, by name or by id in
// hex; with halted it returns the highest one of a forked secret too, for whoever
// settles it. Errors: CodeNotFound, CodeGuess for a name that several have, that of a
// fork.
func (e *Engine) findSecret(f *ZoneFacts, name string, halted bool) (*authority.Secret, error) {
	all, err := e.secretVersions(f)
	if err != nil {
		return nil, err
	}
	var found []*authority.Secret
	var fault error
	for id, v := range all {
		s, _, err := v.Current()
		if s.Removed() && err == nil {
			continue
		}
		if secretText(id) == name { // before all names, so that none can stand in its way
			found, fault = []*authority.Secret{s}, err
			break
		}
		if s.Name() == name {
			found, fault = append(found, s), err
		}
	}
	switch {
	case len(found) == 0:
		return nil, fcp.Errorf(fcp.CodeNotFound, "no secret %s in %s", name, f.Zone).WithNext("list the secrets with `fcpctl secret ls`")
	case len(found) > 1:
		return nil, fcp.Errorf(fcp.CodeGuess, "%d secrets are called %s", len(found), name).WithNext("name it by its id, see `fcpctl secret ls`")
	case fault != nil && !halted:
		return nil, fcp.Wrap(fcp.CodeDenied, fault, "secret %s", name)
	}
	return found[0], nil
}

// PutSecretRequest says what is to be shared, and among whom.
type PutSecretRequest struct {
	Zone      fcp.ZoneID // "": DefaultZone
	Name      string
	Value     []byte         // 1 to authority.MaxSecret bytes; the caller wipes it. Not of a resharing
	Threshold int            // 0: more than half of the holders; of a rotation or resharing, as before where it can be, unless there was one holder and now are more
	Holders   []fcp.WriterID // nil: every device that has the zone's keys and is not revoked
	Without   []fcp.WriterID // of those, none of these
	DryRun    bool
}

// PutSecret shares a new secret. Errors: CodeConflict when one of that name is there,
// CodeDenied for a key that may not, CodeInvalidArgument, CodeTooLarge,
// CodeNotFound for a holder that cannot be one.
func (e *Engine) PutSecret(ctx context.Context, by authority.AdminKey, q PutSecretRequest) (SecretState, error) {
	f, err := e.secretFacts(&q)
	if err != nil {
		return SecretState{}, err
	}
	if _, err := e.findSecret(f, q.Name, true); fcp.CodeOf(err) != fcp.CodeNotFound {
		if err == nil {
			err = fcp.Errorf(fcp.CodeConflict, "there is a secret %s in %s", q.Name, f.Zone).WithNext("give it another value with --rotate, or choose another name")
		}
		return SecretState{}, err
	}
	spec := authority.SecretSpec{Zone: f.Zone, Name: q.Name, Version: 1, Value: 1, Reason: authority.SecretPut}
	if _, err := io.ReadFull(e.env.Rand, spec.ID[:]); err != nil {
		return SecretState{}, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a secret's id")
	}
	return e.shareSecret(ctx, f, by, &q, spec, nil, q.Value)
}

// RotateSecret gives a secret another value, with shares of its own. It also settles
// a fork. Errors are those of PutSecret, and CodeNotFound.
func (e *Engine) RotateSecret(ctx context.Context, by authority.AdminKey, q PutSecretRequest) (SecretState, error) {
	f, err := e.secretFacts(&q)
	if err != nil {
		return SecretState{}, err
	}
	s, err := e.findSecret(f, q.Name, true)
	if err != nil {
		return SecretState{}, err
	}
	spec := nextSecret(s, authority.SecretRotated)
	spec.Value++
	return e.shareSecret(ctx, f, by, &q, spec, s, q.Value)
}

// ReshareSecret gives the same value new shares, on another polynomial, so that those
// before go with none of them, and devices give only the newest out. It takes
// Threshold shares of the old sharing from this device and from sources. Errors are
// those of UseSecret and PutSecret.
func (e *Engine) ReshareSecret(ctx context.Context, by authority.AdminKey, q PutSecretRequest, sources ShareSource) (out SecretState, err error) {
	f, err := e.secretFacts(&q)
	if err != nil {
		return out, err
	}
	s, err := e.findSecret(f, q.Name, false)
	if err != nil {
		return out, err
	}
	spec := nextSecret(s, authority.SecretReshared)
	if q.DryRun {
		return e.shareSecret(ctx, f, by, &q, spec, s, nil)
	}
	_, err = e.UseSecret(ctx, SecretUse{Zone: f.Zone, Name: q.Name, By: by, Purpose: "reshare", Sources: sources}, func(value []byte) error {
		out, err = e.shareSecret(ctx, f, by, &q, spec, s, value)
		return err
	})
	return out, err
}

// RemoveSecret ends a secret: no device gives a share of it out any more. Its sealed
// shares stay in the log.
func (e *Engine) RemoveSecret(ctx context.Context, by authority.AdminKey, zone fcp.ZoneID, name string, dryRun bool) (SecretState, error) {
	q := PutSecretRequest{Zone: zone}
	f, err := e.secretFacts(&q)
	if err != nil {
		return SecretState{}, err
	}
	s, err := e.findSecret(f, name, true)
	if err != nil {
		return SecretState{}, err
	}
	body, err := authority.RemoveSecret(e.env.Now(), by, nextSecret(s, authority.SecretRemoved))
	if err != nil {
		return SecretState{}, err
	}
	return e.appendSecret(ctx, f, body, dryRun)
}

func (e *Engine) secretFacts(q *PutSecretRequest) (*ZoneFacts, error) {
	if q.Zone == "" {
		q.Zone = DefaultZone
	}
	f, err := e.ZoneFacts(q.Zone)
	if err == nil {
		err = f.Halted
	}
	return f, err
}

// nextSecret returns the spec of the version that follows s.
func nextSecret(s *authority.Secret, why authority.SecretReason) authority.SecretSpec {
	return authority.SecretSpec{Zone: s.Zone(), ID: s.ID(), Name: s.Name(), Version: s.Number() + 1, Value: s.Value(), Prev: s.Ref(), Reason: why}
}

// shareSecret finds the holders, seals their shares and appends the version. A nil
// value is that of a dry run.
func (e *Engine) shareSecret(ctx context.Context, f *ZoneFacts, by authority.AdminKey, q *PutSecretRequest, spec authority.SecretSpec, before *authority.Secret, value []byte) (SecretState, error) {
	var err error
	if spec.Recipients, err = e.secretHolders(q); err != nil {
		return SecretState{}, err
	}
	if spec.KEM, err = e.kemOf(f.Zone); err != nil {
		return SecretState{}, err
	}
	n := len(spec.Recipients)
	spec.Threshold = q.Threshold
	// What was whole on the only device there was is not to be whole on each of several.
	grew := before != nil && len(before.Holders()) == 1 && n > 1
	if spec.Threshold == 0 && before != nil && before.Threshold() <= n && !grew {
		spec.Threshold = before.Threshold()
	}
	if spec.Threshold == 0 {
		spec.Threshold = n/2 + 1
	}
	if value == nil && q.DryRun {
		value = []byte{0}
	}
	body, err := authority.SealSecret(e.env.Rand, e.env.Now(), by, spec, value)
	if err != nil {
		return SecretState{}, err
	}
	return e.appendSecret(ctx, f, body, q.DryRun)
}

// secretHolders returns the devices that are to have a share.
func (e *Engine) secretHolders(q *PutSecretRequest) (out []authority.Recipient, err error) {
	all, err := e.holders(q.Zone, fcp.WriterID{})
	if err != nil {
		return nil, err
	}
	byID := map[string]authority.Recipient{}
	for _, r := range all {
		byID[r.ID()] = r
	}
	if q.Holders != nil {
		all = nil
		for _, w := range q.Holders {
			r, ok := byID[w.String()]
			if !ok {
				return nil, fcp.Errorf(fcp.CodeNotFound, "device %.16s is no member of %s, or was revoked", w, q.Zone).WithNext("list the devices with `fcpctl device ls`")
			}
			all = append(all, r)
		}
	}
	for _, r := range all {
		if !slices.ContainsFunc(q.Without, func(w fcp.WriterID) bool { return w.String() == r.ID() }) {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "no device is left to hold a share")
	}
	return out, nil
}

// appendSecret appends a version that was just signed, when its signer has the right.
func (e *Engine) appendSecret(ctx context.Context, f *ZoneFacts, body []byte, dryRun bool) (SecretState, error) {
	u, err := authority.OpenSecret(body)
	if err != nil {
		return SecretState{}, err
	}
	s, err := u.Authorize(&f.Authorities)
	if err != nil {
		return SecretState{}, err
	}
	if !dryRun {
		if _, err := e.AppendSigned(ctx, f.Zone, fcp.KindSecretShared, body); err != nil {
			return SecretState{}, err
		}
	}
	return ViewSecret(s), nil
}
