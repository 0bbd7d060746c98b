// Package otlp sends spans to a collector over OTLP/HTTP with JSON bodies
// (OpenTelemetry Protocol Specification 1.x, "OTLP/HTTP", "JSON Protobuf Encoding"):
// what a daemon needs of tracing, and no more.
//
// # Invariants
//
//   - Without an endpoint nothing is made and nothing is sent.
//   - Spans never delay what they describe: they wait in a bounded buffer, and what
//     does not fit is counted and dropped.
//   - A span has a name, its times and an error's code: no key, no payload, no text of
//     an error.
package otlp

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"fcp"
)

// Options configures New. Endpoint, Now and Rand are required.
type Options struct {
	Endpoint string // base URL of the collector: "http://127.0.0.1:4318"
	Service  string // service.name
	Instance string // service.instance.id
	Now      func() time.Time
	Rand     io.Reader    // safe for concurrent use
	Logger   *slog.Logger // nil: discard

	Every time.Duration // between sends; 0: 5 s
}

// Limits of the exporter.
const (
	maxSpans  = 4096 // waiting; what comes above is dropped
	sendSpans = 512  // in one request
	sendWait  = 5 * time.Second
)

// Exporter collects spans and sends them. Safe for concurrent use.
type Exporter struct {
	opt    Options
	url    string
	client http.Client
	stop   chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	spans   []span // guarded by mu
	dropped uint64 // guarded by mu
}

type span struct {
	TraceID  string      `json:"traceId"`
	SpanID   string      `json:"spanId"`
	ParentID string      `json:"parentSpanId,omitempty"`
	Name     string      `json:"name"`
	Kind     int         `json:"kind"` // 1 internal, 2 server
	Start    string      `json:"startTimeUnixNano"`
	End      string      `json:"endTimeUnixNano"`
	Attrs    []attribute `json:"attributes,omitempty"`
	Status   status      `json:"status"`
}

type status struct {
	Code int `json:"code,omitempty"` // 2 error
}

type attribute struct {
	Key   string `json:"key"`
	Value struct {
		String string `json:"stringValue"`
	} `json:"value"`
}

func text(key, value string) (a attribute) {
	a.Key, a.Value.String = key, value
	return a
}

// New begins to send. CodeInvalidArgument for an endpoint that is no http or https URL.
func New(o Options) (*Exporter, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%.200q is no URL of an OTLP/HTTP collector", o.Endpoint).WithNext("write it as http://127.0.0.1:4318")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Every == 0 {
		o.Every = 5 * time.Second
	}
	e := &Exporter{opt: o, url: strings.TrimSuffix(u.String(), "/") + "/v1/traces", stop: make(chan struct{}), done: make(chan struct{})}
	e.client.Timeout = sendWait
	go e.run()
	return e, nil
}

type parentKey struct{}

type parent struct{ trace, span string }

// Start begins a span below the one that ctx carries. The function returned ends it,
// once; err is what it came to.
func (e *Exporter) Start(ctx context.Context, name string) (context.Context, func(err error)) {
	up, nested := ctx.Value(parentKey{}).(parent)
	kind := 1
	if !nested {
		up, kind = parent{trace: e.id(16)}, 2
	}
	s := span{TraceID: up.trace, SpanID: e.id(8), ParentID: up.span, Name: name, Kind: kind, Start: nanoseconds(e.opt.Now())}
	return context.WithValue(ctx, parentKey{}, parent{s.TraceID, s.SpanID}), func(err error) {
		s.End = nanoseconds(e.opt.Now())
		if err != nil {
			s.Status.Code = 2
			s.Attrs = append(s.Attrs, text("error.type", fcp.CodeOf(err).String()))
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.spans) >= maxSpans {
			e.dropped++
			return
		}
		e.spans = append(e.spans, s)
	}
}

func nanoseconds(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

func (e *Exporter) id(size int) string {
	b := make([]byte, size)
	if _, err := io.ReadFull(e.opt.Rand, b); err != nil {
		e.opt.Logger.Warn("a span has no id of its own", "err", err)
	}
	b[0] |= 1 // an id of zeros is none
	return hex.EncodeToString(b)
}

func (e *Exporter) run() {
	defer close(e.done)
	t := time.NewTicker(e.opt.Every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			e.flush(context.Background())
		case <-e.stop:
			return
		}
	}
}

// Close sends what is left, within ctx, and ends. What the collector does not take is
// lost.
func (e *Exporter) Close(ctx context.Context) error {
	close(e.stop)
	<-e.done
	e.flush(ctx)
	return nil
}

// flush sends what waits. A collector that is away costs its spans, and nobody waits.
func (e *Exporter) flush(ctx context.Context) {
	for {
		e.mu.Lock()
		n := min(len(e.spans), sendSpans)
		batch, dropped := e.spans[:n:n], e.dropped
		e.spans, e.dropped = e.spans[n:], 0
		if len(e.spans) == 0 {
			e.spans = nil
		}
		e.mu.Unlock()
		if dropped > 0 {
			e.opt.Logger.Warn("spans were dropped", "count", dropped)
		}
		if n == 0 {
			return
		}
		if err := e.send(ctx, batch); err != nil {
			e.opt.Logger.Warn("spans were not sent", "count", n, "err", err)
			return
		}
	}
}

func (e *Exporter) send(ctx context.Context, batch []span) error {
	body, err := json.Marshal(map[string]any{"resourceSpans": []any{map[string]any{
		"resource":   map[string]any{"attributes": []attribute{text("service.name", e.opt.Service), text("service.instance.id", e.opt.Instance)}},
		"scopeSpans": []any{map[string]any{"scope": map[string]string{"name": "fcp/node/otlp"}, "spans": batch}},
	}}})
	if err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "encode spans")
	}
	ctx, cancel := context.WithTimeout(ctx, sendWait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return fcp.Wrap(fcp.CodeInvalidArgument, err, "the collector's URL")
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(r)
	if err != nil {
		return fcp.Wrap(fcp.CodeExternal, err, "reach the collector")
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fcp.Errorf(fcp.CodeExternal, "the collector answers %s", resp.Status)
	}
	return nil
}
