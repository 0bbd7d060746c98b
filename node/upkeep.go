package node

import (
	"context"
	"time"

	"fcp/engine"
)

// lastUpkeep is how long the last upkeep of a node that ends may take.
const lastUpkeep = 2 * time.Second

// upkeepLoop does what the store owes from time to time. At the end it writes down
// what was only counted.
func (n *Node) upkeepLoop() {
	t := time.NewTicker(engine.MaintainEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			n.maintain()
		case <-n.life.Done():
			ctx, cancel := context.WithTimeout(context.Background(), lastUpkeep)
			defer cancel()
			if _, err := n.engine.RecordDenials(ctx); err != nil {
				n.logger.Warn("some denials are not on record", "err", err)
			}
			return
		}
	}
}

func (n *Node) maintain() {
	u, err := n.engine.Maintain(n.life)
	if err != nil && n.life.Err() == nil {
		n.logger.Error("the upkeep of the store failed", "err", err)
	}
	for _, f := range u.Forked {
		n.logger.Error("a device signed another history than the one that is here", "writer", f.Writer, "zone", f.Zone)
	}
	if !u.RenewalBy.IsZero() {
		n.logger.Warn("this device's attestation has to be renewed by the owner", "by", u.RenewalBy)
	}
}
