package enginetest

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/log"
)

// reach is a ShareSource over the nodes of a mesh: what a node does over its
// sessions.
type reach struct {
	m     *Mesh
	from  *Node
	down  map[*Node]bool
	spoil map[*Node]func([]byte) []byte // what becomes of an answer

	mu    sync.Mutex
	asked []*Node // guarded by mu
}

func (m *Mesh) reach(from *Node, down ...*Node) *reach {
	r := &reach{m: m, from: from, down: map[*Node]bool{}, spoil: map[*Node]func([]byte) []byte{}}
	for _, n := range down {
		r.down[n] = true
	}
	return r
}

// AskShare implements engine.ShareSource.
func (r *reach) AskShare(ctx context.Context, device fcp.WriterID, ask []byte) ([]byte, error) {
	for _, n := range r.m.Nodes {
		if n.Node().Writer() != device {
			continue
		}
		if r.down[n] {
			return nil, fcp.Errorf(fcp.CodeTimeout, "%s does not answer", n.Name)
		}
		r.mu.Lock()
		r.asked = append(r.asked, n)
		r.mu.Unlock()
		b, err := n.AnswerShareAsk(ctx, r.from.Node().Writer(), ask)
		if f := r.spoil[n]; f != nil && err == nil {
			b = f(b)
		}
		return b, err
	}
	return nil, fcp.Errorf(fcp.CodeNotFound, "no device %.16s", device)
}

// use uses a secret and returns a copy of its value, which only a test may keep.
func (n *Node) use(u engine.SecretUse) (value string, used engine.SecretUsed, err error) {
	u.Zone = fcp.ZoneWork
	used, err = n.UseSecret(ctx, u, func(b []byte) error { value = string(b); return nil })
	return value, used, err
}

func (m *Mesh) put(n *Node, name, value string, k int) engine.SecretState {
	m.T.Helper()
	s, err := n.PutSecret(ctx, m.Owner, engine.PutSecretRequest{Zone: fcp.ZoneWork, Name: name, Value: []byte(value), Threshold: k})
	m.check(err)
	m.Sync(fcp.ZoneWork)
	return s
}

// audits counts the audit entries of a type in the zone that a node's own feed has.
func (n *Node) audits(what authority.AuditType) (count int) {
	n.m.T.Helper()
	for _, f := range n.Log().Feeds() {
		if !f.Own || f.Feed.Zone != fcp.ZoneWork || f.Feed.Plane != fcp.PlaneControl || f.Seq == 0 {
			continue
		}
		n.m.check(n.Log().ScanFeed(ctx, f.No, 1, 0, 0, func(events []log.Applied) error {
			for i := range events {
				if events[i].Content.Kind != fcp.KindAuditEntry {
					continue
				}
				if a, err := authority.DecodeAuditEvent(events[i].Content.Body); err == nil && a.Type == what {
					count++
				}
			}
			return nil
		}))
	}
	return count
}

func writers(nodes ...*Node) (out []fcp.WriterID) {
	for _, n := range nodes {
		out = append(out, n.Node().Writer())
	}
	return out
}

