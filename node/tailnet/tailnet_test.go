package tailnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"tailscale.com/envknob"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/log"
	"fcp/node"
	"fcp/node/tailnet/tailnettest"
)

func join(t *testing.T, c *testcontrol.Server, name string, tags ...string) *Network {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	n, err := Open(ctx, Options{Hostname: name, ControlURL: c.HTTPTestServer.URL, AuthKey: "test", Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to pass that", what)
		}
	}
}

// Who may begin a session: the same user, an FCP tag, or a grant. Others are told why not.
func TestAdmission(t *testing.T) {
	c := tailnettest.Control(t)
	a := join(t, c, "laptop")
	b := join(t, c, "nas", "tag:fcp-private")
	p := join(t, c, "printer", "tag:printer")
	o := join(t, c, "stranger")
	ctx := within(t, 2*time.Minute)
	at := func(n *Network) net.Addr { return net.UDPAddrFromAddrPort(addrPort(n)) }
	eventually(t, "everyone sees everyone", func() bool {
		peers, err := a.Peers(ctx)
		return err == nil && len(peers) == 3
	})
	if err := a.Admit(ctx, at(b)); err != nil {
		t.Errorf("a tagged node: %v", err)
	}
	for _, n := range []*Network{p, o} {
		if err := a.Admit(ctx, at(n)); !errors.Is(err, fcp.CodeUnauthorized) {
			t.Errorf("%v was admitted: %v", n.Addr(), err)
		}
	}
	if err := a.Admit(ctx, &net.UDPAddr{IP: net.IPv4(100, 64, 99, 99), Port: 1}); !errors.Is(err, fcp.CodeUnauthorized) {
		t.Errorf("nobody was admitted: %v", err)
	}
	// Tags are of zones: who is tagged for another one stays out.
	a.SetZones([]fcp.ZoneID{fcp.ZoneOwner, "z:work"})
	if err := a.Admit(ctx, at(b)); !errors.Is(err, fcp.CodeUnauthorized) {
		t.Errorf("a node of %s was admitted: %v", fcp.ZonePrivate, err)
	}
	a.SetZones([]fcp.ZoneID{fcp.ZonePrivate})
	if err := a.Admit(ctx, at(b)); err != nil {
		t.Errorf("a node of %s: %v", fcp.ZonePrivate, err)
	}
	// A grant lets the stranger in, for the zones that it names.
	refused, err := tailcfg.MarshalCapJSON(Grant{Zones: []string{"z:work"}})
	if err != nil {
		t.Fatal(err)
	}
	c.SetGlobalAppCaps(tailcfg.PeerCapMap{CapMesh: {refused}})
	eventually(t, "the grant for another zone is known", func() bool {
		id, err := a.WhoIs(ctx, at(o))
		return err == nil && len(id.Grants) == 1
	})
	if err := a.Admit(ctx, at(o)); !errors.Is(err, fcp.CodeUnauthorized) {
		t.Errorf("a grant for another zone admits: %v", err)
	}
	granted, err := tailcfg.MarshalCapJSON(Grant{Zones: []string{fcp.ZonePrivate.String()}})
	if err != nil {
		t.Fatal(err)
	}
	c.SetGlobalAppCaps(tailcfg.PeerCapMap{CapMesh: {refused, granted}})
	eventually(t, "the grant admits", func() bool { return a.Admit(ctx, at(o)) == nil })
	c.SetGlobalAppCaps(tailcfg.PeerCapMap{CapMesh: {`"x"`}})
	eventually(t, "a grant of another form admits nobody", func() bool { return errors.Is(a.Admit(ctx, at(o)), fcp.CodeUnauthorized) })
	c.SetGlobalAppCaps(tailcfg.PeerCapMap{CapMesh: nil})
	eventually(t, "the capability alone admits", func() bool { return a.Admit(ctx, at(o)) == nil })
	if !envknob.NoLogsNoSupport() {
		t.Error("logs go to Tailscale")
	}

	if addr, err := a.Resolve(ctx, "nas:99"); err != nil || addr.String() != fmt.Sprint(b.Addr(), ":99") {
		t.Errorf("resolve: %v, %v", addr, err)
	}
	if addr, err := a.Resolve(ctx, b.Addr().String()); err != nil || addr.String() != at(b).String() {
		t.Errorf("resolve: %v, %v", addr, err)
	}
	if _, err := a.Resolve(ctx, "nobody"); !errors.Is(err, fcp.CodeNotFound) {
		t.Errorf("resolve nobody: %v", err)
	}
	if _, err := a.Listen(ctx, "1:2:3:4"); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Errorf("listen: %v", err)
	}
}

