package catalog

import (
	"time"

	"fcp"
	"fcp/authority"
	"fcp/authority/crdt"
)

// leases are of a connector's state, granted by the members of the checkpoint.
func (c *Catalog) leases() {
	thing := authority.Thing{Zone: fcp.ZoneWork, Subject: fcp.ObjectID{11}, Purpose: authority.LeaseConnectorState}
	fence, err := authority.FirstFence(2)
	if take(c, fence, err); c.err != nil {
		return
	}
	request, err := authority.RequestLease(c.Second, Now, [16]byte(Bytes(100, 16)), thing, time.Minute)
	if take(c, request, err); c.err != nil {
		return
	}
	c.add("lease-request", fcp.SchemaLeaseRequest, request.Bytes(), nil)
	lease, err := authority.NewLease(authority.LeaseSpec{Thing: thing, Holder: c.Second.Writer(), Fence: fence, Request: authority.RefOf(request.Bytes()),
		Coordinator: c.Node.Writer(), Checkpoint: fcp.Hash{12}, From: Now, Until: Now.Add(time.Minute)})
	if take(c, lease, err); c.err != nil {
		return
	}
	b, err := lease.Encode()
	c.add("lease-proposed", fcp.SchemaLease, b, err)
	for _, n := range []*authority.NodeKeys{c.Node, c.Second} {
		s, err := lease.Sign(n, Now)
		if take(c, s, err); c.err != nil {
			return
		}
		if lease, err = lease.With(s); err != nil {
			take(c, 0, err)
			return
		}
	}
	b, err = lease.Encode()
	c.add("lease", fcp.SchemaLease, b, err)
	b, err = authority.EncodeLeaseRelease(authority.LeaseRelease{Thing: thing, Holder: c.Second.Writer(), Fence: fence, At: Now.Add(time.Second)})
	c.add("lease-release", fcp.SchemaLeaseRelease, b, err)
	b, err = authority.EncodePromise(thing, authority.Promise{Fence: fence, Ref: lease.Ref(), Holder: c.Second.Writer(), Until: Now.Add(time.Minute)})
	c.add("lease-promise", fcp.SchemaLeasePromise, b, err)
	b, err = authority.EncodeFence(thing, authority.FenceRecord{Fence: fence, Ref: lease.Ref()})
	c.add("lease-fence", fcp.SchemaLeaseFence, b, err)
	c.states(fence, fcp.ObjectID(lease.Ref()))
}

// states are what connectors keep: of one writer under a lease, and of several.
func (c *Catalog) states(fence authority.Fence, lease fcp.ObjectID) {
	root := authority.StateRootSpec{Zone: fcp.ZoneWork, Connector: Connector, Model: authority.StateSingleton, Schema: 1, At: Now}
	b, err := authority.EncodeStateRoot(c.Node.Writer(), root)
	c.add("state-root", fcp.SchemaConnectorRoot, b, err)
	root.Instance, root.Model, root.CRDT = Instance, authority.StateCRDT, crdt.KindGCounter
	b, err = authority.EncodeStateRoot(c.Node.Writer(), root)
	c.add("state-root-crdt", fcp.SchemaConnectorRoot, b, err)
	id := fcp.ObjectID{11}
	seal := func(seed byte, plain []byte) authority.SealedState {
		s, err := authority.SealState(Random(seed), c.Keys, id, plain)
		return take(c, s, err)
	}
	spec := authority.ConnectorStateSpec{Zone: fcp.ZoneWork, Connector: Connector, Root: id, Seq: 1, State: seal(101, []byte("\xa1\x66cursor\x01")), At: Now, Fence: fence, Lease: lease}
	b, err = authority.SignConnectorState(c.Second, spec)
	c.add("state-first", fcp.SchemaConnectorState, b, err)
	spec.Instance, spec.Prev, spec.Seq = Instance, fcp.ObjectID(authority.RefOf(b)), 2
	b, err = authority.SignConnectorState(c.Second, spec)
	c.add("state", fcp.SchemaConnectorState, b, err)

	counter, err := new(crdt.GCounter).Add(c.Second.Writer(), 3)
	if take(c, counter, err); c.err != nil {
		return
	}
	plain, err := counter.Encode()
	c.item("crdt-g-counter", "GCounter", plain, err)
	change := authority.StateChange{Zone: fcp.ZoneWork, Root: id, CRDT: crdt.KindGCounter, Actor: c.Second.Writer(), Seq: 1, State: seal(102, plain), At: Now}
	b, err = authority.EncodeStateChange(change)
	c.add("state-delta", fcp.SchemaStateDelta, b, err)
	change.Seq, change.Covers = 0, []authority.ActorSeq{{Actor: c.Second.Writer(), Seq: 1}}
	b, err = authority.EncodeStateChange(change)
	c.add("state-snapshot", fcp.SchemaStateSnapshot, b, err)
	c.crdts()
}

