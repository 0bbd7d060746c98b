package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

type testSigner struct{ keys *authority.NodeKeys }

func (s testSigner) Public() ed25519.PublicKey {
	k := s.keys.Public().Signing
	return k[:]
}

func (s testSigner) Sign(m []byte) ([]byte, error) { return s.keys.Sign(m), nil }

// TestCertificatesProveMembership tries certificates that must not count.
func TestCertificatesProveMembership(t *testing.T) {
	m := newMesh(t, 2, nil)
	e, owner := m.nodes[0].e, m.nodes[0].e.Genesis().Owner
	now := time.Now()
	members, err := e.Members()
	if err != nil {
		t.Fatal(err)
	}
	signer := e.Signer()
	var own, other engine.Member
	for _, x := range members {
		if x.Writer == e.Log().Writer() {
			own = x
		} else {
			other = x
		}
	}
	make := func(at time.Time, proof []byte) []byte {
		c, err := makeCertificate(rand.Reader, at, signer, proof)
		if err != nil {
			t.Fatal(err)
		}
		return c.Certificate[0]
	}
	if got, err := parseCertificate(make(now, own.Proof), owner, now); err != nil || got.Writer != own.Writer {
		t.Fatal("a good certificate:", err)
	}
	stranger, err := authority.NewOwnerKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		der   []byte
		owner authority.OwnerPublic
		want  error
	}{
		"another node's enrollment": {make(now, other.Proof), owner, fcp.CodeSignature},
		"another owner":             {make(now, own.Proof), stranger.Public(), fcp.CodeWrongKey},
		"out of date":               {make(now.Add(-2*attestationLife), own.Proof), owner, fcp.CodeUnauthorized},
		"valid for too long":        {make(now.Add(attestationLife), own.Proof), owner, fcp.CodeUnauthorized},
		"no enrollment":             {make(now, nil), owner, fcp.CodeUnauthorized},
		"no certificate":            {[]byte("x"), owner, fcp.CodeUnauthorized},
	} {
		if _, err := parseCertificate(c.der, c.owner, now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestARevokedNodeIsCutOff cuts a feed of a member: its sessions end and it is not
// let in again.
func TestARevokedNodeIsCutOff(t *testing.T) {
	m := newMesh(t, 3, nil)
	m.together()
	m.put(2, "by the lost device", []byte("x"))
	m.equalRoots(fcp.ZonePrivate)
	lost := m.nodes[2].e.Log()
	feed := fcp.Feed{Zone: fcp.ZonePrivate, Writer: lost.Writer(), Incarnation: lost.Incarnation(), Plane: fcp.PlaneControl}
	body, err := authority.SignRevocation(time.Now(), m.owner, authority.Cut{Feed: feed}, "lost")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.nodes[0].e.AppendSigned(context.Background(), fcp.ZonePrivate, fcp.KindRevocationIssued, body); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		eventually(t, 5*time.Second, "the lost node is gone", func() bool { return m.nodes[i].n.session(lost.Writer()) == nil })
	}
	time.Sleep(300 * time.Millisecond) // several redials
	for i := range 2 {
		if m.nodes[i].n.session(lost.Writer()) != nil {
			t.Error("a revoked node is let in")
		}
	}
	if m.nodes[0].n.session(m.nodes[1].n.Writer()) == nil {
		t.Error("the others do not talk to each other any more")
	}
	if _, err := m.get(1, "by the lost device"); !errors.Is(err, fcp.CodeNotFound) {
		t.Error("what the revoked node wrote is read:", err)
	}
}

// TestANodeRevokedBeforeItsEnrollmentIsKnownIsNotLetIn shows a certificate with an
// enrollment that this store has not seen, of a device whose revocation it has.
func TestANodeRevokedBeforeItsEnrollmentIsKnownIsNotLetIn(t *testing.T) {
	m := newMesh(t, 1, nil)
	e := m.nodes[0].e
	members, err := e.Members()
	if err != nil {
		t.Fatal(err)
	}
	id := &identity{engine: e, now: time.Now, rand: rand.Reader, self: members[0]}
	keys, err := authority.NewNodeKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := authority.SignDevice(time.Now(), m.owner, authority.DeviceSpec{Node: keys.Public(), Name: "gone"})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := makeCertificate(rand.Reader, time.Now(), testSigner{keys}, proof)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	state := &tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{leaf}}
	got, err := id.peer(state)
	if err != nil || got.Writer != keys.Writer() {
		t.Fatal("before the revocation:", err)
	}
	id.admit(got)
	_, err = e.Revoke(context.Background(), m.owner, authority.RevocationSpec{Zone: fcp.ZoneOwner, Scope: authority.RevokeDevice, Targets: []fcp.Hash{fcp.Hash(keys.Writer())}})
	if err == nil {
		err = id.refresh()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.peer(state); !errors.Is(err, fcp.CodeVoided) {
		t.Error("a revoked device is let in by an enrollment that came late:", err)
	}
	if x, ok := id.member(keys.Writer()); !ok || !x.Revoked || len(id.told().Writers) != 1 {
		t.Error("a revoked device that was let in before stays a member")
	}
}
