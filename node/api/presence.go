package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"fcp"
	"fcp/node"
)

// Behind is a member that is away: what it wrote since AsOf is not in the answer.
type Behind struct {
	Name string
	AsOf time.Time
}

// behindAfter is from when on a member that is away is told of: sessions begin again
// after each command that had the store.
const behindAfter = 15 * time.Second

func behind(n *node.Node) (out []Behind) {
	for _, b := range n.Behind(behindAfter) {
		out = append(out, Behind(b))
	}
	return out
}

// AsOfTime returns the time as of which the answer is whole; zero: it is as of now, as
// far as is known.
func (s Source) AsOfTime() time.Time {
	if len(s.Behind) == 0 {
		return time.Time{}
	}
	return s.Behind[0].AsOf
}

// without is "without phone since T, laptop since T".
func (s Source) without() string {
	var out []string
	for _, b := range s.Behind {
		out = append(out, fmt.Sprintf("%s since %s", b.Name, b.AsOf.UTC().Format(time.RFC3339)))
	}
	return "without " + strings.Join(out, ", ")
}

// tellContacts fills in who is there since when, or was there last.
func (st *Status) tellContacts(o *opening, now time.Time) {
	for _, c := range o.node.Contacts() {
		i := slices.IndexFunc(st.Members, func(m Member) bool { return m.Writer == c.Writer.String() })
		if i < 0 {
			continue
		}
		m := &st.Members[i]
		m.Class, m.Site = string(c.Class), c.Site
		if c.Profile != (node.Profile{}) {
			m.Profile = &c.Profile
		}
		switch {
		case c.Self || c.Revoked:
		case c.Up:
			m.State, m.Since = "up", c.Since
		default:
			m.LastSeen, m.Awaited = c.Seen, o.awaits(&c, now) > 0
		}
	}
}

// awaits returns how much longer a member that is not there may just not have been met
// again: sessions begin anew when the node does, after each command that had the store.
// It is 0 for one that was away before, that came since, and for one that had its time.
func (o *opening) awaits(c *node.Contact, now time.Time) time.Duration {
	if c.Self || c.Up || c.Revoked || c.Seen.After(o.since) {
		return 0
	}
	left := behindAfter
	if o.patience != nil {
		left = o.patience[c.Writer]
	}
	return max(left-now.Sub(o.since), 0)
}

// patienceLeft returns what the next opening begins with.
func (o *opening) patienceLeft(list []node.Contact, now time.Time) map[fcp.WriterID]time.Duration {
	out := map[fcp.WriterID]time.Duration{}
	for i := range list {
		c := &list[i]
		if out[c.Writer] = o.awaits(c, now); c.Up {
			out[c.Writer] = behindAfter
		}
	}
	return out
}

// Contacts returns the members as the node sees them; false while the store is lent.
func (s *Server) Contacts() ([]node.Contact, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == nil {
		return nil, false
	}
	return s.cur.node.Contacts(), true
}

// Fresh implements Store. Nobody was asked, so with other members it fails.
func (l Local) Fresh(context.Context, time.Duration) error {
	members, err := l.Members()
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Writer != l.Log().Writer() && !m.Revoked {
			return fcp.Errorf(fcp.CodeStale, "the files of the store are read here, so no other device was asked").WithNext("start fcpd with `fcpctl up`, and use commands that it answers")
		}
	}
	return nil
}

// Fresh implements Store.
func (r *Remote) Fresh(ctx context.Context, most time.Duration) error {
	return r.one(ctx, "fresh", most, nil)
}

func (c *callState) fresh() error {
	most, err := asked[time.Duration](c)
	if err != nil {
		return err
	}
	return c.node.Fresh(c.ctx, most)
}

// Pack has the daemon report what its device can read alone, and bring what is missing.
func (r *Remote) Pack(ctx context.Context, o node.PackOptions) (out *node.PackReport, err error) {
	return out, r.one(ctx, "pack", &o, &out)
}

func (c *callState) pack() error {
	o, err := asked[node.PackOptions](c)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(c.ctx)
	defer stop()
	c.untilGone(stop)
	r, err := c.node.Pack(ctx, o)
	if err != nil {
		return err
	}
	return c.send(frameRow, r)
}

// AccessesRow is the record of what was read on the device.
type AccessesRow struct {
	On   bool
	List []node.Access // the most wanted first
}

// Accesses returns the device's record of what was read on it.
func (r *Remote) Accesses(ctx context.Context) (out AccessesRow, err error) {
	return out, r.one(ctx, "accesses", nil, &out)
}

func (c *callState) accesses() error {
	list, on := c.node.Accesses()
	return c.send(frameRow, &AccessesRow{on, list})
}

// SetStaging switches pre-staging, and the record that it goes by, on or off.
func (r *Remote) SetStaging(ctx context.Context, on bool) error {
	return r.one(ctx, "staging", on, nil)
}

func (c *callState) staging() error {
	on, err := asked[bool](c)
	if err != nil {
		return err
	}
	return c.node.SetStaging(on)
}
