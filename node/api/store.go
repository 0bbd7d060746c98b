package api

import (
	"context"
	"io"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/log"
)

// Store is what programs do with a store, whether it is open in their own process
// (Local) or in a daemon (Remote). The methods are those of engine.Engine, and so
// are their errors.
type Store interface {
	// Position returns the position of the newest answer.
	Position() uint64
	// Source says where the newest answer came from.
	Source() Source
	// Incarnation returns the number that changes when a store is restored.
	Incarnation() uint64
	CheckOwner(authority.OwnerPublic) error
	PositionAt(engine.At) (uint64, error)

	Put(context.Context, engine.PutRequest) (engine.PutResult, error)
	Remove(context.Context, engine.RemoveRequest) (engine.PutResult, error)
	Get(context.Context, engine.GetRequest) (Object, error)
	List(context.Context, engine.ListRequest, func(*engine.Entry) error) error
	History(ctx context.Context, zone fcp.ZoneID, key string, fn func(*engine.Entry) error) error
	Tail(context.Context, engine.TailRequest, func(*engine.EventRow) error) error
	QueryProjection(ctx context.Context, name string, zone fcp.ZoneID, prefix []byte, at engine.At, fn func(*engine.Row) error) error
	Overview(ctx context.Context, root bool) (*Overview, error)

	// Fresh fails with CodeStale when a member was last there longer than most ago; see
	// node.Node.Fresh.
	Fresh(ctx context.Context, most time.Duration) error
	// SetPin writes a pin down, for the device of that name if one is given.
	SetPin(ctx context.Context, p engine.Pin, device string) (engine.Pin, error)
	// Pins returns the pins that are not over, by zone, name and device's name.
	Pins() ([]PinRow, error)
	// ForgetOrders returns the owner's orders to forget, by zone, time and hash.
	ForgetOrders() ([]engine.ForgetOrder, error)

	GetFor(context.Context, *engine.Caller, engine.GetRequest) (Object, error)
	PutFor(context.Context, *engine.Caller, engine.PutRequest) (engine.PutResult, error)
	RemoveFor(context.Context, *engine.Caller, engine.RemoveRequest) (engine.PutResult, error)
	// Leases calls fn with every valid lease: of a thing, or with no Subject of a zone or,
	// with no Zone, of all, those of a thing together and the highest fence first.
	Leases(context.Context, LeaseRequest, func(*Lease) error) error
	// LetThrough returns the highest fence that this device, as the sink, let through to
	// an effect on a thing.
	LetThrough(context.Context, LeaseRequest) (authority.Fence, error)
	// AcquireLease gets this device a lease; a daemon asks the members over the mesh. See
	// engine.Engine.AcquireLease and OwnLease for the errors.
	AcquireLease(context.Context, LeaseRequest) (*Lease, error)
	// ReleaseLease gives back the lease that this device has.
	ReleaseLease(context.Context, LeaseRequest) (*Lease, error)
	// Grants returns the refs of a zone's grants, ascending.
	Grants(zone fcp.ZoneID) ([]fcp.Hash, error)
	// Revoke signs here and appends there: the key stays in this process.
	Revoke(ctx context.Context, now time.Time, owner *authority.OwnerKey, spec authority.RevocationSpec) (fcp.Hash, error)
	Refusal(id string) (*authority.DecisionReceipt, uint64, error)
}

// Object is an object that is being read.
type Object interface {
	io.Reader
	io.WriterTo
	io.Closer
	Info() engine.Info
}

// The places an answer can come from.
const (
	FromFiles = "offline" // this process, from the store's files
	FromNode  = "node"    // a daemon, from its own store
	FromMesh  = "mesh"    // a daemon, with symbols of other members
)

// Source says where an answer came from.
type Source struct {
	Kind    string    // FromFiles, FromNode or FromMesh
	Fetched []Fetched // FromMesh only
	Behind  []Behind  // members whose newest writes the answer may lack, the longest away first
}

// Overview is what status shows.
type Overview struct {
	engine.Status
	Unsealed  uint64   // events that a seal would seal
	StateRoot fcp.Hash // only when asked for
	Doubt     error    // why the store is read-only; nil: it is not
	Alerts    []engine.Alert
	Mesh      *Status // nil: no daemon
}

// Local is a store that is open in this process.
type Local struct{ *engine.Engine }

var _ Store = Local{}

// Source implements Store.
func (l Local) Source() Source { return Source{Kind: FromFiles} }

// Incarnation implements Store.
func (l Local) Incarnation() uint64 { return l.Log().Incarnation() }

// CheckOwner implements Store.
func (l Local) CheckOwner(owner authority.OwnerPublic) error { return l.Genesis().CheckOwner(owner) }

// Get implements Store.
func (l Local) Get(ctx context.Context, r engine.GetRequest) (Object, error) {
	return object(l.Engine.Get(ctx, r))
}

// GetFor implements Store.
func (l Local) GetFor(ctx context.Context, c *engine.Caller, r engine.GetRequest) (Object, error) {
	return object(l.Engine.GetFor(ctx, c, r))
}

func object(r *engine.Reader, err error) (Object, error) {
	if err != nil {
		return nil, err // not a nil *Reader in an Object
	}
	return r, nil
}

// Grants implements Store.
func (l Local) Grants(zone fcp.ZoneID) (out []fcp.Hash, err error) {
	grants, err := l.Engine.Grants(zone)
	for i := range grants {
		out = append(out, grants[i].Ref)
	}
	return out, err
}

// Revoke implements Store.
func (l Local) Revoke(ctx context.Context, _ time.Time, owner *authority.OwnerKey, spec authority.RevocationSpec) (fcp.Hash, error) {
	r, err := l.Engine.Revoke(ctx, owner, spec)
	if err != nil {
		return fcp.Hash{}, err
	}
	return r.Ref(), nil
}

// Refusal implements Store.
func (l Local) Refusal(id string) (*authority.DecisionReceipt, uint64, error) {
	r, err := l.FindRefusal(id)
	if err != nil {
		return nil, 0, err
	}
	return r.DecisionReceipt, r.Position, nil
}

// Overview implements Store.
func (l Local) Overview(ctx context.Context, root bool) (*Overview, error) {
	o := &Overview{Status: l.Status(), Doubt: l.Log().Doubt()}
	for i := range o.Feeds {
		n, err := l.unsealed(ctx, &o.Feeds[i])
		if err != nil {
			return nil, err
		}
		o.Unsealed += n
	}
	var err error
	if o.Alerts, err = l.Alerts(); err == nil && root {
		o.StateRoot, err = l.StateRoot()
	}
	return o, err
}

// unsealed returns how many events of an own feed a seal would seal: none, when all
// that is open tells of segments.
func (l Local) unsealed(ctx context.Context, f *log.FeedState) (uint64, error) {
	if !f.Own || !f.Feed.Plane.Chained() || f.Seq == f.Sealed {
		return 0, nil
	}
	due := false
	err := l.Log().ScanFeed(ctx, f.No, f.Sealed+1, f.Seq, log.VerifyNone, func(events []log.Applied) error {
		for i := range events {
			due = due || events[i].Content.Kind != fcp.KindSegmentSealed
		}
		return nil
	})
	if err != nil || !due {
		return 0, err
	}
	return f.Seq - f.Sealed, nil
}
