package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"

	"fcp"
)

// Client talks to a Server. Safe for concurrent use.
type Client struct{ http http.Client }

// NewClient returns a client for a socket. Nothing is sent yet.
func NewClient(socket string) *Client {
	return &Client{http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := dialSocket(ctx, socket)
			if err != nil {
				return nil, err
			}
			return &watchedConn{Conn: c}, nil
		}}}}
}

// watchedConn tells when nothing more comes. A request whose body waits for more to send
// is waited for by the transport, also when the daemon is gone that would read it.
type watchedConn struct {
	net.Conn
	mu    sync.Mutex
	gone  bool   // guarded by mu
	ended func() // guarded by mu
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.tell(true, nil)
	}
	return n, err
}

// tell notes what to call at the end, or that it came, and calls it once both are known.
func (c *watchedConn) tell(gone bool, ended func()) {
	c.mu.Lock()
	if c.gone = c.gone || gone; ended != nil {
		c.ended = ended
	}
	call := c.ended
	if !c.gone {
		call = nil
	}
	c.mu.Unlock()
	if call != nil {
		call()
	}
}

// untilGone has a pipe that is a request's body end with the connection.
func untilGone(ctx context.Context, body *io.PipeReader) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if c, ok := i.Conn.(*watchedConn); ok {
			c.tell(false, func() { body.CloseWithError(errors.New("the daemon is gone")) })
		}
	}})
}

// do sends one request; an answer that is no success becomes an error with its code.
// A daemon that is not there is CodeDependency.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	if pipe, ok := body.(*io.PipeReader); ok {
		ctx = untilGone(ctx, pipe)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://fcpd"+path, body)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "the request")
	}
	r, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fcp.Errorf(fcp.CodeTimeout, "the daemon did not answer in time")
		}
		return nil, fcp.Wrap(fcp.CodeDependency, err, "reach the daemon")
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
			// The message of a code is printed where the error is; here is what comes behind it.
			detail := strings.TrimPrefix(strings.TrimPrefix(f.Message, code.String()+": "+code.Sentence()), ": ")
			return nil, (&fcp.Error{Code: code, Detail: detail}).WithNext(f.Next)
		}
	}
	return nil, fcp.Errorf(fcp.CodeInternal, "the daemon answers %s", f.Message)
}

// fetch sends one request without a body and returns the answer, of at most limit
// bytes.
func (c *Client) fetch(ctx context.Context, path string, limit int64) ([]byte, error) {
	r, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(io.LimitReader(r.Body, limit))
	return b, fcp.Wrap(fcp.CodeDependency, err, "read the daemon's answer")
}

// Ready returns nil when the daemon is there and its store can be written.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.fetch(ctx, "/readyz", 1<<16)
	return err
}

// Metrics returns what /metrics shows.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	b, err := c.fetch(ctx, "/metrics", 1<<20)
	return string(b), err
}

// Status returns the daemon's status.
func (c *Client) Status(ctx context.Context) (st Status, err error) {
	b, err := c.fetch(ctx, "/v1/status", 1<<20)
	if err != nil {
		return st, err
	}
	return st, fcp.Wrap(fcp.CodeMalformed, json.Unmarshal(b, &st), "the daemon's status")
}

// Borrow has the daemon close its store and keep away from it. The caller may open
// the store until release, which returns when the daemon has it again; if this
// process dies, the daemon takes it back by itself. who names the borrower in
// messages.
func (c *Client) Borrow(ctx context.Context, who string) (release func() error, err error) {
	pr, pw := io.Pipe()
	// Not ctx once it is lent: an interrupted command still closes the store before it
	// gives it back.
	asking, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	lent := context.AfterFunc(ctx, func() {
		giveUp()
		pr.CloseWithError(context.Cause(ctx))
	})
	r, err := c.do(asking, http.MethodPost, "/v1/lend?"+url.Values{"to": {who}}.Encode(), pr)
	if !lent() { // it is given back at once
		if err == nil {
			err = errors.Join(fcp.Errorf(fcp.CodeTimeout, "the daemon did not lend the store in time"), r.Body.Close())
		}
	}
	if err != nil {
		giveUp()
		return nil, errors.Join(err, pw.Close())
	}
	return func() error {
		defer giveUp()
		err := pw.Close()
		_, rerr := io.Copy(io.Discard, r.Body)
		return fcp.Wrap(fcp.CodeDependency, errors.Join(err, rerr, r.Body.Close()), "give the store back")
	}, nil
}

