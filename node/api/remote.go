package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// Remote is a store that a daemon has open. Safe for concurrent use.
type Remote struct {
	client *Client
	hello  helloRow

	mu       sync.Mutex
	position uint64 // guarded by mu
	source   Source // guarded by mu
}

var _ Store = (*Remote)(nil)

// Dial asks the daemon behind a socket which store it has. CodeDependency: there
// is none.
func Dial(ctx context.Context, socket string) (*Remote, error) {
	r := &Remote{client: NewClient(socket), source: Source{Kind: FromNode}}
	if err := r.one(ctx, "hello", nil, &r.hello); err != nil {
		return r, err
	}
	r.source.Behind = r.hello.Behind
	return r, nil
}

// Client returns the client that r uses.
func (r *Remote) Client() *Client { return r.client }

// Position implements Store.
func (r *Remote) Position() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.position
}

// Source implements Store.
func (r *Remote) Source() Source {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.source
}

// Incarnation implements Store.
func (r *Remote) Incarnation() uint64 { return r.hello.Incarnation }

// CheckOwner implements Store.
func (r *Remote) CheckOwner(owner authority.OwnerPublic) error {
	if owner != r.hello.Owner {
		return fcp.Errorf(fcp.CodeWrongKey, "the store is of another owner")
	}
	return nil
}

func (r *Remote) ended(x *exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.position, r.source = x.end.Position, Source{Kind: FromNode, Behind: x.end.Behind}
	if len(x.end.Fetched) > 0 {
		r.source.Kind, r.source.Fetched = FromMesh, x.end.Fetched
	}
}

// one makes a call that is answered with one row, or with none when out is nil.
func (r *Remote) one(ctx context.Context, name string, request, out any) error {
	return r.oneWith(ctx, name, request, nil, out)
}

func (r *Remote) oneWith(ctx context.Context, name string, request any, upload io.Reader, out any) error {
	x, err := r.client.begin(ctx, name, request, upload)
	if err != nil {
		return err
	}
	defer x.close()
	if out != nil {
		if err := x.row(out); err != nil {
			return err
		}
	}
	if err := x.finish(); err != nil {
		return err
	}
	r.ended(x)
	return nil
}

// each makes a call and hands every row to fn.
func each[T any](ctx context.Context, r *Remote, name string, request any, fn func(*T) error) error {
	x, err := r.client.begin(ctx, name, request, nil)
	if err != nil {
		return err
	}
	defer x.close()
	for {
		kind, b, err := x.next()
		switch {
		case errors.Is(err, errEnded):
			r.ended(x)
			return nil
		case ctx.Err() != nil:
			return fcp.Errorf(fcp.CodeInterrupted, "reading the daemon's answer")
		case err != nil:
			return err
		case kind != frameRow:
			return fcp.Errorf(fcp.CodeMalformed, "a frame %q where a row belongs", byte(kind))
		}
		v := new(T)
		if err := decodeFrame(b, v); err != nil {
			return err
		}
		if err := fn(v); err != nil {
			return err
		}
	}
}

// PositionAt implements Store.
func (r *Remote) PositionAt(at engine.At) (p uint64, err error) {
	return p, r.one(context.Background(), "position-at", &at, &p)
}

// Put implements Store.
func (r *Remote) Put(ctx context.Context, q engine.PutRequest) (res engine.PutResult, err error) {
	body, call := putOf(q)
	return res, r.oneWith(ctx, "put", call, body, &res)
}

func putOf(q engine.PutRequest) (io.Reader, *putCall) {
	body := q.Body
	if body == nil {
		body = &byteReader{q.Bytes}
	}
	return body, &putCall{q.Zone, q.Key, q.Expect, q.Idempotency, q.DryRun}
}

type byteReader struct{ b []byte }

