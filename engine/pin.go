package engine

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// Pin says that names of a zone are to be whole on a device, so that it reads them
// with nobody else there. It is an unsigned object in a feed of its writer: what a
// member may write into the zone it may also pin.
type Pin struct {
	Zone   fcp.ZoneID
	Device fcp.WriterID
	Key    string       // a name, or with Prefix what names begin with
	Prefix bool         // with Key "" it is the whole zone
	Until  time.Time    // to the second; zero: until it is taken back
	Off    bool         // takes the pins of this scope with lower numbers back
	Number uint64       // of this scope, from 1: the highest counts
	By     fcp.WriterID // who wrote it
}

// pinObject is the body of pin.set.
type pinObject struct {
	Format uint64       `cbor:"format"` // 1
	Zone   fcp.ZoneID   `cbor:"zone_id"`
	Device fcp.WriterID `cbor:"device"`
	Key    string       `cbor:"key"`
	Prefix bool         `cbor:"prefix"`
	Until  uint64       `cbor:"until,omitempty"` // unix seconds
	Off    bool         `cbor:"off,omitempty"`
	Number uint64       `cbor:"number"`
	By     fcp.WriterID `cbor:"by"`
}

// maxPinTime bounds the end of a pin: unix seconds of the year 9999.
const maxPinTime = 253402300799

func (p *Pin) check() error {
	switch {
	case !p.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "%.80q", p.Zone.String())
	case p.Device == (fcp.WriterID{}) || p.By == (fcp.WriterID{}):
		return fcp.Errorf(fcp.CodeMissingField, "a pin without a device or a writer")
	case p.Key == "" && !p.Prefix:
		return fcp.Errorf(fcp.CodeMissingField, "a pin of no name")
	case len(p.Key) > fcp.MaxKey || !utf8.ValidString(p.Key):
		return fcp.Errorf(fcp.CodeInvalidArgument, "%.80q is no name", p.Key)
	case p.Number == 0:
		return fcp.Errorf(fcp.CodeMissingField, "a pin without a number")
	case p.Off && !p.Until.IsZero():
		return fcp.Errorf(fcp.CodeInvalidArgument, "a pin that is taken back has no end")
	}
	return nil
}

// EncodePin returns the payload of a pin.set event.
func EncodePin(p Pin) ([]byte, error) {
	o := pinObject{Format: governanceFormat, Zone: p.Zone, Device: p.Device, Key: p.Key, Prefix: p.Prefix, Off: p.Off, Number: p.Number, By: p.By}
	if !p.Until.IsZero() {
		if s := p.Until.Unix(); s <= 0 || s > maxPinTime {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a pin until %s", p.Until)
		}
		o.Until = uint64(p.Until.Unix())
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(fcp.SchemaPin, &o)
}

// DecodePin is EncodePin's counterpart. Errors: CodeSchema, CodeMalformed,
// CodeNonCanonical, CodeVersion, and those of the fields.
func DecodePin(b []byte) (p Pin, err error) {
	var o pinObject
	if err := fcp.UnmarshalPayload(fcp.SchemaPin, b, &o); err != nil {
		return p, err
	}
	if o.Format != governanceFormat {
		return p, fcp.Errorf(fcp.CodeVersion, "pin format %d, this build knows %d", o.Format, governanceFormat)
	}
	if o.Until > maxPinTime {
		return p, fcp.Errorf(fcp.CodeMalformed, "a pin until second %d", o.Until)
	}
	p = Pin{Zone: o.Zone, Device: o.Device, Key: o.Key, Prefix: o.Prefix, Off: o.Off, Number: o.Number, By: o.By}
	if o.Until > 0 {
		p.Until = time.Unix(int64(o.Until), 0).UTC()
	}
	return p, p.check()
}

// Covers reports whether a name of the pin's zone falls under it.
func (p *Pin) Covers(key string) bool {
	if p.Prefix {
		return len(key) >= len(p.Key) && key[:len(p.Key)] == p.Key
	}
	return key == p.Key
}

// Over reports whether the pin asks for nothing any more.
func (p *Pin) Over(now time.Time) bool {
	return p.Off || !p.Until.IsZero() && !now.Before(p.Until)
}

// scope orders pins by what they are about: two of one scope replace each other.
func (p *Pin) scope(q *Pin) int {
	prefix := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(p.Zone, q.Zone), cmp.Compare(p.Key, q.Key), cmp.Compare(prefix(p.Prefix), prefix(q.Prefix)), bytes.Compare(p.Device[:], q.Device[:]))
}

// before reports whether q counts and p does not. Of two with one number, written by
// two who did not know of each other, the one that asks for more counts: to pin, and
// longer.
func (p *Pin) before(q *Pin) bool {
	if p.Number != q.Number {
		return p.Number < q.Number
	}
	if p.Off != q.Off {
		return p.Off
	}
	if !p.Until.Equal(q.Until) {
		return !p.Until.IsZero() && (q.Until.IsZero() || p.Until.Before(q.Until))
	}
	return bytes.Compare(p.By[:], q.By[:]) < 0
}

