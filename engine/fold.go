package engine

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// slotTable says which slot byte each projection's keys have in this state, and
// in which version they were folded.
type slotTable struct {
	bySlot map[byte]string
	byName map[string]*slotRecord
}

// slotRecord is stored under metaSlot, one for each projection name:
// u8 serving slot, u32be version, u8 building slot (0: none), u32be version.
type slotRecord struct {
	slot         byte
	version      uint32
	building     byte
	buildVersion uint32
}

const slotRecordSize = 10

func (r *slotRecord) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, r.slot), r.version)
	return binary.BigEndian.AppendUint32(append(b, r.building), r.buildVersion)
}

func decodeSlot(b []byte) (slotRecord, error) {
	if len(b) != slotRecordSize || b[0] == 0 {
		return slotRecord{}, fcp.Errorf(fcp.CodeCorrupt, "a projection's slot record does not decode")
	}
	return slotRecord{slot: b[0], version: binary.BigEndian.Uint32(b[1:]), building: b[5], buildVersion: binary.BigEndian.Uint32(b[6:])}, nil
}

func (t *slotTable) serving(name string) byte { return t.byName[name].slot }

// free returns the least unused slot byte. There are far fewer projections than
// slots.
func (t *slotTable) free() byte {
	for s := byte(1); ; s++ {
		if _, used := t.bySlot[s]; !used {
			return s
		}
	}
}

// active is one projection with the slot it writes to.
type active struct {
	Projection
	slot   byte
	planes fcp.PlaneSet
}

// folder folds events into one state store. The live engine has one; a rebuild
// and a slow as-of read have one each over a state of their own. Apply and
// everything below it run in one goroutine at a time.
type folder struct {
	log   *log.Log
	st    *state.Store
	list  []Projection
	owner authority.OwnerPublic // whose signature makes a revocation one

	mu       sync.RWMutex // guards the fields below against readers; Apply writes
	slots    slotTable
	active   []active
	routes   [][]*active // by kind: those of active that it may touch; nil: to be made; owned by Apply
	sources  []*Source   // by feed number - 1
	zones    map[fcp.ZoneID]uint16
	zoneText []fcp.ZoneID // by zone number - 1
	cuts     authority.Cuts

	position atomic.Uint64 // the state reflects every event up to it
	update   func(position uint64, fn func(*state.Writer) error) error

	fold   Fold                // owned by Apply
	ev     Event               // owned by Apply
	staged [stageEvents]staged // owned by Apply
	keyBuf []byte              // of their keys; owned by Apply
	keys   [][]byte            // all of them; owned by Apply

	keysChanged bool // a zone key manifest was folded; owned by Apply
	forgetting  bool // an order to forget was folded; owned by Apply

	governing bool // something that ZoneFacts depends on was folded; owned by Apply

	governed atomic.Uint64 // counts the groups with something that ZoneFacts depends on
}

// newFolder reads the meta records of the state and gives slots to projections
// that have none.
func newFolder(l *log.Log, st *state.Store, list []Projection, owner authority.OwnerPublic) (*folder, error) {
	d := &folder{log: l, st: st, list: list, owner: owner, zones: map[fcp.ZoneID]uint16{},
		slots: slotTable{bySlot: map[byte]string{}, byName: map[string]*slotRecord{}}}
	d.position.Store(st.Cursor())
	d.update = st.Update
	d.fold.slots = &d.slots
	d.fold.history = d.inHistory
	if err := st.Scan([]byte{0, 0, metaZone}, []byte{0, 0, metaZone + 1}, d.loadZone); err != nil {
		return nil, err
	}
	if err := st.Scan([]byte{0, 0, metaSlot}, []byte{0, 0, metaSlot + 1}, d.loadSlot); err != nil {
		return nil, err
	}
	if err := d.assignSlots(); err != nil {
		return nil, err
	}
	return d, d.loadCuts()
}

func (d *folder) loadZone(key []byte, v state.Value) (bool, error) {
	if len(v.Local) != 2 {
		return false, fcp.Errorf(fcp.CodeCorrupt, "a zone's number in the state does not decode")
	}
	no := binary.BigEndian.Uint16(v.Local)
	zone := fcp.ZoneID(key[keyPrefix:])
	d.zones[zone] = no
	for len(d.zoneText) < int(no) {
		d.zoneText = append(d.zoneText, "")
	}
	d.zoneText[no-1] = zone
	return true, nil
}

func (d *folder) loadSlot(key []byte, v state.Value) (bool, error) {
	r, err := decodeSlot(v.Local)
	if err != nil {
		return false, err
	}
	name := string(key[keyPrefix:])
	d.slots.byName[name] = &r
	d.slots.bySlot[r.slot] = name
	if r.building != 0 {
		d.slots.bySlot[r.building] = name
	}
	return true, nil
}