func TestASecretIsRebuiltWhereKDevicesAreReachable(t *testing.T) {
	const canary = "canary of a shared secret, 41 bytes long."
	m := New(t, 60, 5)
	s := m.put(m.Nodes[0], "api/token", canary, 3)
	if s.Threshold != 3 || len(s.Holders) != 5 || s.Version != 1 {
		t.Fatalf("%+v", s)
	}
	root := m.Nodes[0].Root(fcp.ZoneWork)
	for _, n := range m.Nodes {
		list, err := n.Secrets(fcp.ZoneWork)
		if err != nil || len(list) != 1 || list[0].Ref != s.Ref || n.Root(fcp.ZoneWork) != root {
			t.Fatalf("%s: %+v %v", n.Name, list, err)
		}
	}
	for i, asker := range m.Nodes {
		var others []*Node
		for _, n := range m.Nodes {
			if n != asker {
				others = append(others, n)
			}
		}
		before := make([]int, len(others))
		for j, n := range others {
			before[j] = n.audits(authority.AuditSecretAccess)
		}
		mine := asker.audits(authority.AuditSecretAccess)
		r := m.reach(asker, others[:2]...) // two reachable: three shares
		value, used, err := asker.use(engine.SecretUse{Name: "api/token", By: m.Owner, Sources: r})
		if err != nil || value != canary || len(used.Devices) != 3 || len(used.Refused) != 2 {
			t.Fatalf("asker %d: %q %+v %v", i, value, used, err)
		}
		for j, n := range others {
			want := before[j]
			if slices.Contains(r.asked, n) {
				want++
			}
			if got := n.audits(authority.AuditSecretAccess); got != want {
				t.Errorf("%s has %d entries of secret access, want %d", n.Name, got, want)
			}
		}
		if got := asker.audits(authority.AuditSecretAccess); got != mine+1 {
			t.Errorf("the asker has %d entries, want %d", got, mine+1)
		}
		called := false
		_, err = asker.UseSecret(ctx, engine.SecretUse{Zone: fcp.ZoneWork, Name: "api/token", By: m.Owner, Sources: m.reach(asker, others[:3]...)},
			func([]byte) error { called = true; return nil })
		if !errors.Is(err, fcp.CodeNotEnough) || called || !strings.Contains(err.Error(), others[0].Node().Writer().String()[:16]) {
			t.Errorf("one reachable: %v, used: %v", err, called)
		}
		if _, _, err = asker.use(engine.SecretUse{Name: "api/token", By: m.Owner}); !errors.Is(err, fcp.CodeNotEnough) {
			t.Errorf("nobody to ask: %v", err)
		}
		if _, _, err = asker.use(engine.SecretUse{Name: "api/token", Sources: r}); !errors.Is(err, fcp.CodeUnauthorized) {
			t.Errorf("by nobody: %v", err)
		}
	}
	m.Sync()
	forms := []string{canary, hex.EncodeToString([]byte(canary))}
	for _, n := range m.Nodes { // no event of any zone has the value
		for _, z := range n.Zones() {
			for _, feed := range n.Feeds(z, fcp.PlaneControl) {
				for _, ev := range feed.Events {
					for _, form := range forms {
						if bytes.Contains(ev.Content.Body, []byte(form)) {
							t.Fatalf("a %s event has the value", ev.Content.Kind)
						}
					}
				}
			}
		}
	}
}

func TestAWrongShareIsNamedAndAnotherDeviceAsked(t *testing.T) {
	m := New(t, 61, 4)
	m.put(m.Nodes[0], "s", "value", 2)
	asker := m.Nodes[3]
	bad := m.Nodes[0]
	// The liar seals its share of another secret, which opens and does not fit.
	m.put(m.Nodes[0], "other", "other", 2)
	r := m.reach(asker, m.Nodes[1])
	r.spoil[bad] = func(b []byte) []byte { return append(bytes.Clone(b[:len(b)-1]), b[len(b)-1]^1) }
	value, used, err := asker.use(engine.SecretUse{Name: "s", By: m.Owner, Sources: r})
	if err != nil || value != "value" {
		t.Fatalf("%q %v", value, err)
	}
	for _, x := range used.Refused {
		if x.Device != bad.Node().Writer() && x.Device != m.Nodes[1].Node().Writer() {
			t.Errorf("refused is %s", x.Device)
		}
	}
	// A device that answers with another share, well sealed: named, and on record.
	before := asker.audits(authority.AuditSecurity)
	r = m.reach(asker, m.Nodes[1])
	r.spoil[bad] = func(b []byte) []byte { return forgeAnswer(t, asker, b) }
	_, used, err = asker.use(engine.SecretUse{Name: "s", By: m.Owner, Sources: r})
	i := slices.IndexFunc(used.Refused, func(x engine.Refused) bool { return x.Device == bad.Node().Writer() })
	if asked := slices.Contains(r.asked, bad); err != nil || asked && (i < 0 || !errors.Is(used.Refused[i].Err, fcp.CodeCorrupt) || asker.audits(authority.AuditSecurity) != before+1) {
		t.Fatalf("asked: %v, %+v %v", asked, used.Refused, err)
	}
	r = m.reach(asker, m.Nodes[1], m.Nodes[2])
	r.spoil[bad] = func(b []byte) []byte { return forgeAnswer(t, asker, b) }
	if _, used, err = asker.use(engine.SecretUse{Name: "s", By: m.Owner, Sources: r}); !errors.Is(err, fcp.CodeNotEnough) || !slices.ContainsFunc(used.Refused,
		func(x engine.Refused) bool {
			return x.Device == bad.Node().Writer() && errors.Is(x.Err, fcp.CodeCorrupt)
		}) {
		t.Fatalf("%+v %v", used.Refused, err)
	}
	// Every byte of an answer that is flipped is refused, and never a wrong value used.
	for i := 0; i < 200; i++ {
		r := m.reach(asker)
		for _, n := range m.Nodes {
			r.spoil[n] = func(b []byte) []byte { b = bytes.Clone(b); b[i*len(b)/200] ^= 0x20; return b }
		}
		if value, _, err := asker.use(engine.SecretUse{Name: "s", By: m.Owner, Sources: r}); err == nil || value != "" {
			t.Fatalf("byte %d of 200: used as %q", i, value)
		}
	}
}

