// Package api is a node's door for programs of the same machine: HTTP over a unix
// socket with mode 0600. Who may open the socket is who may use the store.
//
//	GET  /livez              200 while the process serves
//	GET  /readyz             200 when the store is open for writing, else 503
//	GET  /metrics            counters, Prometheus text format (spec/wire.md section 17)
//	GET  /v1/status          store and peers, JSON
//	GET  /v1/object?zone=&key=   the payload of the current version
//	PUT  /v1/object?zone=&key=   writes a version; answers with it, JSON
//	POST /v1/call/NAME       the methods of Store and what goes beyond them (frame.go)
//	POST /v1/lend            lends the store itself until the request's body ends
//
// An error is JSON {code, class, message, next} with the status of its class.
//
// # Invariants
//
//   - A request is answered by one opening of the store: it is not lent before the
//     requests under way ended. Only subscriptions and waits are broken off; they go on
//     by themselves at the client.
//   - The owner's key never comes here: who acts as the owner signs in his own
//     process, or borrows the store.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/node"
)

// Options configures New. Socket, Open and Now are required.
type Options struct {
	Socket string
	// Open opens the store and starts its node: at first, and again whenever the
	// store was lent.
	Open   func(context.Context) (*engine.Engine, *node.Node, error)
	Now    func() time.Time
	Logger *slog.Logger // nil: discard
	// Trace, when given, is called for each request with its name; the function it
	// returns is called at its end.
	Trace func(ctx context.Context, name string) (context.Context, func(error))
}

// opening is one time the store is open.
type opening struct {
	engine *engine.Engine
	node   *node.Node
	life   context.Context // ends when the store is to be lent
	end    context.CancelFunc
	users  sync.WaitGroup

	since    time.Time
	patience map[fcp.WriterID]time.Duration // how long who was there is waited for; nil: the daemon began
}

// Server serves one store and its node.
type Server struct {
	opt    Options
	http   http.Server
	listen net.Listener
	fatal  chan error    // the store could not be opened again
	lend   chan struct{} // one place: who lends
	began  time.Time

	mu       sync.Mutex
	cur      *opening                       // nil: lent; guarded by mu
	changed  chan struct{}                  // closed when cur changes; guarded by mu
	lentTo   string                         // guarded by mu
	closing  bool                           // guarded by mu
	seen     []node.Arrival                 // of nodes before; guarded by mu
	patience map[fcp.WriterID]time.Duration // with those the node before knew; guarded by mu

	tokensRefused atomic.Uint64
}

// New opens the store, then the socket. One that a dead process left is replaced;
// the store's lock keeps two living ones apart.
func New(ctx context.Context, o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{opt: o, fatal: make(chan error, 1), lend: make(chan struct{}, 1), changed: make(chan struct{}), began: o.Now()}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	err := removeSocket(o.Socket)
	if err == nil {
		s.listen, err = listenPrivate(o.Socket)
	}
	if err != nil {
		return nil, errors.Join(err, s.closeStore())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]string{"status": "live"}) })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/health", s.health)
	mux.HandleFunc("POST /v1/repair", s.repair)
	mux.HandleFunc("GET /v1/object", s.get)
	mux.HandleFunc("PUT /v1/object", s.put)
	mux.HandleFunc("POST /v1/call/{name}", s.call)
	mux.HandleFunc("POST /v1/lend", s.lendStore)
	mux.HandleFunc("POST /{$}", refuseFCP1)
	mux.HandleFunc("POST /rpc", refuseFCP1)
	s.http = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	return s, nil
}

func (s *Server) open(ctx context.Context) error {
	e, n, err := s.opt.Open(ctx)
	if err != nil {
		return err
	}
	o := &opening{engine: e, node: n, since: s.opt.Now()}
	o.life, o.end = context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	o.patience = s.patience
	if s.closing {
		return errors.Join(n.Close(), e.Close())
	}
	n.ResumeArrivals(s.seen)
	s.cur, s.lentTo = o, ""
	s.changedLocked()
	return nil
}

func (s *Server) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// take waits for the store to be here and keeps it open until done is called.
func (s *Server) take(ctx context.Context) (o *opening, done func(), err error) {
	for {
		s.mu.Lock()
		if o := s.cur; o != nil {
			o.users.Add(1)
			s.mu.Unlock()
			return o, o.users.Done, nil
		}
		next, to := s.changed, s.lentTo
		s.mu.Unlock()
		select {
		case <-next:
		case <-ctx.Done():
			return nil, nil, fcp.Errorf(fcp.CodeTimeout, "the daemon has lent the store to %s", to)
		}
	}
}

// closeStore ends what is under way and closes node and store.
func (s *Server) closeStore() error {
	s.mu.Lock()
	o := s.cur
	s.cur = nil
	s.changedLocked()
	s.mu.Unlock()
	if o == nil {
		return nil
	}
	o.end()
	o.users.Wait()
	patience := o.patienceLeft(o.node.Contacts(), s.opt.Now())
	s.mu.Lock()
	s.seen, s.patience = o.node.Arrivals(), patience
	s.mu.Unlock()
	return errors.Join(o.node.Close(), o.engine.Close())
}

// Address returns the address of the node's socket; "" while the store is lent.
func (s *Server) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == nil {
		return ""
	}
	return s.cur.node.Addr().String()
}

// Peers returns where the peers that are there listen.
func (s *Server) Peers() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur != nil {
		for _, p := range s.cur.node.Peers() {
			out = append(out, p.Address)
		}
	}
	return out
}

