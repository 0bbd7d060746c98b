package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strings"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/node"
)

// callState is one call under way, in one goroutine.
type callState struct {
	*frames
	*opening
	server  *Server
	ctx     context.Context
	request []byte // CBOR
}

// calls are the methods of Store, and what only a daemon can do.
var calls = map[string]func(*callState) error{
	"hello":       (*callState).hello,
	"position-at": (*callState).positionAt,
	"put":         (*callState).put,
	"remove":      (*callState).remove,
	"get":         (*callState).get,
	"list":        (*callState).list,
	"history":     (*callState).history,
	"tail":        (*callState).tail,
	"query":       (*callState).query,
	"overview":    (*callState).overview,
	"use":         (*callState).use,
	"grants":      (*callState).grants,
	"revoke":      (*callState).revoke,
	"refusal":     (*callState).refusal,
	"roots":       (*callState).roots,
	"pin":         (*callState).pin,
	"pins":        (*callState).pins,
	"forgotten":   (*callState).forgotten,
	"fresh":       (*callState).fresh,
	"pack":        (*callState).pack,
	"accesses":    (*callState).accesses,
	"staging":     (*callState).staging,
	"wait":        (*callState).wait,

	"secret":        (*callState).secret,
	"lease-acquire": (*callState).acquireLease,
	"lease-release": (*callState).releaseLease,
	"leases":        (*callState).leases,
	"lease-fence":   (*callState).leaseFence,
}

// maxRequest limits the CBOR of a request, in bytes.
const maxRequest = 1 << 20

// call serves one call. Its errors are frames: the answer is always 200.
func (s *Server) call(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	fn, ok := calls[name]
	if !ok {
		fail(w, fcp.Errorf(fcp.CodeVersion, "there is no call %.40q", name).WithNext("fcpctl and fcpd are of different builds: `fcpctl down`, then `fcpctl up`"))
		return
	}
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil {
		fail(w, fcp.Wrap(fcp.CodeInternal, err, "serve a call"))
		return
	}
	w.Header().Set("Content-Type", mediaType)
	f := &frames{r: bufio.NewReaderSize(r.Body, 64<<10), w: w, flush: control.Flush}
	ctx, traced := r.Context(), func(error) {}
	if s.opt.Trace != nil {
		ctx, traced = s.opt.Trace(ctx, name)
	}
	end, err := s.serveCall(ctx, f, fn)
	traced(err)
	if err != nil {
		s.opt.Logger.Debug("a call failed", "call", name, "code", fcp.CodeOf(err).String())
		x := failureOf(err)
		x.Lent = errors.Is(err, errLent)
		err = f.send(frameFailure, &x)
	} else {
		err = f.send(frameEnd, end)
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client must not take what it has for all
	}
}

var errLent = fcp.Errorf(fcp.CodeInterrupted, "the store is lent")

func (s *Server) serveCall(ctx context.Context, f *frames, fn func(*callState) error) (_ *End, err error) {
	kind, b, err := f.next()
	switch {
	case err != nil:
		return nil, fcp.Wrap(fcp.CodeMalformed, err, "read the request")
	case kind != frameRequest || len(b) > maxRequest:
		return nil, fcp.Errorf(fcp.CodeMalformed, "a call begins with its request")
	}
	o, done, err := s.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, report := node.WithFetchReport(ctx)
	c := &callState{frames: f, opening: o, server: s, ctx: ctx, request: append([]byte(nil), b...)}
	defer func() {
		if r := recover(); r != nil {
			s.opt.Logger.Error("a call panicked", "panic", r, "stack", string(debug.Stack()))
			err = fcp.Errorf(fcp.CodeInternal, "the call panicked; the daemon's log says where")
		}
	}()
	if err := fn(c); err != nil {
		var r *engine.Refusal
		if errors.As(err, &r) && strings.HasPrefix(string(r.Reason), "token.") {
			s.tokensRefused.Add(1)
		}
		return nil, err
	}
	end := &End{Position: o.engine.Position(), Behind: behind(o.node)}
	for _, x := range report.From() {
		end.Fetched = append(end.Fetched, Fetched{x.Name, x.Symbols})
	}
	return end, nil
}