// forgeAnswer seals other bytes to the asker in place of the share in an answer, with
// crypto/hpke, as docs/format.md says: nothing but public knowledge is needed.
func forgeAnswer(t *testing.T, asker *Node, answer []byte) []byte {
	t.Helper()
	type box struct {
		KEM  uint16 `cbor:"kem"`
		KDF  uint16 `cbor:"kdf"`
		AEAD uint16 `cbor:"aead"`
		Enc  []byte `cbor:"enc"`
		CT   []byte `cbor:"ct"`
	}
	var a struct {
		Format   uint64   `cbor:"format"`
		Secret   fcp.Hash `cbor:"secret"`
		Index    uint8    `cbor:"index"`
		IssuedAt uint64   `cbor:"issued_at"`
		Box      box      `cbor:"box"`
	}
	check := asker.m.check
	check(fcp.Unmarshal(answer, &a))
	aad, err := fcp.Marshal(map[string]any{"purpose": []byte("FCP2-SECRET-RELEASE"), "zone_id": []byte(fcp.ZoneWork), "issued_at": a.IssuedAt,
		"recipient_node_id": []byte(asker.Node().Writer().String())})
	check(err)
	key := asker.Node().Encryption
	pub, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(key[:])
	check(err)
	enc, s, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("FCP2-HPKE"))
	check(err)
	ct, err := s.Seal(aad, make([]byte, len(a.Box.CT)-16))
	check(err)
	a.Box.Enc, a.Box.CT = enc, ct
	b, err := fcp.Marshal(a)
	check(err)
	return b
}

