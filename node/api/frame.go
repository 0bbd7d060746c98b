package api

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"reflect"

	"github.com/fxamacker/cbor/v2"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// A call is an HTTP request POST /v1/call/NAME whose body and answer are frames:
// one byte that says what it is, the length as a 32-bit big-endian number, and that
// many bytes. Both directions are open at once. It is the way in for programs of
// the same build, not a format that lasts: unknown fields are refused, so that a
// program and a daemon that do not fit say so.
//
//	client  request, [data ... dataEnd], [proof]
//	server  [prove], [row ...] or [row, data ...], then end or failure
type frameKind byte

const (
	frameRequest frameKind = 'q' // CBOR: what is asked
	frameData    frameKind = 'd' // bytes of a payload
	frameDataEnd frameKind = 'D' // the payload is whole
	frameProve   frameKind = 'p' // CBOR: sign this
	frameProof   frameKind = 's' // the signature
	frameVersion frameKind = 'v' // CBOR: secretVersion
	frameAccess  frameKind = 'a' // CBOR: sign this access to it
	frameShare   frameKind = 'h' // CBOR: engine.SealedShare
	frameVerdict frameKind = 'k' // CBOR: failure, without a code for a good share
	frameRow     frameKind = 'r' // CBOR: one item of the answer
	frameEnd     frameKind = 'z' // CBOR: End
	frameFailure frameKind = 'e' // CBOR: failure
)

// maxFrame limits a frame's length, in bytes; dataFrame is how much of a payload
// goes into one.
const (
	maxFrame  = 4 << 20
	dataFrame = 256 << 10
)

const mediaType = "application/vnd.fcp.frames"

var (
	encMode = must(cbor.EncOptions{Time: cbor.TimeRFC3339Nano, TimeTag: cbor.EncTagRequired}.EncMode())
	decMode = must(cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 16,
		MaxArrayElements: 1 << 16, MaxMapPairs: 1 << 10, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, UTF8: cbor.UTF8RejectInvalid,
		DefaultMapType: reflect.TypeFor[map[string]any]()}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // options are constants
	}
	return v
}

// frames reads and writes frames. Reading and writing are each for one goroutine.
type frames struct {
	r     *bufio.Reader
	w     io.Writer
	flush func() error // may be nil
	buf   []byte
}

func (f *frames) send(kind frameKind, v any) error {
	b, err := encMode.Marshal(v)
	if err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "encode a frame")
	}
	return f.sendBytes(kind, b)
}

func (f *frames) sendBytes(kind frameKind, b []byte) error {
	if len(b) > maxFrame {
		return fcp.Errorf(fcp.CodeTooLarge, "a frame of %d bytes, the limit is %d", len(b), maxFrame)
	}
	head := [5]byte{byte(kind)}
	binary.BigEndian.PutUint32(head[1:], uint32(len(b)))
	if _, err := f.w.Write(head[:]); err != nil {
		return err
	}
	_, err := f.w.Write(b)
	if err == nil && f.flush != nil && kind != frameData {
		err = f.flush()
	}
	return err
}