// Serve answers until Close, or until the store cannot be opened again.
func (s *Server) Serve() error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listen) }()
	select {
	case err := <-s.fatal:
		return err
	case err := <-served:
		if !errors.Is(err, http.ErrServerClosed) {
			return fcp.Wrap(fcp.CodeInternal, err, "serve the socket")
		}
		return nil
	}
}

// Close finishes what is under way, within ctx, removes the socket and closes the
// store. Subscriptions are broken off at once.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	if s.cur != nil {
		s.cur.end()
	}
	s.mu.Unlock()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	if rerr := os.Remove(s.opt.Socket); err == nil && !errors.Is(rerr, os.ErrNotExist) {
		err = rerr
	}
	return errors.Join(fcp.Wrap(fcp.CodeInternal, err, "close the socket"), s.closeStore())
}

// lendStore closes the store so that the caller's process can open it, and opens it
// again when the body of the request ends, which it does when that process dies.
func (s *Server) lendStore(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	if err := c.EnableFullDuplex(); err != nil {
		fail(w, fcp.Wrap(fcp.CodeInternal, err, "lend the store"))
		return
	}
	back := make(chan struct{}) // the body ended, or who asked hung up
	go func() {
		defer close(back)
		_, _ = io.Copy(io.Discard, r.Body) // however it ends
	}()
	select {
	case s.lend <- struct{}{}:
		defer func() { <-s.lend }()
	case <-back:
		return
	}
	s.mu.Lock()
	s.lentTo = r.URL.Query().Get("to")
	s.mu.Unlock()
	if err := s.closeStore(); err != nil {
		s.opt.Logger.Error("the store did not close well", "err", err)
	}
	s.opt.Logger.Info("the store is lent", "to", r.URL.Query().Get("to"))
	w.WriteHeader(http.StatusOK)
	if c.Flush() == nil {
		<-back
	}
	if err := s.reopen(); err != nil {
		s.fatal <- fcp.Wrap(fcp.CodeInternal, err, "take the store back")
		return
	}
	s.opt.Logger.Info("the store is back")
}

// reopen waits a moment for a process that died with the store open.
func (s *Server) reopen() error {
	const patience, pause = 10 * time.Second, 20 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		err := s.open(context.Background())
		if !errors.Is(err, fcp.CodeLocked) || waited >= patience {
			return err
		}
		time.Sleep(pause)
	}
}

// refuseFCP1 answers programs that speak the connector protocol of FCP version 1,
// which is JSON-RPC 2.0.
func refuseFCP1(w http.ResponseWriter, r *http.Request) {
	var q struct {
		ID json.RawMessage `json:"id"`
	}
	if json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&q) != nil || q.ID == nil {
		q.ID = json.RawMessage("null")
	}
	answer(w, map[string]any{"jsonrpc": "2.0", "id": q.ID, "error": map[string]any{
		"code": -32601, "message": "this is an FCP2 node; it does not speak the JSON-RPC of FCP1",
		"data": map[string]string{"code": fcp.CodeVersion.String(), "next": "use a connector of version 2, or the API under /v1"},
	}})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // the reader may be gone; there is nobody else to tell
}

// Failure is the JSON form of an error.
type Failure struct {
	Code    string `json:"code"`
	Class   string `json:"class"`
	Message string `json:"message"`
	Next    string `json:"next"`
}

var statusOf = map[fcp.Class]int{fcp.Invalid: 400, fcp.Denied: 403, fcp.Conflict: 409, fcp.NotEnough: 404, fcp.Corrupt: 500, fcp.Transient: 503, fcp.Fatal: 500}

func fail(w http.ResponseWriter, err error) {
	code := fcp.CodeOf(err)
	f := Failure{Code: code.String(), Class: code.Class().String(), Message: err.Error(), Next: code.Next()}
	var e *fcp.Error
	if errors.As(err, &e) {
		f.Next = e.NextStep()
	}
	w.Header().Set("Content-Type", "application/json")
	status, ok := statusOf[code.Class()]
	if !ok {
		status = http.StatusInternalServerError
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(f)
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	o, why := s.cur, "the store is lent to "+s.lentTo
	s.mu.Unlock()
	if o != nil {
		why = ""
		if err := errors.Join(o.engine.Log().Crashed(), o.engine.Log().Doubt()); err != nil {
			why = err.Error()
		}
	}
	if why != "" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		answer(w, map[string]string{"status": "not ready", "why": why, "code": fcp.CodeDependency.String(), "message": why})
		return
	}
	answer(w, map[string]string{"status": "ready"})
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	o, done, err := s.take(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	defer done()
	q := r.URL.Query()
	in, err := o.engine.Get(r.Context(), engine.GetRequest{Zone: fcp.ZoneID(q.Get("zone")), Key: q.Get("key")})
	if err != nil {
		fail(w, err)
		return
	}
	defer in.Close()
	o.node.Accessed(in.Info().Zone, q.Get("key"))
	v := in.Info().Version
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Etag", `"`+v.Hash.String()+`"`)
	if _, err := in.WriteTo(w); err != nil {
		// What was sent is true but not whole: the connection breaks, so that the
		// reader cannot take it for the end.
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) put(w http.ResponseWriter, r *http.Request) {
	o, done, err := s.take(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	defer done()
	q := r.URL.Query()
	res, err := o.engine.Put(r.Context(), engine.PutRequest{Zone: fcp.ZoneID(q.Get("zone")), Key: q.Get("key"),
		Body: r.Body, Idempotency: r.Header.Get("Idempotency-Key")})
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, map[string]any{"hash": res.Hash, "generation": res.Generation, "object": res.Object, "size": res.Size, "duplicate": res.Duplicate})
}