// assignSlots gives a slot to each new projection and decides which version of
// each serves. A name may be in the list in several versions: the highest is the
// wanted one, and the stored one, if it is there, serves until the wanted one is
// built. A name whose stored version this build does not have is inactive until
// then (see rebuildChanged).
func (d *folder) assignSlots() error {
	var fresh []string
	for _, p := range d.list {
		r := d.slots.byName[p.Name()]
		if r == nil {
			r = &slotRecord{slot: d.slots.free(), version: d.wanted(p.Name()).Version()}
			d.slots.byName[p.Name()], d.slots.bySlot[r.slot] = r, p.Name()
			fresh = append(fresh, p.Name())
			if d.position.Load() > 0 { // the state is older than the projection
				r.version = 0
			}
		}
		if r.version == p.Version() {
			d.active = append(d.active, active{p, r.slot, p.Planes()})
		}
	}
	return d.saveSlots(fresh)
}

// wanted returns the highest version of a projection in the list.
func (d *folder) wanted(name string) (best Projection) {
	for _, p := range d.list {
		if p.Name() == name && (best == nil || p.Version() > best.Version()) {
			best = p
		}
	}
	return best
}

func (d *folder) saveSlots(names []string) error {
	if len(names) == 0 {
		return nil
	}
	return d.st.Update(d.position.Load(), func(w *state.Writer) error {
		for _, name := range names {
			if err := w.Set(metaKey(metaSlot, name), nil, d.slots.byName[name].appendTo(nil)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Apply folds one durable group, in position order.
func (d *folder) Apply(events []log.Applied) error {
	if len(events) == 0 {
		return nil
	}
	last := events[len(events)-1].Position
	err := d.update(last, func(w *state.Writer) error {
		d.fold.store = w
		for len(events) > 0 {
			n := min(len(events), stageEvents)
			if err := d.stageKeys(w, events[:n]); err != nil {
				return err
			}
			for i := range n {
				if err := d.one(&events[i], &d.staged[i]); err != nil {
					return err
				}
			}
			events = events[n:]
		}
		return nil
	})
	if err == nil {
		d.position.Store(last)
		if d.governing {
			d.governing = false
			d.governed.Add(1)
		}
	}
	return err
}

// stageEvents is the number of events whose keys are looked for at once: enough to
// keep the memory busy, few enough to stay in the cache until they are folded.
const stageEvents = 32

// staged is one event with the keys it touches.
type staged struct {
	src  *Source
	keys [][]byte // in step with the event's route; an empty one touches nothing
}

// stageKeys finds the keys that events touch and fetches the memory where they are
// looked up, all at once instead of one after the other.
func (d *folder) stageKeys(w *state.Writer, events []log.Applied) error {
	buf, all := d.keyBuf[:0], d.keys[:0]
	for i := range events {
		a, s := &events[i], &d.staged[i]
		src, err := d.source(a.Feed)
		if err != nil {
			return err
		}
		s.src, s.keys = src, s.keys[:0]
		d.ev = Event{a, src}
		for _, p := range d.route(a.Content.Kind) {
			from := len(buf)
			if p.planes.Has(src.Feed.Plane) {
				if key := p.Touches(&d.ev, appendPrefix(buf, src.zone, p.slot)); key != nil {
					buf = key
				}
			}
			s.keys = append(s.keys, buf[from:len(buf):len(buf)])
		}
		all = append(all, s.keys...)
	}
	w.Fetch(all)
	d.keyBuf, d.keys = buf, all
	return nil
}

// one folds one event. An error stops the store, so whatever a writer elsewhere
// can put into an event must not lead to one.
func (d *folder) one(a *log.Applied, s *staged) error {
	src := s.src
	src.seq, src.hash = a.Seq, a.Hash
	d.ev = Event{a, src}
	if src.void != 0 && a.Seq >= src.void && !d.standsAboveCuts(&a.Content) {
		return nil
	}
	if a.Content.Kind == fcp.KindZoneKeyManifest {
		d.keysChanged = true
	}
	f := &d.fold
	f.zone = src.zone
	for i, p := range d.route(a.Content.Kind) {
		if key := s.keys[i]; len(key) > 0 {
			if err := p.Apply(f, &d.ev, key); err != nil {
				return err
			}
		}
	}
	if governs[a.Content.Kind] {
		d.governing = true
	}
	switch a.Content.Kind {
	case fcp.KindRevocationIssued:
		return d.revoke(&d.ev)
	case fcp.KindForkProven:
		return d.forked(&d.ev)
	case fcp.KindObjectForgotten:
		d.forgetting = true
	}
	return nil
}

// oneKind is a projection that only events of one kind touch.
type oneKind interface{ Kind() fcp.Kind }

// route returns the active projections that an event of the kind may touch, so
// that most events ask two or three of them and not all.
func (d *folder) route(kind fcp.Kind) []*active {
	if d.routes == nil {
		d.routes = make([][]*active, 1<<8)
		for k := range d.routes {
			for i := range d.active {
				p := &d.active[i]
				if one, ok := p.Projection.(oneKind); p.planes != 0 && (!ok || one.Kind() == fcp.Kind(k)) {
					d.routes[k] = append(d.routes[k], p)
				}
			}
		}
	}
	return d.routes[kind]
}

// standsAboveCuts reports whether an event counts whatever its feed's cut says.
// The owner's revocations, orders to forget, checkpoints and proofs of forks stand by the
// signatures inside them alone: if a cut could void a revocation, the order of two of them would
// decide. An admin's revocation cuts nothing, so a cut can void it: what is signed
// with the key of a lost device counts no more.
func (d *folder) standsAboveCuts(c *fcp.Content) bool {
	if c.Kind == fcp.KindRevocationIssued {
		_, err := authority.VerifyRevocation(d.owner, bytes.Clone(c.Body))
		return err == nil
	}
	return c.Kind == fcp.KindCheckpointSigned || c.Kind == fcp.KindForkProven || c.Kind == fcp.KindObjectForgotten
}

// source returns what is known about a feed, and gives its zone a number when it
// is new. It runs inside an Update.
func (d *folder) source(no log.FeedNo) (*Source, error) {
	if i := int(no) - 1; i < len(d.sources) && i >= 0 && d.sources[i] != nil {
		return d.sources[i], nil
	}
	feed := d.log.Feed(no)
	if feed.Zone == "" || no == 0 {
		return nil, fcp.Errorf(fcp.CodeInternal, "an event of feed %d, which the log does not know", no)
	}
	zone, ok := d.zones[feed.Zone]
	if !ok {
		if len(d.zoneText) >= 1<<16-1 {
			return nil, fcp.Errorf(fcp.CodeExhausted, "a store holds at most %d zones", 1<<16-1)
		}
		zone = uint16(len(d.zoneText) + 1)
		err := d.fold.Set(metaKey(metaZone, string(feed.Zone)), nil, binary.BigEndian.AppendUint16(nil, zone))
		if err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !ok {
		d.zones[feed.Zone] = zone
		d.zoneText = append(d.zoneText, feed.Zone)
	}
	for len(d.sources) < int(no) {
		d.sources = append(d.sources, nil)
	}
	s := &Source{Feed: feed, ID: feed.ID(), No: no, zone: zone, void: d.voidFrom(feed)}
	d.sources[no-1] = s
	return s, nil
}

// knowHeads takes the feeds' heads from the log, for a state that is at its end.
func (d *folder) knowHeads() error {
	for _, f := range d.log.Feeds() {
		s, err := d.source(f.No)
		if err != nil {
			return err
		}
		s.seq, s.hash = f.Seq, f.Hash
	}
	return nil
}

// voidFrom returns the first void sequence number of a feed, 0 for none.
func (d *folder) voidFrom(feed fcp.Feed) uint64 {
	return d.cuts.VoidFrom(feed)
}

// zoneNumber returns the number of a zone in this state.
func (d *folder) zoneNumber(zone fcp.ZoneID) (uint16, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n, ok := d.zones[zone]
	return n, ok
}

// zoneList returns the zones with their numbers, ascending by text.
func (d *folder) zoneList() []fcp.ZoneID {
	d.mu.RLock()
	defer d.mu.RUnlock()
	out := slices.Clone(d.zoneText)
	slices.Sort(out)
	return out
}

// slot returns the serving slot of a projection.
func (d *folder) slot(name string) byte {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.slots.serving(name)
}

func (d *folder) writerOf(no log.FeedNo) fcp.WriterID {
	d.mu.RLock()
	if i := int(no) - 1; i >= 0 && i < len(d.sources) && d.sources[i] != nil {
		w := d.sources[i].Feed.Writer
		d.mu.RUnlock()
		return w
	}
	d.mu.RUnlock()
	return d.log.Feed(no).Writer
}

// upperBound returns the first key behind every key that begins with prefix.
func upperBound(prefix []byte) []byte {
	out := slices.Clone(prefix)
	for i := len(out) - 1; i >= 0; i-- {
		out[i]++
		if out[i] != 0 {
			return out[:i+1]
		}
	}
	return nil
}

// inHistory looks through the newest entries of a name's history.
func (d *folder) inHistory(prefix []byte, h *fcp.Hash) bool {
	// The entries written in the open group are not visible to Scan; a false
	// "not seen" only costs an entry in the record.
	var r nameRecord
	found, left := false, maxSeenScan
	d.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
		if err := r.decodeHistory(v); err != nil {
			return false, err
		}
		_, found = r.find(h)
		left--
		return !found && left > 0, nil
	})
	return found
}
