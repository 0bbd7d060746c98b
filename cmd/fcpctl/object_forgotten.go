package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/node/api"
)

// orderView is an order to forget, as JSON.
type orderView struct {
	Order    string     `json:"order"` // its hash
	Zone     fcp.ZoneID `json:"zone"`
	Objects  []string   `json:"objects"`
	At       string     `json:"at"`
	Here     bool       `json:"here"`      // this device destroyed its keys
	Done     []string   `json:"done"`      // other devices that said that they did
	WaitsFor []string   `json:"waits_for"` // that did not yet
}

func viewOrder(o *engine.ForgetOrder) orderView {
	v := orderView{Order: o.Ref.String(), Zone: o.Zone, At: timeText(o.At), Here: o.Here, Objects: []string{}, Done: []string{}, WaitsFor: []string{}}
	for _, id := range o.Objects {
		v.Objects = append(v.Objects, id.String())
	}
	for _, m := range o.Members {
		if m.Done {
			v.Done = append(v.Done, m.Name)
		} else {
			v.WaitsFor = append(v.WaitsFor, m.Name)
		}
	}
	return v
}

func (a *app) objectForgottenCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "forgotten", Short: "What the owner ordered every device to forget, and which still have to", Args: args(0, 0),
		Long: `forgotten lists the orders that ` + "`fcpctl object forget --identity`" + ` gave, with the
devices that said that they destroyed their keys, and those that did not yet because
they were not there since. Such a device does so when it meets another one; one that
will not come back is taken out with ` + "`fcpctl device lost`" + `.`,
		Example: "  fcpctl object forgotten --wait 30s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAny(cmd.Context(), reading, func(s api.Store) error {
				orders, err := awaitForgotten(cmd.Context(), s, wait)
				if err != nil {
					return err
				}
				return a.listForgotten(s.Position(), orders)
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait so long for the devices that still have to; the list then says which did not")
	return cmd
}

// forgottenEvery is how often it is looked whether devices acknowledged.
const forgottenEvery = 100 * time.Millisecond

// awaitForgotten returns the orders to forget, at the latest after some time, as soon
// as all devices carried them out.
func awaitForgotten(ctx context.Context, s api.Store, wait time.Duration) ([]engine.ForgetOrder, error) {
	over := time.After(wait)
	for {
		orders, err := s.ForgetOrders()
		if err != nil || wait == 0 || !slices.ContainsFunc(orders, func(o engine.ForgetOrder) bool { return len(viewOrder(&o).WaitsFor) > 0 }) {
			return orders, err
		}
		select {
		case <-time.After(forgottenEvery):
		case <-over:
			return orders, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (a *app) listForgotten(asOf uint64, orders []engine.ForgetOrder) error {
	l := a.list("ForgetOrder", asOf, "ORDER", "ZONE", "TIME", "OBJECTS", "DONE", "WAITS FOR")
	for i := range orders {
		v := viewOrder(&orders[i])
		done := v.Done
		if v.Here {
			done = append([]string{"this device"}, done...)
		}
		if err := l.add(v, v.Order, a.short(v.Order), v.Zone.String(), v.At, decimal(uint64(len(v.Objects))), orNone(done), orNone(v.WaitsFor)); err != nil {
			return err
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	a.answered(asOf)
	return nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ", ")
}