func (r *byteReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// Remove implements Store.
func (r *Remote) Remove(ctx context.Context, q engine.RemoveRequest) (res engine.PutResult, err error) {
	return res, r.one(ctx, "remove", &q, &res)
}

// Get implements Store.
func (r *Remote) Get(ctx context.Context, q engine.GetRequest) (Object, error) {
	x, err := r.client.begin(ctx, "get", &q, nil)
	if err != nil {
		return nil, err
	}
	return r.object(x)
}

func (r *Remote) object(x *exchange) (Object, error) {
	o := &remoteObject{remote: r, x: x}
	o.payload.next = x.next
	if err := x.row(&o.info); err != nil {
		return nil, errors.Join(err, x.close())
	}
	return o, nil
}

// remoteObject is an object whose payload comes over the socket. The daemon checked
// it before it sent it.
type remoteObject struct {
	remote  *Remote
	x       *exchange
	info    engine.Info
	payload payload
	done    bool
}

func (o *remoteObject) Info() engine.Info { return o.info }

func (o *remoteObject) Read(b []byte) (int, error) {
	n, err := o.payload.Read(b)
	if errors.Is(err, io.EOF) && !o.done {
		if ferr := o.x.finish(); ferr != nil {
			return n, ferr
		}
		o.done = true
		o.remote.ended(o.x)
	}
	return n, err
}

func (o *remoteObject) WriteTo(w io.Writer) (total int64, err error) {
	return io.Copy(w, struct{ io.Reader }{o})
}

func (o *remoteObject) Close() error { return o.x.close() }

// List implements Store.
func (r *Remote) List(ctx context.Context, q engine.ListRequest, fn func(*engine.Entry) error) error {
	return each(ctx, r, "list", &q, fn)
}

// History implements Store.
func (r *Remote) History(ctx context.Context, zone fcp.ZoneID, key string, fn func(*engine.Entry) error) error {
	return each(ctx, r, "history", &historyCall{zone, key}, fn)
}

// Tail implements Store. A stream that was broken off because the store was lent
// goes on behind what was seen.
func (r *Remote) Tail(ctx context.Context, q engine.TailRequest, fn func(*engine.EventRow) error) error {
	for {
		err := each(ctx, r, "tail", &q, func(e *engine.EventRow) error {
			if err := fn(e); err != nil {
				return err
			}
			q.From, q.Last = e.Position+1, 0
			return nil
		})
		var lent lentError
		if !errors.As(err, &lent) {
			return err
		}
	}
}

// QueryProjection implements Store.
func (r *Remote) QueryProjection(ctx context.Context, name string, zone fcp.ZoneID, prefix []byte, at engine.At, fn func(*engine.Row) error) error {
	return each(ctx, r, "query", &queryCall{name, zone, prefix, at}, fn)
}

// Overview implements Store.
func (r *Remote) Overview(ctx context.Context, root bool) (*Overview, error) {
	var o overviewRow
	if err := r.one(ctx, "overview", root, &o); err != nil {
		return nil, err
	}
	out := &Overview{Status: o.Status, Unsealed: o.Unsealed, StateRoot: o.StateRoot, Alerts: o.Alerts, Mesh: &o.Mesh}
	if o.Doubt != nil {
		out.Doubt = o.Doubt.err()
	}
	return out, nil
}

// use makes a call with a token; the holder signs when the daemon asks.
func (r *Remote) use(ctx context.Context, c *engine.Caller, q *useCall, upload io.Reader) (*exchange, error) {
	q.Token = c.Token.Bytes()
	x, err := r.client.begin(ctx, "use", q, upload)
	if err != nil {
		return nil, err
	}
	kind, b, err := x.next()
	if err == nil && kind != frameProve {
		err = fcp.Errorf(fcp.CodeMalformed, "a frame %q where a challenge belongs", byte(kind))
	}
	if err == nil {
		err = answerProve(x, c, b)
	}
	if err != nil {
		return nil, errors.Join(err, x.close())
	}
	return x, nil
}

// answerProve has the holder of a token sign a challenge.
func answerProve(x *exchange, c *engine.Caller, b []byte) error {
	var p proveCall
	if err := decodeFrame(b, &p); err != nil {
		return err
	}
	signature, err := c.Prove(authority.Challenge{Kind: p.Kind, Value: p.Value}, p.Leaf, p.Request)
	if err != nil {
		return err
	}
	return x.send(frameProof, signature)
}

// GetFor implements Store.
func (r *Remote) GetFor(ctx context.Context, c *engine.Caller, q engine.GetRequest) (Object, error) {
	x, err := r.use(ctx, c, &useCall{Get: &q}, nil)
	if err != nil {
		return nil, err
	}
	return r.object(x)
}

// PutFor implements Store.
func (r *Remote) PutFor(ctx context.Context, c *engine.Caller, q engine.PutRequest) (engine.PutResult, error) {
	body, call := putOf(q)
	return r.written(r.use(ctx, c, &useCall{Put: call}, body))
}

// RemoveFor implements Store.
func (r *Remote) RemoveFor(ctx context.Context, c *engine.Caller, q engine.RemoveRequest) (engine.PutResult, error) {
	return r.written(r.use(ctx, c, &useCall{Remove: &q}, nil))
}

func (r *Remote) written(x *exchange, err error) (res engine.PutResult, _ error) {
	if err != nil {
		return res, err
	}
	defer x.close()
	if err := x.row(&res); err != nil {
		return res, err
	}
	if err := x.finish(); err != nil {
		return res, err
	}
	r.ended(x)
	return res, nil
}

// Grants implements Store.
func (r *Remote) Grants(zone fcp.ZoneID) (out []fcp.Hash, err error) {
	return out, r.one(context.Background(), "grants", &zoneCall{zone}, &out)
}

// Revoke implements Store.
func (r *Remote) Revoke(ctx context.Context, now time.Time, owner *authority.OwnerKey, spec authority.RevocationSpec) (ref fcp.Hash, err error) {
	body, err := authority.Revoke(now, owner, spec)
	if err != nil {
		return ref, err
	}
	return ref, r.one(ctx, "revoke", body, &ref)
}

// Refusal implements Store. The receipt is verified here.
func (r *Remote) Refusal(id string) (*authority.DecisionReceipt, uint64, error) {
	var row refusalRow
	if err := r.one(context.Background(), "refusal", &idCall{id}, &row); err != nil {
		return nil, 0, err
	}
	d, err := authority.VerifyDecision(row.Key, row.Receipt)
	return d, row.Position, err
}

// Roots returns the root of each zone: what nodes with the same events agree on.
func (r *Remote) Roots(ctx context.Context) (roots map[string]fcp.Hash, err error) {
	return roots, r.one(ctx, "roots", nil, &roots)
}

// wait asks again when the store was lent meanwhile.
func (r *Remote) wait(ctx context.Context, q *waitCall) error {
	for {
		err := r.one(ctx, "wait", q, nil)
		var lent lentError
		if !errors.As(err, &lent) {
			return err
		}
	}
}

// Wait waits for something of this node: WaitPlaced, WaitPeers, or WaitRevocation of
// ref. CodeTimeout when ctx ends before.
func (r *Remote) Wait(ctx context.Context, what string, ref fcp.Hash) error {
	return r.wait(ctx, &waitCall{For: what, Ref: ref})
}

// String lists who gave how much: "n2: 512 symbols, n3: 514 symbols".
func (s Source) String() (text string) {
	out := s.Kind
	if len(s.Behind) > 0 {
		defer func() { text += ", " + s.without() }()
	}
	for i, f := range s.Fetched {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		out += fmt.Sprintf("%s%d symbols from %s", sep, f.Symbols, f.Name)
	}
	return out
}
