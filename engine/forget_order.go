package engine

import (
	"bytes"
	"cmp"
	"slices"

	"fcp"
	"fcp/authority"
)

// carriers are events of data feeds, each with the object that it carries.
type carriers map[fcp.Feed]map[uint64]fcp.ObjectID

func (c carriers) add(feed fcp.Feed, seq uint64, id fcp.ObjectID) {
	if c[feed] == nil {
		c[feed] = map[uint64]fcp.ObjectID{}
	}
	c[feed][seq] = id
}

// has reports whether a device wrote one of them.
func (c carriers) has(w fcp.WriterID) bool {
	for feed := range c {
		if feed.Writer == w {
			return true
		}
	}
	return false
}

// runs returns those that want accepts, by writer and incarnation.
func (c carriers) runs(want func(fcp.ObjectID) bool) (out []authority.Carriers) {
	for feed, events := range c {
		var seqs []uint64
		for seq, id := range events {
			if want(id) {
				seqs = append(seqs, seq)
			}
		}
		slices.Sort(seqs)
		x := authority.Carriers{Writer: feed.Writer, Incarnation: feed.Incarnation}
		for _, seq := range seqs {
			if n := len(x.Runs); n > 0 && x.Runs[n-1].Last+1 == seq {
				x.Runs[n-1].Last = seq
			} else {
				x.Runs = append(x.Runs, authority.Run{First: seq, Last: seq})
			}
		}
		if len(x.Runs) > 0 {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b authority.Carriers) int {
		return cmp.Or(bytes.Compare(a.Writer[:], b.Writer[:]), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return out
}

// forgettingSpecs puts objects and carriers into as many orders as their limits ask
// for. Each names an object at least.
func forgettingSpecs(zone fcp.ZoneID, objects []fcp.ObjectID, chunks []authority.Carriers) (out []authority.ForgettingSpec) {
	for part := range slices.Chunk(objects, authority.MaxForgotten) {
		out = append(out, authority.ForgettingSpec{Zone: zone, Objects: part})
	}
	room := authority.MaxForgottenRuns
	for _, c := range chunks {
		for len(c.Runs) > 0 {
			if room == 0 {
				out, room = append(out, authority.ForgettingSpec{Zone: zone, Objects: objects[:1]}), authority.MaxForgottenRuns
			}
			n := min(room, len(c.Runs))
			last := &out[len(out)-1]
			last.Carriers = append(last.Carriers, authority.Carriers{Writer: c.Writer, Incarnation: c.Incarnation, Runs: c.Runs[:n]})
			c.Runs, room = c.Runs[n:], room-n
		}
	}
	return out
}

// order appends the owner's orders to the other members.
func (f *forgetting) order() (orders []*authority.Forgetting, err error) {
	for i, p := range f.places {
		if feed := f.e.log.Feed(p.Feed); f.isChunk(f.objects[i]) {
			f.told.add(feed, p.Seq, f.objects[i])
		}
	}
	for _, spec := range forgettingSpecs(f.zone.zone, f.r.Objects, f.told.runs(f.isChunk)) {
		body, err := authority.SignForgetting(f.e.env.Now(), f.q.Owner, spec)
		if err != nil {
			return nil, err
		}
		o, err := authority.VerifyForgetting(f.e.genesis.Owner, body)
		if err != nil {
			return nil, err
		}
		if _, err := f.e.AppendSigned(f.ctx, f.zone.zone, fcp.KindObjectForgotten, body); err != nil {
			return nil, err
		}
		orders, f.r.Orders = append(orders, o), append(f.r.Orders, o.Ref())
	}
	return orders, nil
}
