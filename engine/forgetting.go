package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// Forgetting in a mesh (docs/compaction.md "Forgetting"). The owner's order is an
// event of the zone's control plane, so every member comes to hear of it. From the
// moment that it is folded nothing that it names is read here, given away or taken in
// with its key; then the keys that are on this disk are destroyed, and the member says
// so in its own feed.

func forgettingKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	f, err := authority.VerifyForgetting(owner, ev.Content.Body)
	if err != nil || f.Zone() != ev.From.Feed.Zone {
		return nil
	}
	ref := f.Ref()
	return append(key, ref[:]...)
}

func forgettingRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	f, err := authority.VerifyForgetting(owner, body)
	if err != nil {
		return "", nil, err
	}
	var objects []string
	for _, id := range f.Objects() {
		objects = append(objects, hex.EncodeToString(id[:]))
	}
	return f.Ref().String(), map[string]any{"objects": objects, "issued": f.IssuedAt()}, nil
}

// forgotten is what the owner's orders name, by zone. It does not change; nil is
// nothing.
type forgotten map[fcp.ZoneID]*forgottenZone

type forgottenZone struct {
	orders  []*authority.Forgetting
	chunked []*authority.Forgetting // of orders: those that name carriers
	objects map[fcp.ObjectID]bool
}

// add adds an order.
func (z *forgottenZone) add(o *authority.Forgetting) {
	z.orders = append(z.orders, o)
	if o.HasCarriers() {
		z.chunked = append(z.chunked, o)
	}
	if z.objects == nil {
		z.objects = map[fcp.ObjectID]bool{}
	}
	for _, id := range o.Objects() {
		z.objects[id] = true
	}
}

// object reports whether an object is to be forgotten, whatever carries it.
func (f forgotten) object(zone fcp.ZoneID, id fcp.ObjectID) bool {
	z := f[zone]
	return z != nil && z.objects[id]
}

// covers reports whether the key of an event's body is to be destroyed.
func (f forgotten) covers(feed fcp.Feed, seq uint64, object fcp.ObjectID) bool {
	z := f[feed.Zone]
	return z != nil && (z.objects[object] || slices.ContainsFunc(z.chunked, func(o *authority.Forgetting) bool { return o.Carries(feed, seq) }))
}

// mask puts ForgottenSalt in the place of each salt of a segment that is to be
// forgotten, and reports whether that changed one.
func (f forgotten) mask(r *log.Remainder, salts []byte) (changed bool) {
	feed := r.Feed()
	if f[feed.Zone] == nil {
		return false
	}
	for i, off := range r.Seqs {
		at := off * log.SaltSize
		if at+log.SaltSize > uint64(len(salts)) || !f.covers(feed, r.First+off, fcp.ObjectID(r.Objects[i*fcp.HashSize:][:fcp.HashSize])) {
			continue
		}
		if s := salts[at:][:log.SaltSize]; !bytes.Equal(s, log.ForgottenSalt[:]) {
			copy(s, log.ForgottenSalt[:])
			changed = true
		}
	}
	return changed
}

// forgets returns what is to be forgotten as of now.
func (e *Engine) forgets() forgotten {
	if f := e.forgotten.Load(); f != nil {
		return *f
	}
	return nil
}

