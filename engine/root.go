package engine

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
)

// Purpose strings of the roots.
const (
	zoneRootPurpose  = "FCP2-ZONE-ROOT-V1"
	stateRootPurpose = "FCP2-STATE-ROOT-V1"
)

// ZoneRoot returns the digest of everything that control events determine in a
// zone. Two nodes that hold the same set of the zone's control events have the
// same zone root, whatever the order of arrival, whatever else they hold
// (docs/format.md "Zone root"):
//
//	SHA-256("FCP2-ZONE-ROOT-V1" || u8 length, zone
//	   || u32be number of projections
//	   || for each projection of scope zone, ascending by name:
//	        u8 length, name || u32be version || digest[32]
//	   || u32be number of feeds
//	   || for each control feed of the zone with events, ascending by feed id:
//	        feed id[32] || u64be last seq || hash[32] of that event)
//
// A projection's digest is package state's range digest over its keys in the
// zone, without the three bytes of prefix, and the canonical parts of its values.
// The names' canonical part is the list of head hashes; positions, places and
// whatever else is local are in no canonical part. Void events are in the feed
// heads, because both nodes hold them, and in nothing else. CodeZone for a zone
// without events here.
func (e *Engine) ZoneRoot(zone fcp.ZoneID) (fcp.Hash, error) {
	// The first pass does the work while events go on being folded; the second
	// has only what changed meanwhile to do, on a state that stands still.
	if err := e.fold.warmDigests(zone); err != nil {
		return fcp.Hash{}, err
	}
	e.gate.Lock()
	defer e.gate.Unlock()
	return e.fold.zoneRoot(zone)
}

// StateRoot returns the digest of what control and data events determine, over
// all zones (docs/format.md "State root"):
//
//	SHA-256("FCP2-STATE-ROOT-V1" || u32be number of zones || for each zone,
//	   ascending: zone root[32]
//	   || u32be number of projections || for each projection of scope data,
//	        ascending by name: u8 length, name || u32be version || digest[32]
//	   || u32be number of feeds || for each data feed of the zone, as above)
//
// What this node has not fetched is missing in it; nodes compare zone roots, a
// replay or a restore of one node compares this.
func (e *Engine) StateRoot() (fcp.Hash, error) {
	if err := e.fold.warmDigests(e.Zones()...); err != nil {
		return fcp.Hash{}, err
	}
	e.gate.Lock()
	defer e.gate.Unlock()
	return e.fold.stateRoot()
}

// rooted holds the projections of one scope, ascending by name.
func (d *folder) rooted(s Scope) []active {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []active
	for _, p := range d.active {
		if p.Scope() == s {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b active) int { return cmp.Compare(a.Name(), b.Name()) })
	return out
}

// appendDigests appends the digests of the projections of one scope in a zone.
func (d *folder) appendDigests(b []byte, zone uint16, s Scope) ([]byte, error) {
	list := d.rooted(s)
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	for _, p := range list {
		prefix := appendPrefix(nil, zone, p.slot)
		digest, err := d.st.RangeDigest(prefix, upperBound(prefix))
		if err != nil {
			return nil, err
		}
		b = append(append(b, byte(len(p.Name()))), p.Name()...)
		b = binary.BigEndian.AppendUint32(b, p.Version())
		b = append(b, digest[:]...)
	}
	return b, nil
}

// appendFeeds appends the heads, as folded, of a zone's feeds of one plane.
func (d *folder) appendFeeds(b []byte, zone uint16, plane fcp.Plane) ([]byte, error) {
	var of []authority.FeedHead
	var err error
	d.mu.RLock()
	for _, s := range d.sources {
		if s == nil || s.zone != zone || s.Feed.Plane != plane {
			continue
		}
		h := authority.FeedHead{Feed: s.ID, Seq: s.seq, Hash: s.hash}
		if fork := d.cuts.ForkOf(s.Feed); fork != 0 && h.Seq >= fork {
			// Nodes hold different branches: what counts is where they part.
			if h, err = d.headBefore(s, fork); err != nil {
				break
			}
		}
		if h.Seq > 0 || s.seq == 0 {
			of = append(of, h)
		}
	}
	d.mu.RUnlock()
	slices.SortFunc(of, func(a, b authority.FeedHead) int { return bytes.Compare(a.Feed[:], b.Feed[:]) })
	b = binary.BigEndian.AppendUint32(b, uint32(len(of)))
	for _, h := range of {
		b = append(b, h.Feed[:]...)
		b = binary.BigEndian.AppendUint64(b, h.Seq)
		b = append(b, h.Hash[:]...)
	}
	return b, err
}

// headBefore returns the head that a feed had right before an event.
func (d *folder) headBefore(s *Source, seq uint64) (authority.FeedHead, error) {
	h := authority.FeedHead{Feed: s.ID, Seq: seq - 1}
	if h.Seq == 0 {
		return h, nil
	}
	ev, _, err := d.log.ReadFull(s.No, h.Seq)
	if err == nil {
		h.Hash = ev.Hash()
	}
	return h, err
}

func (d *folder) zoneRoot(zone fcp.ZoneID) (fcp.Hash, error) {
	no, ok := d.zoneNumber(zone)
	if !ok {
		return fcp.Hash{}, fcp.Errorf(fcp.CodeZone, "%.80q has no events here", zone.String())
	}
	b := append([]byte(zoneRootPurpose), byte(len(zone)))
	b = append(b, zone...)
	b, err := d.appendDigests(b, no, ScopeZone)
	if err != nil {
		return fcp.Hash{}, err
	}
	b, err = d.appendFeeds(b, no, fcp.PlaneControl)
	return sha256.Sum256(b), err
}

func (d *folder) stateRoot() (fcp.Hash, error) {
	zones := d.zoneList()
	b := binary.BigEndian.AppendUint32([]byte(stateRootPurpose), uint32(len(zones)))
	for _, zone := range zones {
		root, err := d.zoneRoot(zone)
		if err != nil {
			return fcp.Hash{}, err
		}
		b = append(b, root[:]...)
		no, _ := d.zoneNumber(zone)
		if b, err = d.appendDigests(b, no, ScopeData); err != nil {
			return fcp.Hash{}, err
		}
		if b, err = d.appendFeeds(b, no, fcp.PlaneData); err != nil {
			return fcp.Hash{}, err
		}
	}
	return sha256.Sum256(b), nil
}

// digestOptions leave the store-local prefix out of the digests.
func digestOptions() state.DigestOptions {
	return state.DigestOptions{MapKey: func(dst, key []byte) []byte { return append(dst, key[keyPrefix:]...) }}
}

// warmDigests computes the digests of the zones on whatever is there now, so that
// the next call has little to do.
func (d *folder) warmDigests(zones ...fcp.ZoneID) error {
	for _, zone := range zones {
		no, ok := d.zoneNumber(zone)
		if !ok {
			return fcp.Errorf(fcp.CodeZone, "%.80q has no events here", zone.String())
		}
		for _, s := range []Scope{ScopeZone, ScopeData} {
			if _, err := d.appendDigests(nil, no, s); err != nil {
				return err
			}
		}
	}
	return nil
}
