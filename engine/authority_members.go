package engine

import (
	"context"
	"maps"

	"fcp"
	"fcp/authority"
)

// RevokedNodes returns the nodes that the owner took out, also those of which no
// enrollment is here: one that comes later makes no member of them.
func (e *Engine) RevokedNodes() (map[fcp.WriterID]bool, error) { return e.revokedWriters() }

// revokedWriters returns the nodes that a revocation of the owner names: one with
// a cut feed, one whose attestation is revoked, and one that is lost. A node that
// is in it gets no key any more, whatever the revocation's time.
func (e *Engine) revokedWriters() (map[fcp.WriterID]bool, error) {
	out := map[fcp.WriterID]bool{}
	for _, z := range e.Zones() {
		err := e.records(z, projRevocations, func(body []byte) error {
			if known, ok := e.mesh.revoked.get(body); ok {
				maps.Copy(out, known)
				return nil
			}
			names := map[fcp.WriterID]bool{}
			r, err := authority.OpenRevocation(e.genesis.Owner, body)
			if err != nil {
				return err
			}
			if r.Issuer() == e.genesis.Owner { // no admin takes a device out
				for _, c := range r.Cuts() {
					names[c.Feed.Writer] = true
				}
				if s := r.Scope(); s == authority.RevokeDevice || s == authority.RevokeAttestation {
					for _, t := range r.Targets() {
						names[fcp.WriterID(t)] = true
					}
				}
			}
			e.mesh.revoked.put(body, names)
			maps.Copy(out, names)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// devices returns the enrolled devices by writer, the last enrollment of each.
func (e *Engine) devices() (map[fcp.WriterID]*authority.Device, error) {
	out := map[fcp.WriterID]*authority.Device{}
	err := e.records(fcp.ZoneOwner, projDevices, func(body []byte) error {
		d, err := e.enrollment(body)
		if err == nil && (out[d.Writer()] == nil || newerEnrollment(d, out[d.Writer()])) {
			out[d.Writer()] = d
		}
		return err
	})
	return out, err
}

// holders returns whom a zone's keys are to be sealed to: the enrolled nodes that
// the zone's newest manifest names, and added besides, without those that are
// revoked.
func (e *Engine) holders(zone fcp.ZoneID, added fcp.WriterID) ([]authority.Recipient, error) {
	newest, err := e.newestManifest(zone)
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	for _, id := range newest.Recipients() {
		held[id] = true
	}
	if !added.IsZero() {
		held[added.String()] = true
	}
	revoked, err := e.revokedWriters()
	if err != nil {
		return nil, err
	}
	devices, err := e.devices()
	if err != nil {
		return nil, err
	}
	var out []authority.Recipient
	for w, d := range devices {
		if held[w.String()] && !revoked[w] {
			out = append(out, d.Recipient())
		}
	}
	return out, nil // SealManifest orders them
}

// NewestManifest returns the zone key manifest with the highest version. CodeZone for
// a zone without one here.
func (e *Engine) NewestManifest(zone fcp.ZoneID) (*authority.Manifest, error) {
	return e.newestManifest(zone)
}

// newestManifest returns the zone key manifest with the highest version.
func (e *Engine) newestManifest(zone fcp.ZoneID) (newest *authority.Manifest, err error) {
	err = e.records(zone, projManifests, func(body []byte) error { // ascending by version
		newest, err = authority.VerifyManifest(e.genesis.Owner, body)
		return err
	})
	if err == nil && newest == nil {
		err = e.unknownZone(zone)
	}
	return newest, err
}

// sealZone appends a manifest for each distinct key of the zone, the current one
// last, sealed to the members that hold the zone, and to added. It returns them.
func (e *Engine) sealZone(ctx context.Context, owner *authority.OwnerKey, zone fcp.ZoneID, added fcp.WriterID, why authority.RotationReason) ([][]byte, error) {
	z := e.ring.Load().zones[zone]
	if z == nil {
		return nil, e.unknownZone(zone)
	}
	seen := map[authority.KeyID]bool{}
	var keys []*authority.ZoneKeys
	for _, k := range z.versions { // the newest first
		if id := k.IDs().Zone; !seen[id] {
			seen[id] = true
			keys = append([]*authority.ZoneKeys{k}, keys...)
		}
	}
	return e.sealKeys(ctx, owner, zone, added, keys, why)
}

// sealKeys appends a manifest of each of the keys, in their order.
func (e *Engine) sealKeys(ctx context.Context, owner *authority.OwnerKey, zone fcp.ZoneID, added fcp.WriterID, keys []*authority.ZoneKeys, why authority.RotationReason) ([][]byte, error) {
	recipients, err := e.holders(zone, added)
	if err != nil {
		return nil, err
	}
	newest, err := e.newestManifest(zone)
	if err != nil {
		return nil, err
	}
	version, prev := newest.Version(), newest.IDs().Zone
	if e.ring.Load().byID[prev] == nil {
		return nil, errNoZoneKeys(zone)
	}
	kem, err := e.kemOf(zone)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, k := range keys {
		version++
		m, err := authority.SealManifest(e.env.Rand, e.env.Now(), owner, k, authority.ManifestSpec{
			Version: version, Prev: prev, Recovery: e.genesis.Recovery, Recipients: recipients, KEM: kem, Reason: why})
		if err != nil {
			return nil, err
		}
		if _, err := e.AppendSigned(ctx, zone, fcp.KindZoneKeyManifest, m); err != nil {
			return nil, err
		}
		out = append(out, m)
		prev = k.IDs().Zone
	}
	return out, nil
}

// kemOf returns the KEM that the zone's definition chose.
func (e *Engine) kemOf(zone fcp.ZoneID) (authority.KEM, error) {
	var v authority.Versions[*authority.Zone]
	err := e.records(zone, projZones, func(body []byte) error {
		d, err := authority.VerifyZone(e.genesis.Owner, body)
		if err == nil {
			v.Add(d)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	z, ok, err := v.Current()
	if !ok || err != nil {
		return 0, err
	}
	return z.Spec().KEM, nil
}
