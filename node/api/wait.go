package api

import (
	"context"
	"errors"
	"io"

	"fcp"
	"fcp/engine"
	"fcp/node"
)

// The things that Remote.Wait can wait for.
const (
	WaitHeld       = "held"       // what this node wrote so far is on the disks of as many other devices as may fail
	WaitSpread     = "spread"     // what this node wrote so far is sealed and all of it where the policy wants it; too few devices are an error
	WaitPlaced     = "placed"     // what is open is sealed, and every segment of this node is where the policy wants it
	WaitRevocation = "revocation" // a revocation is at every member
	WaitSettled    = "settled"    // all that the peers who are there told of is here
	WaitPeers      = "peers"      // every member that is not revoked is there
	WaitPinned     = "pinned"     // the devices of all pins of a scope said that it is whole there
)

// untilGone calls stop when the client hung up. Nothing else may read from it any more.
func (c *callState) untilGone(stop func()) {
	go func() {
		_, _ = io.Copy(io.Discard, c.r) // however it ends
		stop()
	}()
}

// wait waits for one of the things above. What may never come does not keep the store
// from being lent: then wait ends with errLent, and the client asks again.
func (c *callState) wait() error {
	q, err := asked[waitCall](c)
	if err != nil {
		return err
	}
	asking := c.ctx
	ctx, stop := context.WithCancel(asking)
	defer stop()
	defer context.AfterFunc(c.life, stop)()
	c.untilGone(stop)
	c.ctx = ctx
	err = c.waitFor(&q)
	if err != nil && c.life.Err() != nil && asking.Err() == nil {
		return errLent
	}
	return err
}

func (c *callState) waitFor(q *waitCall) error {
	switch q.For {
	case WaitHeld:
		_, err := c.node.Durable(c.ctx, node.DurablePeers)
		return err
	case WaitSpread:
		_, err := c.node.Durable(c.ctx, node.DurablePlaced)
		return err
	case WaitPlaced:
		return c.node.Place(c.ctx)
	case WaitSettled:
		return c.node.WaitSettled(c.ctx)
	case WaitPeers:
		members, err := c.engine.Members()
		if err != nil {
			return err
		}
		others := 0
		for _, m := range members {
			if m.Writer != c.node.Writer() && !m.Revoked {
				others++
			}
		}
		return c.node.WaitPeers(c.ctx, others)
	case WaitRevocation:
		return c.waitRevocation(q.Ref)
	case WaitPinned:
		return c.node.WaitPinned(c.ctx, q.Zone, q.Key, q.Prefix)
	}
	return fcp.Errorf(fcp.CodeInvalidArgument, "there is no waiting for %.40q", q.For)
}

// waitRevocation waits for its arrival everywhere if this node issued it, else
// until it is here.
func (c *callState) waitRevocation(ref fcp.Hash) error {
	err := c.node.WaitArrival(c.ctx, ref)
	if !errors.Is(err, fcp.CodeNotFound) {
		return err
	}
	own, err := c.node.WatchRevocation(ref) // it may be from before this start
	if err != nil {
		return err
	}
	if own {
		return c.node.WaitArrival(c.ctx, ref)
	}
	// Everything that comes is looked at; a revocation here already is found first.
	stop := errors.New("it is here")
	err = c.engine.Tail(c.ctx, engine.TailRequest{Kinds: []fcp.Kind{fcp.KindRevocationIssued}, Follow: true}, func(*engine.EventRow) error {
		here, err := c.engine.HasRevocation(ref)
		if err == nil && here {
			return stop
		}
		return err
	})
	if errors.Is(err, stop) {
		return nil
	}
	if errors.Is(err, fcp.CodeInterrupted) {
		return fcp.Errorf(fcp.CodeTimeout, "the revocation %s is not here", ref)
	}
	return err
}
