package engine

import (
	"context"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
)

// TestALeaseIsNotRememberedByOldFacts: what older facts say of a lease is not taken
// for what the present ones say.
func TestALeaseIsNotRememberedByOldFacts(t *testing.T) {
	e := newStore(t, 31).Engine
	old, err := e.ZoneFacts(DefaultZone)
	if err != nil {
		t.Fatal(err)
	}
	thing := authority.Thing{Zone: DefaultZone, Subject: fcp.ObjectID{1}, Purpose: authority.LeaseResource}
	l, err := e.AcquireLease(context.Background(), thing, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e.fold.governed.Add(1) // while somebody looks at leases by the old facts
	if e.validLease(old, body) == nil {
		t.Fatal("the lease is not valid at all")
	}
	f, err := e.ZoneFacts(DefaultZone)
	if err != nil {
		t.Fatal(err)
	}
	other := *f
	other.electorates, other.Checkpoint = nil, authority.CheckpointState{}
	if e.validLease(&other, body) != nil {
		t.Error("valid by facts that nobody has any more")
	}
}