// asked decodes the request.
func asked[T any](c *callState) (q T, err error) { return q, decodeFrame(c.request, &q) }

// row sends one item of the answer.
func row[T any](c *callState) func(*T) error {
	return func(v *T) error { return c.send(frameRow, v) }
}

// helloRow says which store this is.
type helloRow struct {
	Incarnation uint64
	Owner       authority.OwnerPublic
	Writer      fcp.WriterID
	Behind      []Behind
}

func (c *callState) hello() error {
	return c.send(frameRow, &helloRow{c.engine.Log().Incarnation(), c.engine.Genesis().Owner, c.node.Writer(), behind(c.node)})
}

func (c *callState) positionAt() error {
	at, err := asked[engine.At](c)
	if err != nil {
		return err
	}
	p, err := c.engine.PositionAt(at)
	if err != nil {
		return err
	}
	return c.send(frameRow, p)
}

func (q *putCall) request() engine.PutRequest {
	return engine.PutRequest{Zone: q.Zone, Key: q.Key, Expect: q.Expect, Idempotency: q.Idempotency, DryRun: q.DryRun}
}

func (c *callState) put() error {
	q, err := asked[putCall](c)
	if err != nil {
		return err
	}
	r := q.request()
	r.Body = &payload{next: c.next}
	res, err := c.engine.Put(c.ctx, r)
	if err != nil {
		return err
	}
	return c.send(frameRow, &res)
}

func (c *callState) remove() error {
	q, err := asked[engine.RemoveRequest](c)
	if err != nil {
		return err
	}
	res, err := c.engine.Remove(c.ctx, q)
	if err != nil {
		return err
	}
	return c.send(frameRow, &res)
}

func (c *callState) get() error {
	q, err := asked[engine.GetRequest](c)
	if err != nil {
		return err
	}
	r, err := c.engine.Get(c.ctx, q)
	if err != nil {
		return err
	}
	c.node.Accessed(r.Info().Zone, q.Key)
	return c.sendObject(r)
}

// sendObject sends what a reader reads: its Info, the payload, and its end.
func (c *callState) sendObject(r *engine.Reader) error {
	defer r.Close()
	info := r.Info()
	if err := c.send(frameRow, &info); err != nil {
		return err
	}
	if _, err := r.WriteTo(dataWriter{c.frames}); err != nil {
		return err
	}
	return c.sendBytes(frameDataEnd, nil)
}

// dataWriter makes frames of what is written.
type dataWriter struct{ f *frames }

