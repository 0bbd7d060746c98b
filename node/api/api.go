// Package api is a node's door for programs of the same machine: HTTP over a unix
// socket with mode 0600. Who may open the socket is who may use the store.
//
//	GET  /livez              200 while the process serves
//	GET  /readyz             200 when the store is open for writing, else 503
//	GET  /metrics            counters, Prometheus text format (spec/wire.md section 17)
//	GET  /v1/status          store and peers, JSON
//	GET  /v1/object?zone=&key=   the payload of the current version
//	PUT  /v1/object?zone=&key=   writes a version; answers with it, JSON
//
// An error is JSON {code, class, message, next} with the status of its class.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/node"
)

// Server serves one engine and its node.
type Server struct {
	engine *engine.Engine
	node   *node.Node
	http   http.Server
	socket string
	listen net.Listener
}

// New opens the socket. One that a dead process left is replaced; the store's lock
// keeps two living ones apart.
func New(socket string, e *engine.Engine, n *node.Node) (*Server, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "replace the socket")
	}
	l, err := listenPrivate(socket)
	if err != nil {
		return nil, err
	}
	s := &Server{engine: e, node: n, socket: socket, listen: l}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]string{"status": "live"}) })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/object", s.get)
	mux.HandleFunc("PUT /v1/object", s.put)
	s.http = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	return s, nil
}

// listenPrivate makes the socket inside a directory that nobody else can enter and
// moves it out, so that there is no moment at which others could connect.
func listenPrivate(socket string) (net.Listener, error) {
	dir, err := os.MkdirTemp(dirOf(socket), ".fcpd-")
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "make the socket")
	}
	defer os.RemoveAll(dir)
	temp := dir + "/s"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "make the socket")
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temp, 0o600), os.Rename(temp, socket)); err != nil {
		return nil, errors.Join(fcp.Wrap(fcp.CodeDisk, err, "make the socket"), l.Close())
	}
	return l, nil
}

func dirOf(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if os.IsPathSeparator(path[i]) {
			return path[:i+1]
		}
	}
	return "."
}

// Serve answers until Close.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listen); !errors.Is(err, http.ErrServerClosed) {
		return fcp.Wrap(fcp.CodeInternal, err, "serve the socket")
	}
	return nil
}

// Close finishes what is under way, within ctx, and removes the socket.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	if rerr := os.Remove(s.socket); err == nil && !errors.Is(rerr, os.ErrNotExist) {
		err = rerr
	}
	return fcp.Wrap(fcp.CodeInternal, err, "close the socket")
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
	if err := errors.Join(s.engine.Log().Crashed(), s.engine.Log().Doubt()); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		answer(w, map[string]string{"status": "not ready", "why": err.Error()})
		return
	}
	answer(w, map[string]string{"status": "ready"})
}

// metrics writes the counters of spec/wire.md section 17 that this build has, and
// our own.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	m := s.node.Metrics()
	for _, c := range []struct {
		name, help string
		value      uint64
	}{
		{"fcps_datagrams_rx_total", "session datagrams received", m.DatagramsReceived.Load()},
		{"fcps_datagrams_mac_fail_total", "session datagrams that do not authenticate", m.MACFailed.Load()},
		{"fcps_symbols_aead_fail_total", "symbols that do not open", m.SymbolsFailed.Load()},
		{"fcps_replay_drop_total", "session datagrams seen before", m.Replayed.Load()},
		{"fcp_frames_refused_total", "symbol frames against the rules", m.FramesRefused.Load()},
		{"fcp_symbols_sent_total", "symbols sent", m.SymbolsSent.Load()},
		{"fcp_symbols_taken_total", "good symbols taken in", m.SymbolsTaken.Load()},
		{"fcp_symbols_false_total", "symbols that do not fit their commitment", m.SymbolsFalse.Load()},
		{"fcp_events_sent_total", "control events sent to peers", m.EventsSent.Load()},
		{"fcp_events_taken_total", "control events taken from peers", m.EventsTaken.Load()},
		{"fcp_segments_rebuilt_total", "segments rebuilt from symbols", m.Rebuilt.Load()},
		{"fcp_shares_kept_total", "shares taken in for the mesh", m.SharesKept.Load()},
	} {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s counter\n%s %d\n", c.name, c.help, c.name, c.name, c.value)
	}
	fmt.Fprintf(w, "# HELP fcp_peers members with a session\n# TYPE fcp_peers gauge\nfcp_peers %d\n", len(s.node.Peers()))
	fmt.Fprintf(w, "# HELP fcp_log_position last durable position\n# TYPE fcp_log_position gauge\nfcp_log_position %d\n", s.engine.Log().Durable())
}

