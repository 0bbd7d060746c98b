package engine

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
)

// What the loss of a device asks for besides DeviceLost, and how every other device
// tells its person.

// Alert is a device that the owner declared lost. Every member that has the revocation
// raises it.
type Alert struct {
	Device fcp.WriterID
	Name   string
	At     time.Time // when the owner signed, to the second
	Reason string    // the owner's words
	Ref    fcp.Hash  // of the revocation in the owner's zone
}

// Alerts returns the devices that the owner declared lost, the newest first.
func (e *Engine) Alerts() (out []Alert, err error) {
	names := map[fcp.WriterID]string{}
	devices, err := e.devices()
	if err != nil {
		return nil, err
	}
	for w, d := range devices {
		names[w] = d.Name()
	}
	err = e.records(fcp.ZoneOwner, projRevocations, func(body []byte) error {
		r, err := authority.OpenRevocation(e.genesis.Owner, body)
		if err != nil {
			return err
		}
		if r.Issuer() != e.genesis.Owner || r.Scope() != authority.RevokeDevice {
			return nil
		}
		for _, t := range r.Targets() {
			w := fcp.WriterID(t)
			out = append(out, Alert{Device: w, Name: names[w], At: r.IssuedAt(), Reason: r.Reason(), Ref: r.Ref()})
		}
		return nil
	})
	slices.SortFunc(out, func(a, b Alert) int {
		return cmp.Or(b.At.Compare(a.At), bytes.Compare(a.Device[:], b.Device[:]), bytes.Compare(a.Ref[:], b.Ref[:]))
	})
	return out, err
}

// SecretLoss is a secret of which a lost device held a share.
type SecretLoss struct {
	Before   SecretState
	Reshared bool
	Version  uint64 // of the sharing in force now
	Err      error  // why it was not shared again
}

// ReshareAfterLoss shares each secret anew of which a device held a share, without that
// device, as far as enough shares are in reach: this device's own and those of sources.
// It goes on after one that cannot be; the result says of each how it went. A value that
// a finder may have learned is only safe when it is rotated.
func (e *Engine) ReshareAfterLoss(ctx context.Context, owner *authority.OwnerKey, device fcp.WriterID, sources ShareSource) (out []SecretLoss, err error) {
	secrets, err := e.SharedWith(device)
	if err != nil {
		return nil, err
	}
	for _, s := range secrets {
		loss := SecretLoss{Before: s, Version: s.Version}
		after, err := e.ReshareSecret(ctx, owner, PutSecretRequest{Zone: s.Zone, Name: secretText(s.ID), Without: []fcp.WriterID{device}}, sources)
		if err == nil {
			loss.Reshared, loss.Version = true, after.Version
		}
		loss.Err = err
		out = append(out, loss)
		if ctx.Err() != nil {
			return out, interrupted(ctx)
		}
	}
	return out, nil
}

// SharedWith returns the secrets of which a device holds a share, by zone and name.
func (e *Engine) SharedWith(device fcp.WriterID) (out []SecretState, err error) {
	for _, zone := range e.Zones() {
		if e.ring.Load().zones[zone] == nil {
			continue
		}
		secrets, err := e.Secrets(zone)
		if err != nil {
			return nil, err
		}
		for _, s := range secrets {
			if !s.Removed() && slices.Contains(s.Holders, device) {
				out = append(out, s)
			}
		}
	}
	return out, nil
}

// SettleAfterLoss has the owner settle the checkpoint of each zone whose members agreed
// on one before: the lost device is not among the members of the next, and what members
// signed together with it binds nobody. It returns those zones.
func (e *Engine) SettleAfterLoss(ctx context.Context, owner *authority.OwnerKey) (zones []fcp.ZoneID, err error) {
	for _, zone := range e.Zones() {
		if e.ring.Load().zones[zone] == nil {
			continue
		}
		f, err := e.ZoneFacts(zone)
		if err != nil {
			return zones, err
		}
		if f.Checkpoint.Last == nil {
			continue
		}
		if _, err := e.SettleCheckpoint(ctx, owner, zone); err != nil {
			return zones, err
		}
		zones = append(zones, zone)
	}
	return zones, nil
}