// pins returns the pin that counts of each scope of a zone, those that are over too.
func (e *Engine) pins(zone fcp.ZoneID) (out []Pin, err error) {
	err = e.records(zone, projPins, func(body []byte) error {
		p, err := DecodePin(body)
		if err != nil {
			return err
		}
		at, found := slices.BinarySearchFunc(out, p, func(a, b Pin) int { return a.scope(&b) })
		switch {
		case !found:
			out = slices.Insert(out, at, p)
		case out[at].before(&p):
			out[at] = p
		}
		return nil
	})
	return out, err
}

// Pins returns the pins that are not over, by zone, name and device.
func (e *Engine) Pins() (out []Pin, err error) {
	now := e.env.Now()
	for _, z := range e.Zones() {
		list, err := e.pins(z)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			if !p.Over(now) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b Pin) int { return a.scope(&b) })
	return out, nil
}

// SetPin writes a pin down; Number and By are filled in. What is so already is not
// written again. Errors: CodeZone, CodeNotFound when the device is no member or was
// revoked, CodeNotFound when a pin that is to be taken back is none, and those of the
// log.
func (e *Engine) SetPin(ctx context.Context, p Pin) (Pin, error) {
	p.Zone = cmp.Or(p.Zone, DefaultZone)
	z := e.ring.Load().zones[p.Zone]
	if z == nil {
		return p, e.unknownZone(p.Zone)
	}
	p.By = e.log.Writer()
	if p.Device == (fcp.WriterID{}) {
		p.Device = p.By
	}
	if !p.Until.IsZero() {
		p.Until = time.Unix(p.Until.Unix(), 0).UTC()
	}
	if err := e.checkPinned(&p); err != nil {
		return p, err
	}
	list, err := e.pins(p.Zone)
	if err != nil {
		return p, err
	}
	at, found := slices.BinarySearchFunc(list, p, func(a, b Pin) int { return a.scope(&b) })
	now := e.env.Now()
	switch {
	case p.Off && (!found || list[at].Over(now)):
		return p, fcp.Errorf(fcp.CodeNotFound, "there is no such pin of %q", p.Key).WithNext("see `fcpctl pin ls`")
	case found && !list[at].Over(now) && !p.Off && list[at].Until.Equal(p.Until):
		return list[at], nil
	case found:
		p.Number = list[at].Number
	}
	p.Number++
	body, err := EncodePin(p)
	if err != nil {
		return p, err
	}
	_, err = e.log.Append(ctx, []log.Draft{{Zone: p.Zone, Plane: fcp.PlaneControl, Under: e.genesis.ID,
		Content: fcp.Content{Kind: fcp.KindPinSet, Object: objectIDOf(z.current(), fcp.SchemaPin, body), Body: body}}})
	return p, err
}

// checkPinned checks the device of a new pin. A pin of one that is gone can be taken
// back.
func (e *Engine) checkPinned(p *Pin) error {
	if p.Off {
		return nil
	}
	members, err := e.Members()
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Writer == p.Device && !m.Revoked {
			return nil
		}
	}
	if p.Device == p.By && len(members) == 0 {
		return nil
	}
	return fcp.Errorf(fcp.CodeNotFound, "there is no device %s", p.Device).WithNext("see `fcpctl node ls` for the names")
}

func pinKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	p, err := DecodePin(ev.Content.Body)
	if err != nil || p.Zone != ev.From.Feed.Zone || p.By != ev.From.Feed.Writer {
		return nil
	}
	return append(key, p.Device[:]...)
}

func pinRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	p, err := DecodePin(body)
	if err != nil {
		return "", nil, err
	}
	return p.Key, map[string]any{"device": p.Device.String(), "prefix": p.Prefix, "until": p.Until, "off": p.Off, "number": p.Number, "by": p.By.String()}, nil
}

// MemberNamed returns the member of a name, or whose id begins with at least 8 hex
// digits, that is not revoked. CodeNotFound: there is none; CodeGuess: there are several.
func (e *Engine) MemberNamed(name string) (Member, error) {
	members, err := e.Members()
	if err != nil {
		return Member{}, err
	}
	fits := slices.DeleteFunc(members, func(m Member) bool {
		return m.Revoked || m.Name != name && (len(name) < MinHashPrefix || !strings.HasPrefix(m.Writer.String(), name))
	})
	switch len(fits) {
	case 0:
		return Member{}, fcp.Errorf(fcp.CodeNotFound, "there is no device %.80q", name).WithNext("see `fcpctl device ls` for the names")
	case 1:
		return fits[0], nil
	}
	return Member{}, fcp.Errorf(fcp.CodeGuess, "%d devices are called %.80q", len(fits), name).WithNext("name it by the first digits of its id, which `fcpctl device ls` shows")
}
