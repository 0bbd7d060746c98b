package api

import (
	"cmp"
	"context"
	"slices"

	"fcp"
	"fcp/engine"
	"fcp/node"
)

// PinRow is a pin and how it stands.
type PinRow struct {
	node.PinState
	Name string // of the device
}

func pinRows(e *engine.Engine, states []node.PinState) (out []PinRow, err error) {
	members, err := e.Members()
	if err != nil {
		return nil, err
	}
	for _, s := range states {
		r := PinRow{PinState: s, Name: s.Device.String()}
		for _, m := range members {
			if m.Writer == s.Device {
				r.Name = cmp.Or(m.Name, r.Name)
			}
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b PinRow) int {
		return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// SetPin implements Store.
func (l Local) SetPin(ctx context.Context, p engine.Pin, device string) (engine.Pin, error) {
	if device != "" {
		m, err := l.MemberNamed(device)
		if err != nil {
			return p, err
		}
		p.Device = m.Writer
	}
	return l.Engine.SetPin(ctx, p)
}

// Pins implements Store. Nobody says how they stand.
func (l Local) Pins() ([]PinRow, error) {
	list, err := l.Engine.Pins()
	if err != nil {
		return nil, err
	}
	states := make([]node.PinState, len(list))
	for i := range list {
		states[i].Pin = list[i]
	}
	return pinRows(l.Engine, states)
}

// SetPin implements Store.
func (r *Remote) SetPin(ctx context.Context, p engine.Pin, device string) (out engine.Pin, err error) {
	return out, r.one(ctx, "pin", &pinCall{p, device}, &out)
}

// Pins implements Store.
func (r *Remote) Pins() (out []PinRow, err error) {
	return out, r.one(context.Background(), "pins", nil, &out)
}

// WaitPinned waits until the devices of all pins of a scope said that its names are
// whole there.
func (r *Remote) WaitPinned(ctx context.Context, zone fcp.ZoneID, key string, prefix bool) error {
	return r.wait(ctx, &waitCall{For: WaitPinned, Zone: zone, Key: key, Prefix: prefix})
}

type pinCall struct {
	Pin    engine.Pin
	Device string // its name; "": as the pin says
}

func (c *callState) pin() error {
	q, err := asked[pinCall](c)
	if err != nil {
		return err
	}
	p, err := Local{c.engine}.SetPin(c.ctx, q.Pin, q.Device)
	if err != nil {
		return err
	}
	return c.send(frameRow, &p)
}

func (c *callState) pins() error {
	states, err := c.node.Pins()
	if err != nil {
		return err
	}
	rows, err := pinRows(c.engine, states)
	if err != nil {
		return err
	}
	return c.send(frameRow, rows)
}
