package api

import (
	"context"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// LeaseRequest says which lease is meant, and what this device wants of it.
type LeaseRequest struct {
	Zone    fcp.ZoneID
	Purpose authority.LeasePurpose
	Subject string          // an object id (64 hex digits) or a name
	For     time.Duration   // of AcquireLease
	Renew   bool            // of AcquireLease: fail unless this device has the lease now
	Fence   authority.Fence // of ReleaseLease: fail unless it is the lease's; 0: whatever it is
	DryRun  bool            // of ReleaseLease: change nothing
}

// Lease is a valid lease that the store knows.
type Lease struct {
	*authority.UnverifiedLease // verified where it came from
	ID                         fcp.ObjectID
	Released                   bool
	Own                        bool // held by the store's device
	Position                   uint64
}

// leaseRow is a Lease on its way.
type leaseRow struct {
	Lease    []byte
	ID       fcp.ObjectID
	Released bool
	Own      bool
	Position uint64
}

func leaseOf(e *engine.Engine, l *engine.LeaseState) *Lease {
	return &Lease{&l.UnverifiedLease, l.ID, l.Released, l.Spec().Holder == fcp.WriterOf(e.Signer().Public()), l.Position}
}

// acquireLease is AcquireLease with the members that peers reaches.
func acquireLease(ctx context.Context, e *engine.Engine, q *LeaseRequest, peers engine.LeasePeers) (*Lease, error) {
	t, err := e.LeaseThing(q.Zone, q.Purpose, q.Subject)
	if err != nil {
		return nil, err
	}
	if q.Renew {
		if _, err := e.OwnLease(t); err != nil {
			return nil, err
		}
	}
	l, err := e.AcquireLease(ctx, t, q.For, peers)
	if err != nil {
		return nil, err
	}
	return leaseOf(e, l), nil
}

// AcquireLease implements Store: without members in reach.
func (l Local) AcquireLease(ctx context.Context, q LeaseRequest) (*Lease, error) {
	return acquireLease(ctx, l.Engine, &q, nil)
}

// ReleaseLease implements Store.
func (l Local) ReleaseLease(ctx context.Context, q LeaseRequest) (*Lease, error) {
	t, err := l.LeaseThing(q.Zone, q.Purpose, q.Subject)
	if err != nil {
		return nil, err
	}
	now, err := l.OwnLease(t)
	if err != nil {
		return nil, err
	}
	fence := now.Spec().Fence
	if q.Fence != 0 && q.Fence != fence {
		return nil, fcp.Errorf(fcp.CodeFenced, "the lease has the fence %d, not %d", fence, q.Fence)
	}
	if !q.DryRun {
		if err := l.Engine.ReleaseLease(ctx, t, fence); err != nil {
			return nil, err
		}
	}
	out := leaseOf(l.Engine, now)
	out.Released = true
	return out, nil
}

// Leases implements Store.
func (l Local) Leases(_ context.Context, q LeaseRequest, fn func(*Lease) error) error {
	var only authority.Thing
	if q.Subject != "" {
		var err error
		if only, err = l.LeaseThing(q.Zone, q.Purpose, q.Subject); err != nil {
			return err
		}
	}
	zones := l.Zones()
	if q.Zone != "" {
		zones = []fcp.ZoneID{q.Zone}
	}
	for _, zone := range zones {
		err := l.EachLease(zone, func(s *engine.LeaseState) error {
			if q.Subject != "" && s.Spec().Thing != only {
				return nil
			}
			return fn(leaseOf(l.Engine, s))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// LetThrough implements Store.
func (l Local) LetThrough(_ context.Context, q LeaseRequest) (authority.Fence, error) {
	t, err := l.LeaseThing(q.Zone, q.Purpose, q.Subject)
	if err != nil {
		return 0, err
	}
	f, err := l.HighestFence(t)
	return f.Fence, err
}

// Leases implements Store.
func (r *Remote) Leases(ctx context.Context, q LeaseRequest, fn func(*Lease) error) error {
	return each(ctx, r, "leases", &q, func(row *leaseRow) error {
		l, err := row.lease()
		if err != nil {
			return err
		}
		return fn(l)
	})
}

// LetThrough implements Store.
func (r *Remote) LetThrough(ctx context.Context, q LeaseRequest) (f authority.Fence, err error) {
	return f, r.one(ctx, "lease-fence", &q, &f)
}

// AcquireLease implements Store. The members are asked over the mesh.
func (r *Remote) AcquireLease(ctx context.Context, q LeaseRequest) (*Lease, error) {
	return r.lease(ctx, "lease-acquire", &q)
}

// ReleaseLease implements Store.
func (r *Remote) ReleaseLease(ctx context.Context, q LeaseRequest) (*Lease, error) {
	return r.lease(ctx, "lease-release", &q)
}

func (r *Remote) lease(ctx context.Context, name string, q *LeaseRequest) (*Lease, error) {
	var row leaseRow
	if err := r.one(ctx, name, q, &row); err != nil {
		return nil, err
	}
	return row.lease()
}

func (row *leaseRow) lease() (*Lease, error) {
	u, err := authority.DecodeLease(row.Lease)
	return &Lease{u, row.ID, row.Released, row.Own, row.Position}, err
}

func (c *callState) leases() error {
	q, err := asked[LeaseRequest](c)
	if err != nil {
		return err
	}
	return Local{c.engine}.Leases(c.ctx, q, c.sendLease)
}

func (c *callState) leaseFence() error {
	q, err := asked[LeaseRequest](c)
	if err != nil {
		return err
	}
	f, err := Local{c.engine}.LetThrough(c.ctx, q)
	if err != nil {
		return err
	}
	return c.send(frameRow, f)
}

func (c *callState) acquireLease() error {
	return c.lease(func(q *LeaseRequest) (*Lease, error) {
		ctx, stop := context.WithCancel(c.ctx)
		defer stop()
		c.untilGone(stop)
		return acquireLease(ctx, c.engine, q, c.node)
	})
}

func (c *callState) releaseLease() error {
	return c.lease(func(q *LeaseRequest) (*Lease, error) { return Local{c.engine}.ReleaseLease(c.ctx, *q) })
}

func (c *callState) lease(fn func(*LeaseRequest) (*Lease, error)) error {
	q, err := asked[LeaseRequest](c)
	if err != nil {
		return err
	}
	l, err := fn(&q)
	if err != nil {
		return err
	}
	return c.sendLease(l)
}

func (c *callState) sendLease(l *Lease) error {
	b, err := l.Encode()
	if err != nil {
		return err
	}
	return c.send(frameRow, &leaseRow{b, l.ID, l.Released, l.Own, l.Position})
}