func (w dataWriter) Write(b []byte) (n int, err error) {
	for n < len(b) {
		part := b[n:min(len(b), n+dataFrame)]
		if err := w.f.sendBytes(frameData, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

func (c *callState) list() error {
	q, err := asked[engine.ListRequest](c)
	if err != nil {
		return err
	}
	return c.engine.List(c.ctx, q, row[engine.Entry](c))
}

func (c *callState) history() error {
	q, err := asked[historyCall](c)
	if err != nil {
		return err
	}
	return c.engine.History(c.ctx, q.Zone, q.Key, row[engine.Entry](c))
}

// tail ends with errLent when the store is to be lent; the client goes on behind
// what it has.
func (c *callState) tail() error {
	q, err := asked[engine.TailRequest](c)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(c.ctx)
	defer stop()
	defer context.AfterFunc(c.life, stop)()
	err = c.engine.Tail(ctx, q, row[engine.EventRow](c))
	if c.life.Err() != nil && c.ctx.Err() == nil {
		return errLent
	}
	return err
}

func (c *callState) query() error {
	q, err := asked[queryCall](c)
	if err != nil {
		return err
	}
	return c.engine.QueryProjection(c.ctx, q.Name, q.Zone, q.Prefix, q.At, row[engine.Row](c))
}

// overviewRow is an Overview on its way.
type overviewRow struct {
	Status    engine.Status
	Unsealed  uint64
	StateRoot fcp.Hash
	Doubt     *failure
	Alerts    []engine.Alert
	Mesh      Status
}

func (c *callState) overview() error {
	root, err := asked[bool](c)
	if err != nil {
		return err
	}
	o, err := Local{c.engine}.Overview(c.ctx, root)
	if err != nil {
		return err
	}
	mesh, err := c.server.statusOf(c.opening)
	if err != nil {
		return err
	}
	r := &overviewRow{Status: o.Status, Unsealed: o.Unsealed, StateRoot: o.StateRoot, Alerts: o.Alerts, Mesh: *mesh}
	if o.Doubt != nil {
		f := failureOf(o.Doubt)
		r.Doubt = &f
	}
	return c.send(frameRow, r)
}

// maxUse bounds what one put with a token takes, in bytes: its size is part of what
// is decided.
const maxUse = 64 << 20

// use reads or writes an object for the holder of a token, who signs a challenge
// for this one use.
func (c *callState) use() error {
	q, err := asked[useCall](c)
	if err != nil {
		return err
	}
	chain, err := authority.ParseChain(q.Token)
	if err != nil {
		return err
	}
	caller := c.caller(chain)
	switch {
	case q.Get != nil:
		r, err := c.engine.GetFor(c.ctx, caller, *q.Get)
		if err != nil {
			return err
		}
		return c.sendObject(r)
	case q.Put != nil:
		body, err := io.ReadAll(io.LimitReader(&payload{next: c.next}, maxUse+1))
		if err != nil {
			return fcp.Wrap(fcp.CodeMalformed, err, "read the payload")
		}
		if len(body) > maxUse {
			return fcp.Errorf(fcp.CodeTooLarge, "a put with a token takes at most %d bytes", maxUse)
		}
		r := q.Put.request()
		r.Bytes = body
		res, err := c.engine.PutFor(c.ctx, caller, r)
		if err != nil {
			return err
		}
		return c.send(frameRow, &res)
	case q.Remove != nil:
		res, err := c.engine.RemoveFor(c.ctx, caller, *q.Remove)
		if err != nil {
			return err
		}
		return c.send(frameRow, &res)
	}
	return fcp.Errorf(fcp.CodeMalformed, "a use of a token for nothing")
}

// caller is the holder of a token, at the other end of the socket.
func (c *callState) caller(chain *authority.Chain) *engine.Caller {
	return &engine.Caller{Token: chain, Prove: func(ch authority.Challenge, leaf, request fcp.Hash) ([]byte, error) {
		if err := c.send(frameProve, &proveCall{ch.Kind, ch.Value, leaf, request}); err != nil {
			return nil, err
		}
		var signature []byte
		return signature, c.expect(frameProof, &signature)
	}}
}

func (c *callState) grants() error {
	q, err := asked[zoneCall](c)
	if err != nil {
		return err
	}
	refs, err := Local{c.engine}.Grants(q.Zone)
	if err != nil {
		return err
	}
	return c.send(frameRow, refs)
}

// revoke appends what the owner signed in the client's process.
func (c *callState) revoke() error {
	body, err := asked[[]byte](c)
	if err != nil {
		return err
	}
	r, err := c.engine.AppendRevocation(c.ctx, body)
	if err != nil {
		return err
	}
	return c.send(frameRow, r.Ref())
}

func (c *callState) refusal() error {
	q, err := asked[idCall](c)
	if err != nil {
		return err
	}
	r, err := c.engine.FindRefusal(q.ID)
	if err != nil {
		return err
	}
	receipt, key, err := c.engine.RefusalBytes(r)
	if err != nil {
		return err
	}
	return c.send(frameRow, &refusalRow{receipt, key, r.Position})
}

func (c *callState) roots() error {
	roots, err := rootsOf(c.engine)
	if err != nil {
		return err
	}
	return c.send(frameRow, roots)
}
