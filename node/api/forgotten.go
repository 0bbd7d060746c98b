package api

import (
	"context"

	"fcp/engine"
)

// ForgetOrders implements Store.
func (l Local) ForgetOrders() (out []engine.ForgetOrder, err error) {
	for _, zone := range l.Zones() {
		orders, err := l.Engine.ForgetOrders(zone)
		if err != nil {
			return nil, err
		}
		out = append(out, orders...)
	}
	return out, nil
}

// ForgetOrders implements Store.
func (r *Remote) ForgetOrders() (out []engine.ForgetOrder, err error) {
	return out, r.one(context.Background(), "forgotten", nil, &out)
}

func (c *callState) forgotten() error {
	orders, err := Local{c.engine}.ForgetOrders()
	if err != nil {
		return err
	}
	return c.send(frameRow, orders)
}