// exchange is a call under way, seen from the client.
type exchange struct {
	frames
	body io.Closer      // the answer's
	pipe *io.PipeWriter // into the request's body
	up   chan error     // what the upload came to; nil: there was none
	end  End
	stop func() bool // ends the watch of the caller's context
}

// errEnded ends an answer.
var errEnded = errors.New("the answer ended")

// lentError says that the store was lent while the answer was under way.
type lentError struct{ error }

func (e lentError) Unwrap() error { return e.error }

// begin starts a call. upload, if there is any, is sent behind the request.
func (c *Client) begin(ctx context.Context, name string, request any, upload io.Reader) (*exchange, error) {
	pr, pw := io.Pipe()
	x := &exchange{pipe: pw, up: make(chan error, 1)}
	x.w = pw
	// The transport waits for the body even of a request that was given up.
	x.stop = context.AfterFunc(ctx, func() { pr.CloseWithError(context.Cause(ctx)) })
	go func() {
		err := x.send(frameRequest, request)
		if err == nil && upload != nil {
			in := &inputReader{r: upload}
			_ = x.sendData(in) // the answer says why nobody wanted it
			err = in.err
		}
		if err != nil {
			pw.CloseWithError(err)
		}
		x.up <- err
	}()
	r, err := c.do(ctx, http.MethodPost, "/v1/call/"+name, pr)
	if err != nil {
		x.stop()
		pw.CloseWithError(err)
		select {
		case uerr := <-x.up:
			if uerr != nil && upload != nil {
				err = uerr // of the input
			}
		default:
		}
		return nil, err
	}
	x.body, x.r = r.Body, bufio.NewReaderSize(r.Body, 64<<10)
	return x, nil
}

// inputReader remembers why reading failed, to tell it from a connection that broke.
type inputReader struct {
	r   io.Reader
	err error
}

func (i *inputReader) Read(b []byte) (int, error) {
	n, err := i.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		i.err = err
	}
	return n, err
}

// next returns the next frame of the answer; errEnded at its end, and the call's
// error if it failed.
func (x *exchange) next() (frameKind, []byte, error) {
	kind, b, err := x.frames.next()
	if err != nil {
		return 0, nil, fcp.Wrap(fcp.CodeDependency, unexpected(err), "the daemon's answer broke off")
	}
	switch kind {
	case frameEnd:
		if err := decodeFrame(b, &x.end); err != nil {
			return 0, nil, err
		}
		return 0, nil, errEnded
	case frameFailure:
		var f failure
		if err := decodeFrame(b, &f); err != nil {
			return 0, nil, err
		}
		if f.Lent {
			return 0, nil, lentError{f.err()}
		}
		return 0, nil, f.err()
	}
	return kind, bytes.Clone(b), nil
}

// row reads one row and decodes it.
func (x *exchange) row(v any) error {
	kind, b, err := x.next()
	switch {
	case errors.Is(err, errEnded):
		return fcp.Errorf(fcp.CodeMalformed, "the daemon's answer has no row")
	case err != nil:
		return err
	case kind != frameRow:
		return fcp.Errorf(fcp.CodeMalformed, "a frame %q where a row belongs", byte(kind))
	}
	return decodeFrame(b, v)
}

// finish reads the end of the answer.
func (x *exchange) finish() error {
	_, _, err := x.next()
	if errors.Is(err, errEnded) {
		return nil
	}
	if err == nil {
		err = fcp.Errorf(fcp.CodeMalformed, "the daemon's answer does not end where it should")
	}
	return err
}

func (x *exchange) close() error {
	x.stop()
	return errors.Join(x.pipe.Close(), x.body.Close())
}