// Status is the answer of /v1/status.
type Status struct {
	Writer   string    `json:"writer"`
	Address  string    `json:"address"`
	Position uint64    `json:"position"`
	Segments int       `json:"segments"` // of the data plane that this node sealed
	Missing  int       `json:"missing"`  // shares of them that are not where they should be
	Peers    []Peer    `json:"peers"`
	Arrivals []Arrival `json:"revocations"`
}

// Peer is a member with a session.
type Peer struct {
	Writer  string    `json:"writer"`
	Name    string    `json:"name"`
	Address string    `json:"address"`
	Since   time.Time `json:"since"`
}

// Arrival says after how many milliseconds a revocation of this node was at each
// peer.
type Arrival struct {
	Zone fcp.ZoneID         `json:"zone"`
	Seq  uint64             `json:"seq"`
	At   time.Time          `json:"at"`
	Seen map[string]float64 `json:"seen_ms"` // by writer id
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st := Status{Writer: s.node.Writer().String(), Address: s.node.Addr().String(), Position: s.engine.Position(), Peers: []Peer{}, Arrivals: []Arrival{}}
	for _, p := range s.node.Peers() {
		st.Peers = append(st.Peers, Peer{p.Writer.String(), p.Name, p.Address, p.Since})
	}
	for _, a := range s.node.Arrivals() {
		seen := map[string]float64{}
		for p, d := range a.Seen {
			seen[p.String()] = float64(d.Microseconds()) / 1000
		}
		st.Arrivals = append(st.Arrivals, Arrival{a.Feed.Zone, a.Seq, a.At, seen})
	}
	var err error
	if st.Segments, st.Missing, err = s.node.Spread(); err != nil {
		fail(w, err)
		return
	}
	answer(w, st)
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	in, err := s.engine.Get(r.Context(), engine.GetRequest{Zone: fcp.ZoneID(q.Get("zone")), Key: q.Get("key")})
	if err != nil {
		fail(w, err)
		return
	}
	defer in.Close()
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
	q := r.URL.Query()
	res, err := s.engine.Put(r.Context(), engine.PutRequest{Zone: fcp.ZoneID(q.Get("zone")), Key: q.Get("key"),
		Body: r.Body, Idempotency: r.Header.Get("Idempotency-Key")})
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, map[string]any{"hash": res.Hash, "generation": res.Generation, "object": res.Object, "size": res.Size, "duplicate": res.Duplicate})
}

// Client talks to a Server.
type Client struct{ http http.Client }

// NewClient returns a client for a socket.
func NewClient(socket string) *Client {
	return &Client{http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}}
}

// do sends one request; an answer that is no success becomes an error with its code.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://fcpd"+path, body)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "the request")
	}
	r, err := c.http.Do(req)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeNotFound, err, "reach the daemon")
	}
	if r.StatusCode == http.StatusOK {
		return r, nil
	}
	defer r.Body.Close()
	var f Failure
	if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&f); err != nil {
		return nil, fcp.Errorf(fcp.CodeInternal, "the daemon answers %s", r.Status)
	}
	for _, code := range fcp.Codes() {
		if code.String() == f.Code {
			return nil, (&fcp.Error{Code: code, Detail: f.Message}).WithNext(f.Next)
		}
	}
	return nil, fcp.Errorf(fcp.CodeInternal, "the daemon answers %s", f.Message)
}

// Get returns the payload of a key's current version. The caller closes it.
func (c *Client) Get(ctx context.Context, zone fcp.ZoneID, key string) (io.ReadCloser, error) {
	r, err := c.do(ctx, http.MethodGet, objectPath(zone, key), nil)
	if err != nil {
		return nil, err
	}
	return r.Body, nil
}

// Put writes a version of a key.
func (c *Client) Put(ctx context.Context, zone fcp.ZoneID, key string, body io.Reader) error {
	r, err := c.do(ctx, http.MethodPut, objectPath(zone, key), body)
	if err != nil {
		return err
	}
	return fcp.Wrap(fcp.CodeInternal, r.Body.Close(), "end the answer")
}

func objectPath(zone fcp.ZoneID, key string) string {
	return "/v1/object?" + url.Values{"zone": {zone.String()}, "key": {key}}.Encode()
}

// Status returns the daemon's status.
func (c *Client) Status(ctx context.Context) (st Status, err error) {
	r, err := c.do(ctx, http.MethodGet, "/v1/status", nil)
	if err != nil {
		return st, err
	}
	defer r.Body.Close()
	err = json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&st)
	return st, fcp.Wrap(fcp.CodeMalformed, err, "the daemon's status")
}