// keep joins the deltas of one state of a kind and keeps the whole.
func (c *Catalog) keep(name, rule string, kind crdt.Kind, deltas ...crdt.State) {
	whole, err := crdt.New(kind)
	if take(c, whole, err); c.err != nil {
		return
	}
	for _, d := range deltas {
		if err := whole.Join(d); err != nil {
			take(c, 0, err)
			return
		}
	}
	b, err := whole.Encode()
	c.item(name, rule, b, err)
}

func (c *Catalog) crdts() {
	a, b := c.Node.Writer(), c.Second.Writer()
	plus, err := new(crdt.PNCounter).Add(a, 5)
	take(c, plus, err)
	minus, err := new(crdt.PNCounter).Add(b, -2)
	take(c, minus, err)
	set, err := new(crdt.LWWMap).Set("theme", []byte("dark"), fcp.TimeFromWall(Now), a)
	take(c, set, err)
	gone, err := new(crdt.LWWMap).Remove("old", fcp.TimeFromWall(Now), b)
	take(c, gone, err)
	one, err := new(crdt.ORSet).Add([]byte("one"), a)
	take(c, one, err)
	two, err := new(crdt.ORSet).Add([]byte("two"), b)
	if take(c, two, err); c.err != nil {
		return
	}
	c.keep("crdt-pn-counter", "PNCounter", crdt.KindPNCounter, plus, minus)
	c.keep("crdt-lww-map", "LWWMap", crdt.KindLWWMap, set, gone)
	c.keep("crdt-or-set", "ORSet", crdt.KindORSet, one, two)
}

// secrets are a value shared between two devices, and the asking for it.
func (c *Catalog) secrets() {
	spec := authority.SecretSpec{Zone: fcp.ZoneWork, ID: authority.SecretID{1}, Name: "mail-password", Version: 1, Value: 1, Threshold: 2,
		Recipients: []authority.Recipient{c.Node.Public().Recipient(), c.Second.Public().Recipient()}, Reason: authority.SecretPut}
	b, err := authority.SealSecret(Random(110), Now, c.Owner, spec, []byte("a secret value"))
	c.add("secret", fcp.SchemaSecret, b, err)
	if c.err != nil {
		return
	}
	u, err := authority.OpenSecret(b)
	if take(c, u, err); c.err != nil {
		return
	}
	s, err := u.Authorize(&authority.Authorities{Owner: c.Owner.Public()})
	if take(c, s, err); c.err != nil {
		return
	}
	share, err := s.OpenShare(c.Second)
	if take(c, share, err); c.err != nil {
		return
	}
	answer, err := s.Release(Random(111), Now, share, c.Node.Public().Recipient())
	c.item("share-released", "ReleasedShare", answer, err)
	removed := authority.SecretSpec{Zone: fcp.ZoneWork, ID: spec.ID, Name: spec.Name, Version: 2, Value: 1, Prev: s.Ref()}
	b, err = authority.RemoveSecret(Now, c.Owner, removed)
	c.add("secret-removed", fcp.SchemaSecret, b, err)

	access := c.Find("secret-access").Bytes
	ask := authority.ShareAsk{Zone: fcp.ZoneWork, Secret: spec.ID, Version: 1, Request: fcp.ObjectID{9}, Principal: Principal, Access: access}
	b, err = ask.Encode()
	c.item("share-ask-access", "ShareAsk", b, err)
	ask.Access, ask.Token, ask.Nonce, ask.At = nil, c.Chain.Bytes(), [32]byte(Bytes(112, 32)), Now
	ask.Signature = c.Holder.Prove(ask.Challenge(), c.Chain.Leaf(), fcp.Hash{3})
	b, err = ask.Encode()
	c.item("share-ask-token", "ShareAsk", b, err)
}
