package otlp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"fcp"
)

type received struct {
	ResourceSpans []struct {
		Resource   struct{ Attributes []attribute }
		ScopeSpans []struct{ Spans []span }
	}
}

func TestSpansArriveAtTheCollector(t *testing.T) {
	got := make(chan received, 4)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b received
		if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/json" || json.NewDecoder(r.Body).Decode(&b) != nil {
			t.Error("not OTLP/HTTP with JSON:", r.URL, r.Header)
		}
		got <- b
	}))
	defer s.Close()
	now := time.Unix(1000, 0)
	e, err := New(Options{Endpoint: s.URL + "/", Service: "fcpd", Instance: "n1", Now: func() time.Time { now = now.Add(time.Second); return now }, Rand: rand.Reader, Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, outer := e.Start(context.Background(), "get")
	_, inner := e.Start(ctx, "fetch")
	inner(fcp.Errorf(fcp.CodeNotFound, "the secret name of an object"))
	outer(nil)
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	b := <-got
	spans := b.ResourceSpans[0].ScopeSpans[0].Spans
	if len(spans) != 2 || b.ResourceSpans[0].Resource.Attributes[0].Value.String != "fcpd" {
		t.Fatalf("%+v", b)
	}
	in, out := spans[0], spans[1]
	if in.Name != "fetch" || in.ParentID != out.SpanID || in.TraceID != out.TraceID || out.ParentID != "" || len(out.TraceID) != 32 || len(out.SpanID) != 16 {
		t.Errorf("%+v is not below %+v", in, out)
	}
	if in.Status.Code != 2 || in.Attrs[0].Value.String != fcp.CodeNotFound.String() || out.Status.Code != 0 {
		t.Errorf("%+v, %+v", in, out)
	}
	if out.Start != "1001000000000" || out.End != "1004000000000" {
		t.Error("times:", out.Start, out.End)
	}
	if all, err := json.Marshal(b); err != nil || strings.Contains(string(all), "secret") {
		t.Error("a span tells the text of an error")
	}
}

func TestACollectorThatIsAwayCostsNothing(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	e, err := New(Options{Endpoint: s.URL, Now: time.Now, Rand: rand.Reader, Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for range maxSpans + 10 {
		_, end := e.Start(context.Background(), "x")
		end(nil)
	}
	e.mu.Lock()
	if len(e.spans) != maxSpans || e.dropped != 10 {
		t.Errorf("%d wait, %d dropped", len(e.spans), e.dropped)
	}
	e.mu.Unlock()
	if err := e.Close(context.Background()); err != nil {
		t.Error(err)
	}
	for _, u := range []string{"", "127.0.0.1:4318", "ftp://x", "http://"} {
		if _, err := New(Options{Endpoint: u}); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Errorf("%q: %v", u, err)
		}
	}
}