// loadForgettings reads the orders out of the state.
func (e *Engine) loadForgettings() error {
	out := forgotten{}
	for _, zone := range e.Zones() {
		err := e.records(zone, projForgettings, func(body []byte) error {
			o, ok := e.mesh.orders.get(body)
			if !ok {
				var err error
				if o, err = authority.VerifyForgetting(e.genesis.Owner, body); err != nil {
					return err
				}
				e.mesh.orders.put(body, o)
			}
			if out[zone] == nil {
				out[zone] = &forgottenZone{}
			}
			out[zone].add(o)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(out) > 0 {
		e.forgotten.Store(&out)
	}
	return nil
}

// importForgetting imports events without the keys of what is to be forgotten, also of
// what an order names that was folded meanwhile.
func (e *Engine) importForgetting(ctx context.Context, events []fcp.Event, salts [][log.SaltSize]byte) (taken int, err error) {
	before := e.forgotten.Load()
	if known := e.forgets(); known != nil {
		salts = slices.Clone(salts)
		for i := range events {
			if known.covers(events[i].Feed, events[i].Seq, events[i].Object) && len(events[i].Body) > 0 && !events[i].Kind.Info().Clear {
				salts[i] = log.ForgottenSalt
			}
		}
	}
	taken, err = e.log.Import(ctx, events, salts)
	if e.forgotten.Load() == before || taken == 0 {
		return taken, err
	}
	no, _ := e.log.FeedNo(events[0].Feed)
	var places []log.Place
	for i := range events[:taken] {
		if ev := &events[i]; e.forgets().covers(ev.Feed, ev.Seq, ev.Object) && len(ev.Body) > 0 && !ev.Kind.Info().Clear {
			places = append(places, log.Place{Feed: no, Seq: ev.Seq})
		}
	}
	return taken, errors.Join(err, e.log.ForgetSalts(ctx, places))
}

// ForgetOrder is an order of the owner to forget, and how far the members of its zone
// are with it.
type ForgetOrder struct {
	Ref     fcp.Hash
	Zone    fcp.ZoneID
	Objects []fcp.ObjectID
	At      time.Time // when it was signed, to the second
	Here    bool      // this node destroyed its keys and said so
	Members []ForgetMember
}

// ForgetMember is another device that holds the zone's keys and was not taken out.
type ForgetMember struct {
	Writer fcp.WriterID
	Name   string
	Done   bool // it said that it destroyed its keys
}

// ForgetOrders returns the owner's orders to forget in a zone, by time and hash, each
// with the other members by name.
func (e *Engine) ForgetOrders(zone fcp.ZoneID) ([]ForgetOrder, error) {
	orders, acks, err := e.ordersAndAcks(zone)
	if err != nil || orders == nil {
		return nil, err
	}
	members, err := e.zoneMembers(zone)
	if err != nil {
		return nil, err
	}
	out := make([]ForgetOrder, len(orders))
	for i, o := range orders {
		out[i] = ForgetOrder{Ref: o.Ref(), Zone: zone, Objects: o.Objects(), At: o.IssuedAt(), Here: acks[e.node.Writer()][o.Ref()]}
		for _, d := range members {
			out[i].Members = append(out[i].Members, ForgetMember{d.Writer(), d.Name(), acks[d.Writer()][o.Ref()]})
		}
		slices.SortStableFunc(out[i].Members, func(a, b ForgetMember) int { return cmp.Compare(a.Name, b.Name) })
	}
	slices.SortFunc(out, func(a, b ForgetOrder) int {
		return cmp.Or(a.At.Compare(b.At), bytes.Compare(a.Ref[:], b.Ref[:]))
	})
	return out, nil
}

// ordersAndAcks returns the orders of a zone, and who said of which that it carried it
// out.
func (e *Engine) ordersAndAcks(zone fcp.ZoneID) (orders []*authority.Forgetting, acks map[fcp.WriterID]map[fcp.Hash]bool, err error) {
	z := e.forgets()[zone]
	if z == nil {
		return nil, nil, nil
	}
	acks, err = e.deletionAcks(zone)
	return z.orders, acks, err
}

// CarryOutForgettings destroys what is here of what the owner ordered to be forgotten,
// and acknowledges it in this node's feed; what was acknowledged once is not looked for
// again. It returns how many orders were carried out. Neither a backup nor a
// compaction runs meanwhile.
func (e *Engine) CarryOutForgettings(ctx context.Context) (done int, err error) {
	for _, zone := range e.Zones() {
		pending, err := e.pendingForgettings(zone)
		if err != nil {
			return done, err
		}
		if len(pending) == 0 {
			continue
		}
		e.maintenance.Lock()
		e.holds.begin()
		err = e.carryOut(ctx, zone, pending)
		e.holds.end()
		e.maintenance.Unlock()
		if err != nil {
			return done, err
		}
		done += len(pending)
	}
	return done, nil
}

// pendingForgettings returns the orders of a zone that this node did not carry out.
func (e *Engine) pendingForgettings(zone fcp.ZoneID) (out []*authority.Forgetting, err error) {
	orders, acks, err := e.ordersAndAcks(zone)
	if err != nil {
		return nil, err
	}
	own := acks[e.node.Writer()]
	for _, o := range orders {
		ref := o.Ref()
		if _, silent := e.mesh.carried.get(ref[:]); !silent && !own[ref] {
			out = append(out, o)
		}
	}
	return out, nil
}

// carryOut destroys the keys that orders of a zone name, wherever they are here, and
// acknowledges them. The caller holds maintenance, and began the holds.
func (e *Engine) carryOut(ctx context.Context, zone fcp.ZoneID, orders []*authority.Forgetting) error {
	places, err := e.forgottenHere(ctx, zone, orders)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return e.log.ForgetSalts(ctx, places) },
		func() error { return e.maskKeptSalts(zone) },
		func() error { return e.maskTails(zone) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	for _, o := range orders {
		ref := o.Ref()
		if e.ring.Load().zones[zone] == nil { // it has no feed there to say so
			e.mesh.carried.put(ref[:], true)
			continue
		}
		if err := e.acknowledge(ctx, authority.DeletionAck{Zone: zone, Subject: ref}); err != nil {
			return err
		}
	}
	return nil
}

// forgottenHere finds the events of this log whose keys orders name and that are not
// destroyed yet.
func (e *Engine) forgottenHere(ctx context.Context, zone fcp.ZoneID, orders []*authority.Forgetting) (places []log.Place, err error) {
	known := forgotten{zone: {}}
	for _, o := range orders {
		known[zone].add(o)
	}
	var objects []fcp.ObjectID // in step with places
	err = e.log.Scan(ctx, log.ScanOptions{To: e.log.Durable(), Verify: log.VerifyNone, Workers: e.opts.Workers}, func(events []log.Applied) error {
		feed := e.log.Feed(events[0].Feed)
		if feed.Zone != zone {
			return nil
		}
		for i := range events {
			a := &events[i]
			if len(a.Content.Body) == 0 || a.Content.Kind.Info().Clear || !known.covers(feed, a.Seq, a.Content.Object) {
				continue
			}
			salt, err := e.log.Salt(a.Feed, a.Seq)
			if err != nil {
				return err
			}
			if salt != log.ForgottenSalt {
				places, objects = append(places, log.Place{Feed: a.Feed, Seq: a.Seq}), append(objects, a.Content.Object)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	spare, err := e.sharedChunks(ctx, zone, objects, known[zone].objects)
	if err != nil {
		return nil, err
	}
	kept := places[:0]
	for i, p := range places {
		if known[zone].objects[objects[i]] || !spare[objects[i]] && e.holds.condemn(objects[i]) {
			kept = append(kept, p)
		}
	}
	return kept, nil
}

// sharedChunks returns which of some chunks a version that is not to be forgotten has
// too, of those whose manifests are in this log: only what this node wrote goes by
// chunks of its own log.
func (e *Engine) sharedChunks(ctx context.Context, zone fcp.ZoneID, chunks []fcp.ObjectID, objects map[fcp.ObjectID]bool) (map[fcp.ObjectID]bool, error) {
	shared := map[fcp.ObjectID]bool{}
	z := e.ring.Load().zones[zone]
	if z == nil || !slices.ContainsFunc(chunks, func(id fcp.ObjectID) bool { return !objects[id] }) {
		return shared, nil
	}
	no, _ := e.fold.zoneNumber(zone)
	all := e.forgets()
	seen := map[fcp.ObjectID]bool{}
	err := e.eachVersion(ctx, no, 0, 0, func(h *head) error {
		if h.size <= fcp.ChunkSize || seen[h.object] || all.object(zone, h.object) {
			return nil
		}
		seen[h.object] = true
		if _, here, err := e.placeOf(zone, projBodies, h.object[:]); err != nil || !here {
			return err
		}
		list, err := e.chunksOf(ctx, z, Version{Feed: h.feed, Seq: h.seq, Object: h.object, Position: h.position})
		if errors.Is(err, fcp.CodeHorizon) || errors.Is(err, fcp.CodeKeyTableLost) {
			return nil
		}
		for _, id := range list {
			shared[id] = true
		}
		return err
	})
	return shared, err
}

// maskKeptSalts destroys the keys in what this node keeps of segments of others.
func (e *Engine) maskKeptSalts(zone fcp.ZoneID) error {
	err := e.DataSegments(zone, func(r *log.Remainder) error {
		id := fcp.SegmentID(r.Segment)
		if !e.KeepsSalts(id) {
			return nil
		}
		salts, err := e.readShareFile(id.String()+saltSuffix, maxSaltFile)
		if err != nil || !e.forgets().mask(r, salts) {
			return err
		}
		return e.KeepSalts(r, salts)
	})
	m := &e.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.opened.Len() > 0 { // with the salts in memory
		m.opened.Remove(m.opened.Front())
	}
	return err
}

// maskTails destroys the keys in the tails that this node keeps for others. A tail that
// it cannot open goes as a whole.
func (e *Engine) maskTails(zone fcp.ZoneID) error {
	return e.Tails(func(t *Tail) error {
		if t.Zone != zone || !e.forgets().inTail(t) {
			return nil
		}
		err := e.KeepTail(t)
		if errors.Is(err, fcp.CodeNotEnough) {
			return e.DropTail(t.Name())
		}
		return err
	})
}

// inTail reports whether a tail has an event that is to be forgotten.
func (f forgotten) inTail(t *Tail) bool {
	if f[t.Zone] == nil {
		return false
	}
	feed, seq, found := t.Feed(), t.First, false
	t.Ids(func(id fcp.ObjectID) bool {
		found = f.covers(feed, seq, id)
		seq++
		return !found
	})
	return found
}

// maskTail returns a tail without the keys of what is to be forgotten. CodeNotEnough
// when it would have to be opened and that cannot be done here.
func (e *Engine) maskTail(f forgotten, t *Tail) (*Tail, error) {
	if !f.inTail(t) {
		return t, nil
	}
	shut := func(err error) error {
		return fcp.Errorf(fcp.CodeNotEnough, "a tail holds what is to be forgotten and cannot be opened here: %w", err)
	}
	plain, err := e.openTail(t)
	if err != nil {
		return nil, shut(err)
	}
	out := &Tail{Zone: t.Zone, Writer: t.Writer, Incarnation: t.Incarnation, First: t.First, Last: t.Last, Objects: t.Objects}
	feed := t.Feed()
	err = eachInTail(plain, func(i int, _, salt []byte) (more bool) {
		id := fcp.ObjectID(t.Objects[i*fcp.HashSize:][:fcp.HashSize])
		if f.covers(feed, t.First+uint64(i), id) {
			copy(salt, log.ForgottenSalt[:])
		}
		return uint64(i) < t.Last-t.First
	})
	if err != nil {
		return nil, shut(err)
	}
	return out, e.sealTail(out, plain)
}