// sendData sends what r gives as data frames, and the end of them.
func (f *frames) sendData(r io.Reader) error {
	b := make([]byte, dataFrame)
	for {
		n, err := io.ReadFull(r, b)
		if n > 0 {
			if err := f.sendBytes(frameData, b[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return f.sendBytes(frameDataEnd, nil)
		case err != nil:
			return err
		}
	}
}

// next returns the next frame; its bytes are good until the call after.
func (f *frames) next() (frameKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fcp.Errorf(fcp.CodeTooLarge, "a frame of %d bytes, the limit is %d", n, maxFrame)
	}
	// What is announced is not allocated before it is there.
	f.buf = f.buf[:0]
	for n := int(n); len(f.buf) < n; {
		at := len(f.buf)
		f.buf = append(f.buf, make([]byte, min(n-at, 64<<10))...)
		if _, err := io.ReadFull(f.r, f.buf[at:]); err != nil {
			return 0, nil, unexpected(err)
		}
	}
	return frameKind(head[0]), f.buf, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// expect reads one frame of a kind and decodes it.
func (f *frames) expect(kind frameKind, v any) error {
	got, b, err := f.next()
	if err != nil {
		return fcp.Wrap(fcp.CodeMalformed, unexpected(err), "read a frame")
	}
	if got != kind {
		return fcp.Errorf(fcp.CodeMalformed, "a frame %q where %q belongs", byte(got), byte(kind))
	}
	return decodeFrame(b, v)
}

func decodeFrame(b []byte, v any) error {
	if err := decMode.Unmarshal(b, v); err != nil {
		return fcp.Errorf(fcp.CodeVersion, "a frame does not decode: %w", err).WithNext("fcpctl and fcpd are of different builds: `fcpctl down`, then `fcpctl up`")
	}
	return nil
}

// payload reads data frames up to their end.
type payload struct {
	next func() (frameKind, []byte, error)
	rest []byte
	end  bool
}

func (p *payload) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.end {
			return 0, io.EOF
		}
		kind, body, err := p.next()
		switch {
		case err != nil:
			// Not io.ErrUnexpectedEOF, which readers of whole blocks take for the end.
			return 0, fcp.Errorf(fcp.CodeInterrupted, "the payload broke off: %v", err)
		case kind == frameDataEnd:
			p.end = true
		case kind == frameData:
			p.rest = body
		default:
			return 0, fcp.Errorf(fcp.CodeMalformed, "a frame %q within a payload", byte(kind))
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// End ends an answer that succeeded.
type End struct {
	Position uint64    // of the store
	Fetched  []Fetched // what other members gave for this answer, most first
	Behind   []Behind  // members that are away, the longest first
}

// Fetched is what one member gave.
type Fetched struct {
	Name    string
	Symbols uint64
}

// failure is an error on its way to the client.
type failure struct {
	Code    uint16
	Detail  string
	Next    string
	Reason  fcp.Reason // of a denial
	Refusal *refusal
	Lent    bool // the store was lent meanwhile: ask again
}

// refusal is what an *engine.Refusal knows.
type refusal struct {
	Decision authority.Decision
	Request  fcp.ObjectID
	Receipt  fcp.Hash
}

func failureOf(err error) failure {
	f := failure{Code: uint16(fcp.CodeOf(err)), Detail: err.Error()}
	var e *fcp.Error
	if errors.As(err, &e) {
		f.Detail, f.Next = e.Detail, e.Next
	}
	errors.As(err, &f.Reason)
	var r *engine.Refusal
	if errors.As(err, &r) {
		f.Refusal = &refusal{r.Decision, r.Request, r.Receipt}
	}
	return f
}

func (f *failure) err() error {
	e := &fcp.Error{Code: fcp.Code(f.Code), Detail: f.Detail, Next: f.Next}
	if f.Code == 0 || e.Code.Class() == 0 {
		e.Code = fcp.CodeInternal
	}
	if f.Reason != "" {
		e.Cause = f.Reason
	}
	if f.Refusal != nil {
		return engine.NewRefusal(f.Refusal.Decision, f.Refusal.Request, f.Refusal.Receipt, e)
	}
	return e
}

// Requests of calls that need more than the engine's own.
type (
	putCall struct {
		Zone        fcp.ZoneID
		Key         string
		Expect      engine.Expect
		Idempotency string
		DryRun      bool
	}
	useCall struct {
		Token  []byte
		Get    *engine.GetRequest
		Put    *putCall // data frames follow
		Remove *engine.RemoveRequest
	}
	proveCall struct {
		Kind          authority.ChallengeKind
		Value         [32]byte
		Leaf, Request fcp.Hash
	}
	historyCall struct {
		Zone fcp.ZoneID
		Key  string
	}
	queryCall struct {
		Name   string
		Zone   fcp.ZoneID
		Prefix []byte
		At     engine.At
	}
	zoneCall   struct{ Zone fcp.ZoneID }
	idCall     struct{ ID string }
	refusalRow struct {
		Receipt  []byte
		Key      authority.SigningPublic
		Position uint64
	}
	waitCall struct {
		For    string
		Ref    fcp.Hash   // WaitRevocation
		Zone   fcp.ZoneID // WaitPinned, and what follows
		Key    string
		Prefix bool
	}
)