// Three nodes find each other in the tailnet, without being told an address; what one
// wrote the others rebuild from symbols after its death, and a revocation arrives.
func TestMeshOverTailnet(t *testing.T) {
	c := tailnettest.Oneself(tailnettest.Control(t))
	ctx := within(t, 2*time.Minute)
	owner, err := authority.NewOwnerKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	type member struct {
		e *engine.Engine
		n *node.Node
	}
	var all []*member
	open := func(dir string) *engine.Engine {
		e, err := engine.Open(ctx, dir, engine.Options{NoBallast: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
		return e
	}
	start := func(i int, e *engine.Engine, enrollment []byte) {
		n, err := node.Start(ctx, node.Options{Engine: e, Enrollment: enrollment, Network: join(t, c, fmt.Sprint("n", i)), Listen: fmt.Sprint(":", DefaultPort)})
		if err != nil {
			t.Fatal(err)
		}
		x := &member{e, n}
		all = append(all, x)
		t.Cleanup(func() {
			if x.n != nil {
				if err := x.n.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	dir := t.TempDir()
	if _, err := engine.Init(ctx, dir, engine.InitOptions{Owner: owner, Device: "n1"}); err != nil {
		t.Fatal(err)
	}
	first := open(dir)
	genesis, err := first.GenesisBytes()
	if err != nil {
		t.Fatal(err)
	}
	var others []func()
	for i := 2; i <= 3; i++ {
		keys, err := authority.NewNodeKeys(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		manifests, err := first.Enroll(ctx, engine.EnrollOptions{Owner: owner, Node: keys.Public(), Name: fmt.Sprint("n", i)})
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := engine.Join(ctx, dir, engine.JoinOptions{Node: keys, Genesis: genesis, Manifests: manifests}); err != nil {
			t.Fatal(err)
		}
		members, err := first.Members()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			if m.Writer == keys.Writer() {
				others = append(others, func() { start(i, open(dir), m.Proof) })
			}
		}
	}
	start(1, first, nil)
	for _, f := range others {
		f()
	}
	for i, x := range all {
		if err := x.n.WaitPeers(within(t, 2*time.Minute), 2); err != nil {
			t.Fatalf("node %d: %v", i+1, err)
		}
	}
	body := make([]byte, 1<<20)
	if _, err := rand.Read(body); err != nil {
		t.Fatal(err)
	}
	if _, err := all[0].e.Put(ctx, engine.PutRequest{Key: "big", Bytes: body}); err != nil {
		t.Fatal(err)
	}
	if _, err := all[0].e.Log().Seal(ctx, log.SealOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the segment is known to its writer", func() bool { n, _, err := all[0].n.Spread(); return err == nil && n > 0 })
	if err := all[0].n.WaitPlaced(within(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all roots are equal", func() bool {
		want, err := all[0].e.ZoneRoot(fcp.ZonePrivate)
		for _, x := range all[1:] {
			got, err2 := x.e.ZoneRoot(fcp.ZonePrivate)
			if err != nil || err2 != nil || got != want {
				return false
			}
		}
		return true
	})
	body2, err := authority.SignRevocation(time.Now(), owner, authority.Cut{Feed: fcp.Feed{Zone: fcp.ZonePrivate, Writer: fcp.WriterID{7}, Incarnation: 1, Plane: fcp.PlaneControl}}, "lost")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := all[0].e.AppendSigned(ctx, fcp.ZonePrivate, fcp.KindRevocationIssued, body2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both have the revocation", func() bool {
		a := all[0].n.Arrivals()
		return len(a) == 1 && len(a[0].Seen) == 2
	})
	t.Log("a revocation is everywhere after", time.Since(began))
	all[0].n.Kill()
	all[0].n = nil
	began = time.Now()
	r, err := all[2].e.Get(within(t, 2*time.Minute), engine.GetRequest{Key: "big"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, body) {
		t.Fatalf("read: %v", err)
	}
	t.Logf("1 MiB read from the survivor in %v", time.Since(began))
}

func addrPort(n *Network) netip.AddrPort { return netip.AddrPortFrom(n.Addr(), DefaultPort) }