func TestResharingMakesOldSharesVoid(t *testing.T) {
	m := New(t, 62, 5)
	m.put(m.Nodes[0], "s", "value", 3)
	lost := m.Nodes[4]
	away := m.Nodes[3] // knows of nothing yet
	first := m.Nodes[0]
	_, err := first.DeviceLost(ctx, m.Owner, lost.Node().Writer(), "stolen")
	m.check(err)
	list, err := first.Secrets(fcp.ZoneWork)
	if err != nil || !slices.Equal(list[0].Lost, writers(lost)) {
		t.Fatalf("lost holders: %v %v", list, err)
	}
	next, err := first.ReshareSecret(ctx, m.Owner, engine.PutSecretRequest{Zone: fcp.ZoneWork, Name: "s"}, m.reach(first, lost))
	if err != nil || next.Version != 2 || next.Value != 1 || next.Threshold != 3 || len(next.Holders) != 4 || slices.Contains(next.Holders, lost.Node().Writer()) {
		t.Fatalf("%+v %v", next, err)
	}
	for _, n := range m.Nodes[1:3] {
		n.Pull(first, fcp.ZoneOwner)
		n.Pull(first, fcp.ZoneWork)
	}
	// The lost device asks with the owner's own token of before: those who know refuse.
	_, used, err := lost.use(engine.SecretUse{Name: "s", By: m.Owner, Sources: m.reach(lost, away)})
	if !errors.Is(err, fcp.CodeNotEnough) || len(used.Devices) != 1 {
		t.Fatalf("the lost device got %d shares: %v", len(used.Devices), err)
	}
	for _, x := range used.Refused {
		if code := fcp.CodeOf(x.Err); x.Device != away.Node().Writer() && code != fcp.CodeConflict {
			t.Errorf("%v", x.Err)
		}
	}
	// Who has the new version does not take the old share of who has not.
	value, used, err := first.use(engine.SecretUse{Name: "s", By: m.Owner, Sources: m.reach(first, lost)})
	if err != nil || value != "value" || slices.Contains(used.Devices, away.Node().Writer()) {
		t.Fatalf("%q %+v %v", value, used.Devices, err)
	}
	// A refresh without a loss, twice, with another threshold.
	m.Nodes = m.Nodes[:4]
	m.Sync()
	for i, k := range []int{2, 4} {
		s, err := first.ReshareSecret(ctx, m.Owner, engine.PutSecretRequest{Zone: fcp.ZoneWork, Name: "s", Threshold: k}, m.reach(first))
		if err != nil || s.Version != uint64(3+i) || s.Value != 1 || s.Threshold != k {
			t.Fatalf("%+v %v", s, err)
		}
		m.Sync(fcp.ZoneWork)
		if value, _, err := m.Nodes[1].use(engine.SecretUse{Name: "s", By: m.Owner, Sources: m.reach(m.Nodes[1])}); err != nil || value != "value" {
			t.Fatalf("%q %v", value, err)
		}
	}
	if s, err := first.RotateSecret(ctx, m.Owner, engine.PutSecretRequest{Zone: fcp.ZoneWork, Name: "s", Value: []byte("another")}); err != nil || s.Value != 2 || s.Threshold != 4 {
		t.Fatalf("%+v %v", s, err)
	}
	m.Sync(fcp.ZoneWork)
	if value, _, err := m.Nodes[2].use(engine.SecretUse{Name: "s", By: m.Owner, Sources: m.reach(m.Nodes[2])}); err != nil || value != "another" {
		t.Fatalf("%q %v", value, err)
	}
	if s, err := first.RemoveSecret(ctx, m.Owner, fcp.ZoneWork, "s", false); err != nil || !s.Removed() {
		t.Fatalf("%+v %v", s, err)
	}
	m.Sync(fcp.ZoneWork)
	if _, _, err := m.Nodes[2].use(engine.SecretUse{Name: "s", By: m.Owner, Sources: m.reach(m.Nodes[2])}); !errors.Is(err, fcp.CodeNotFound) {
		t.Fatalf("a removed secret: %v", err)
	}
	if s := m.put(first, "s", "born again", 1); s.Version != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestTwoRotationsAtOnceHaltASecretUntilOneMore(t *testing.T) {
	m := New(t, 63, 3)
	m.put(m.Nodes[0], "s", "value", 2)
	for i, n := range m.Nodes[:2] {
		_, err := n.RotateSecret(ctx, m.Owner, engine.PutSecretRequest{Zone: fcp.ZoneWork, Name: "s", Value: []byte{byte('a' + i)}})
		m.check(err)
	}
	if _, err := m.Nodes[0].PutSecret(ctx, m.Owner, engine.PutSecretRequest{Zone: fcp.ZoneWork, Name: "s", Value: []byte("x")}); !errors.Is(err, fcp.CodeConflict) {
		t.Fatalf("put over a secret: %v", err)
	}
	m.Sync(fcp.ZoneWork)
	for _, n := range m.Nodes {
		if _, _, err := n.use(engine.SecretUse{Name: "s", By: m.Owner, Sources: m.reach(n)}); authority.ReasonOf(err) != authority.ReasonVersionForked {
			t.Errorf("%s: %v", n.Name, err)
		}
		if n.Root(fcp.ZoneWork) != m.Nodes[0].Root(fcp.ZoneWork) {
			t.Errorf("%s has another root", n.Name)
		}
	}
	_, err := m.Nodes[2].RotateSecret(ctx, m.Owner, engine.PutSecretRequest{Zone: fcp.ZoneWork, Name: "s", Value: []byte("settled")})
	m.check(err)
	m.Sync(fcp.ZoneWork)
	if value, _, err := m.Nodes[1].use(engine.SecretUse{Name: "s", By: m.Owner, Sources: m.reach(m.Nodes[1])}); err != nil || value != "settled" {
		t.Fatalf("%q %v", value, err)
	}
	// Two secrets of one name, made apart: nobody guesses.
	for _, n := range m.Nodes[:2] {
		_, err := n.PutSecret(ctx, m.Owner, engine.PutSecretRequest{Zone: fcp.ZoneWork, Name: "twin", Value: []byte("x")})
		m.check(err)
	}
	m.Sync(fcp.ZoneWork)
	if _, _, err := m.Nodes[0].use(engine.SecretUse{Name: "twin", By: m.Owner, Sources: m.reach(m.Nodes[0])}); !errors.Is(err, fcp.CodeGuess) {
		t.Fatal(err)
	}
}

// TestEachDeviceDecidesByItself uses a secret with a capability token: the asker and
// every device that is asked decide the same request, and a device that lies about
// it gets nothing.
func TestEachDeviceDecidesByItself(t *testing.T) {
	m := New(t, 64, 3)
	first, asker := m.Nodes[0], m.Nodes[1]
	m.put(first, "mail/password", "value", 3)
	m.put(first, "bank/pin", "1234", 3)
	now := m.Clock.Now().Truncate(time.Second)
	granted, err := first.Entitle(ctx, m.Owner, engine.EntitleRequest{GrantSpec: authority.GrantSpec{Zone: fcp.ZoneWork, Principal: "agent:mail",
		Rights:      []authority.Right{{Capability: engine.SecretCapability, Operation: string(engine.OperationUse)}},
		Constraints: authority.Constraints{ResourceAllow: []string{"mail/"}}, NotBefore: now, NotAfter: now.Add(time.Hour)}, Devices: writers(asker)})
	m.check(err)
	one, err := first.ProposeCheckpoint(fcp.ZoneWork)
	m.check(err)
	_, err = first.AppendCheckpoint(ctx, one)
	m.check(err)
	m.Sync()
	holder, err := authority.NewHolderKey(Random(99))
	m.check(err)
	chain, err := first.MintFrom(engine.MintRequest{Zone: fcp.ZoneWork, Grant: granted.Grant, Confirm: holder.Public(), Holder: asker.Node().Writer(),
		Audience: engine.StoreConnector, Instance: engine.SecretInstance})
	m.check(err)
	caller := &engine.Caller{Token: chain, Prove: func(c authority.Challenge, leaf, request fcp.Hash) ([]byte, error) {
		return holder.Prove(c, leaf, request), nil
	}}
	counts := func(n *Node) [2]int {
		return [2]int{n.audits(authority.AuditSecretAccess), n.audits(authority.AuditDenied)}
	}
	before := counts(m.Nodes[2])
	value, used, err := asker.use(engine.SecretUse{Name: "mail/password", Caller: caller, Sources: m.reach(asker)})
	if err != nil || value != "value" || len(used.Devices) != 3 {
		t.Fatalf("%q %+v %v", value, used, err)
	}
	if after := counts(m.Nodes[2]); after[0] != before[0]+1 || after[1] != before[1] {
		t.Errorf("audit entries before %v, after %v", before, after)
	}
	r := m.reach(asker)
	_, _, err = asker.use(engine.SecretUse{Name: "bank/pin", Caller: caller, Sources: r})
	var refusal *engine.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != authority.ReasonResource || refusal.Smallest == nil || refusal.Receipt.IsZero() || len(r.asked) != 0 {
		t.Fatalf("%v, %d devices asked", err, len(r.asked))
	}
	// An asker that skips its own decision, with the caller's proof for another secret.
	list, err := first.Secrets(fcp.ZoneWork)
	m.check(err)
	pin := list[slices.IndexFunc(list, func(s engine.SecretState) bool { return s.Name == "bank/pin" })]
	mail := list[slices.IndexFunc(list, func(s engine.SecretState) bool { return s.Name == "mail/password" })]
	forge := func(change func(a *authority.ShareAsk)) error {
		t.Helper()
		a := &authority.ShareAsk{Zone: fcp.ZoneWork, Secret: mail.ID, Version: 1, Request: fcp.ObjectID{1}, Principal: "agent:mail",
			Token: chain.Bytes(), Nonce: [32]byte{2}, At: m.Clock.Now().Truncate(time.Second), Signature: make([]byte, 64)}
		change(a)
		b, err := a.Encode()
		m.check(err)
		_, err = m.Nodes[2].AnswerShareAsk(ctx, asker.Node().Writer(), b)
		return err
	}
	before = counts(m.Nodes[2])
	for name, c := range map[string]struct {
		change func(a *authority.ShareAsk)
		want   error
	}{
		"no proof":        {func(*authority.ShareAsk) {}, authority.ReasonProofMissing},
		"another secret":  {func(a *authority.ShareAsk) { a.Secret = pin.ID }, fcp.Denied},
		"an old proof":    {func(a *authority.ShareAsk) { a.At = a.At.Add(-time.Hour) }, fcp.CodeTokenExpired},
		"another version": {func(a *authority.ShareAsk) { a.Version = 2 }, fcp.CodeConflict},
		"no such secret":  {func(a *authority.ShareAsk) { a.Secret[0] ^= 1 }, fcp.CodeNotFound},
		"a token of whoever": {func(a *authority.ShareAsk) {
			a.Token, a.Signature = nil, nil
			a.Nonce, a.At = [32]byte{}, time.Time{}
			stranger, err := authority.NewOwnerKey(Random(5))
			m.check(err)
			at := m.Clock.Now().Truncate(time.Second)
			a.Access, err = authority.SignSecretAccess(Random(6), stranger, authority.SecretAccessSpec{Zone: fcp.ZoneWork, Secret: mail.ID,
				Holder: asker.Node().Writer(), Request: fcp.Hash{1}, Purpose: "theft", NotBefore: at, Expires: at.Add(time.Minute)})
			m.check(err)
		}, authority.ReasonNotOwner},
		"the owner's token for another request": {func(a *authority.ShareAsk) {
			a.Token, a.Signature = nil, nil
			a.Nonce, a.At = [32]byte{}, time.Time{}
			at := m.Clock.Now().Truncate(time.Second)
			a.Access, err = authority.SignSecretAccess(Random(6), m.Owner, authority.SecretAccessSpec{Zone: fcp.ZoneWork, Secret: mail.ID,
				Holder: asker.Node().Writer(), Request: fcp.Hash{1}, Purpose: "use", NotBefore: at, Expires: at.Add(time.Minute)})
			m.check(err)
		}, authority.ReasonProofOther},
	} {
		err := forge(c.change)
		reason, isReason := c.want.(fcp.Reason)
		if err == nil || isReason && authority.ReasonOf(err) != reason || !isReason && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if after := counts(m.Nodes[2]); after[0] != before[0] || after[1] < before[1]+4 {
		t.Errorf("audit entries before %v, after %v", before, after)
	}
	observer := m.Join(false)
	if _, err := m.Nodes[2].AnswerShareAsk(ctx, observer.Node().Writer(), func() []byte {
		b, err := (&authority.ShareAsk{Zone: fcp.ZoneWork, Secret: mail.ID, Version: 1, Request: fcp.ObjectID{1}, Principal: "agent:mail", Access: []byte{1}}).Encode()
		m.check(err)
		return b
	}()); !errors.Is(err, fcp.CodeDenied) {
		t.Errorf("a device that is no member: %v", err)
	}
}
