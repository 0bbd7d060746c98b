package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"fcp"
	"fcp/node/placement"
)

// Profile is what a device says of itself. It is shown, and the device's own
// pre-staging goes by it; nothing that concerns others does.
type Profile struct {
	Cores   uint64 `cbor:"cores,omitempty" json:"cores,omitempty"`
	Memory  uint64 `cbor:"memory,omitempty" json:"memory,omitempty"` // bytes
	Power   Power  `cbor:"power,omitempty" json:"power,omitempty"`
	Charge  uint64 `cbor:"charge,omitempty" json:"charge,omitempty"`   // of the battery, percent
	Metered bool   `cbor:"metered,omitempty" json:"metered,omitempty"` // its network costs by volume
}

// Power says where a device has its power from.
type Power string

// The values of Power. A device that cannot tell says nothing.
const (
	PowerMains   Power = "mains"
	PowerBattery Power = "battery"
)

func (p *Profile) ok() bool {
	return p.Cores < 1<<20 && p.Memory < 1<<53 && p.Charge <= 100 && (p.Power == "" || p.Power == PowerMains || p.Power == PowerBattery)
}

// Thrifty reports whether the device should fetch nothing that nobody waits for.
func (p *Profile) Thrifty() bool { return p.Metered || p.Power == PowerBattery }

// profile is what this device says of itself now.
func (n *Node) profile() (p Profile) {
	if n.opt.Profile != nil {
		if p = n.opt.Profile(); !p.ok() {
			return Profile{}
		}
	}
	return p
}

// Contact is a member and when it was there.
type Contact struct {
	Writer  fcp.WriterID
	Name    string
	Class   placement.Class // by the owner's word
	Site    string
	Revoked bool
	Self    bool
	Session bool      // this node has a session with it
	Up      bool      // it is there: a session, or others see it
	Since   time.Time // since when it is there, as far as is known; zero when it is not
	// Seen is when it was there last: now while it is. Of one that this node never met
	// it is when this node first heard of it.
	Seen    time.Time
	Profile Profile
}

// Contacts returns every member, in the order of enrollment.
func (n *Node) Contacts() []Contact {
	devices, presence, now := n.devices(), n.Presence(), n.now()
	out := make([]Contact, len(devices))
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range devices {
		d := &devices[i]
		p := presence[d.ID]
		c := Contact{Writer: d.ID, Name: n.memberName(d.ID), Class: d.Class, Site: d.Domain, Revoked: d.Lost, Self: d.ID == n.self, Seen: d.Seen, Profile: p.Profile}
		s := n.sessions[d.ID]
		c.Session = s != nil
		c.Up = !c.Revoked && (c.Self || c.Session || p.Alive)
		switch {
		case c.Self:
			c.Profile = n.profile()
		case c.Up && p.Alive && (s == nil || p.Since.Before(s.started)):
			c.Since = p.Since
		case c.Up:
			c.Since = s.started
		}
		if c.Up {
			c.Seen = now
		}
		out[i] = c
	}
	return out
}

// saw notes that a member was there just now.
func (n *Node) saw(w fcp.WriterID) {
	n.repairs.mu.Lock()
	defer n.repairs.mu.Unlock()
	n.repairs.seen[w] = n.now()
}

// lastThere returns when a member was there last, as far as this node noted it.
func (n *Node) lastThere(w fcp.WriterID) time.Time {
	n.repairs.mu.Lock()
	defer n.repairs.mu.Unlock()
	return n.repairs.seen[w]
}

// Behind is a member that is away: what it wrote since AsOf is not known here.
type Behind struct {
	Name string
	AsOf time.Time
}

// Behind returns the members that are away, and were for at least so long: what this
// node answers is as of the earliest AsOf, and whole but for what they wrote since.
func (n *Node) Behind(atLeast time.Duration) (out []Behind) {
	now := n.now()
	for _, c := range n.Contacts() {
		if !c.Revoked && !c.Up && now.Sub(c.Seen) >= atLeast {
			out = append(out, Behind{c.Name, c.Seen})
		}
	}
	slices.SortFunc(out, func(a, b Behind) int {
		if d := a.AsOf.Compare(b.AsOf); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// freshWait is how long Fresh waits for what the others told of.
const freshWait = 5 * time.Second

// Fresh fails with CodeStale when a member that is not revoked was last there longer
// than most ago. With 0 every one must be there, and what they told of must be here.
func (n *Node) Fresh(ctx context.Context, most time.Duration) error {
	now := n.now()
	var late []string
	for _, b := range n.Behind(0) {
		if d := now.Sub(b.AsOf); d > most {
			late = append(late, fmt.Sprintf("%s since %s", b.Name, b.AsOf.UTC().Format(time.RFC3339)))
		}
	}
	if len(late) > 0 {
		return fcp.Errorf(fcp.CodeStale, "not heard of: %s", strings.Join(late, ", "))
	}
	if most > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, freshWait)
	defer cancel()
	return fcp.Wrap(fcp.CodeStale, n.WaitSettled(ctx), "what others have")
}

// Roll calls the members and says who came and who went. It outlives the node, so that
// closing and opening a store is no turn of anybody. A device comes at once, and went
// when it was away for some time: a nap of the radio is no departure. The zero value is
// ready; nobody is there at first. Safe for concurrent use.
type Roll struct {
	// Away is how long a device is not there before it counts as gone; 0: DefaultAway.
	Away time.Duration

	mu    sync.Mutex
	there map[fcp.WriterID]Contact // with Seen when it was up last; guarded by mu
}

// DefaultAway is longer than a command has the store.
const DefaultAway = 30 * time.Second

// Turn is an arrival or a departure.
type Turn struct {
	Contact
	Arrived bool
	At      time.Time // of a departure: when it was there last
}

// maxRoll bounds the devices on a roll.
const maxRoll = 4096

// Call notes who is there now, and returns what changed, in the order given; departures
// of devices that are no members any more come last.
func (r *Roll) Call(now time.Time, list []Contact) (out []Turn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.there == nil {
		r.there = map[fcp.WriterID]Contact{}
	}
	away := r.Away
	if away == 0 {
		away = DefaultAway
	}
	called := map[fcp.WriterID]bool{}
	for _, c := range list {
		called[c.Writer] = true
		was, there := r.there[c.Writer]
		switch {
		case c.Self:
		case c.Up:
			if !there && len(r.there) >= maxRoll {
				continue
			}
			c.Seen = now
			r.there[c.Writer] = c
			if !there {
				out = append(out, Turn{c, true, now})
			}
		case there && (c.Revoked || now.Sub(was.Seen) >= away):
			delete(r.there, c.Writer)
			out = append(out, Turn{c, false, was.Seen})
		}
	}
	var gone []Turn
	for w, was := range r.there {
		if !called[w] {
			delete(r.there, w)
			gone = append(gone, Turn{was, false, was.Seen})
		}
	}
	slices.SortFunc(gone, func(a, b Turn) int { return compareWriters(a.Writer, b.Writer) })
	return append(out, gone...)
}
