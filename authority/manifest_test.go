package authority

import (
	"testing"

	"fcp"
)

func testManifest2(t testing.TB, o *OwnerKey) []byte {
	t.Helper()
	b, err := SealManifest(testRand(9), testNow, o, testZoneKeys(t, "z:work", 1), ManifestSpec{Version: 2, Recovery: testRecovery(t, o).Public(),
		Recipients: []Recipient{testNode(t, 1).Public().Recipient()}, Reason: RotateDeviceLost})
	return must(t, b, err)
}

func TestHybridManifestOpensForItsRecipientsOnly(t *testing.T) {
	o, keys := testOwner(t, 1), testZoneKeys(t, "z:work", 1)
	a, b := testNode(t, 1), testNode(t, 2)
	hybrid, err := a.Hybrid()
	must(t, hybrid, err)
	spec := ManifestSpec{Version: 1, Recovery: testRecovery(t, o).Public(), KEM: KEMHybrid,
		Recipients: []Recipient{a.Public().Recipient().WithHybrid(hybrid)}}
	raw, err := SealManifest(testRand(9), testNow, o, keys, spec)
	must(t, raw, err)
	m, err := VerifyManifest(o.Public(), raw)
	must(t, m, err)
	equal(t, m.KEM(), KEMHybrid)
	got, err := m.OpenNode(a)
	equal(t, must(t, got, err).p().keys, keys.p().keys)
	got, err = m.OpenRecovery(testRecovery(t, o))
	equal(t, must(t, got, err).p().keys, keys.p().keys)
	_, err = m.OpenNode(b)
	wantCode(t, err, fcp.CodeWrongKey)

	spec.Recipients = append(spec.Recipients, b.Public().Recipient())
	_, err = SealManifest(testRand(9), testNow, o, keys, spec)
	wantCode(t, err, fcp.CodeWrongKey)
	spec.Recipients, spec.Recovery = nil, testRecovery(t, testOwner(t, 2)).Public()
	_, err = SealManifest(testRand(9), testNow, o, keys, spec)
	wantCode(t, err, fcp.CodeWrongKey)

	// One box of the other KEM is refused though the owner signed it.
	mixed := m.o
	mixed.Wrapped = append([]wrappedEntry(nil), mixed.Wrapped...)
	mixed.Wrapped[1].BodyKey = testManifest(t, o, keys, a).o.Wrapped[1].BodyKey
	raw, err = signObject(o, fcp.SchemaZoneKeyManifest, &mixed, &mixed.Signature)
	must(t, raw, err)
	if _, err := VerifyManifest(o.Public(), raw); err == nil {
		t.Error("two KEMs pass")
	}
	mixed = m.o
	mixed.Format = ObjectFormat
	raw, err = signObject(o, fcp.SchemaZoneKeyManifest, &mixed, &mixed.Signature)
	must(t, raw, err)
	_, err = VerifyManifest(o.Public(), raw)
	wantCode(t, err, fcp.CodeVersion)
}

func TestRotationKeepsTheObjectIDKeyOnlyWhenItIsRoutine(t *testing.T) {
	old := testZoneKeys(t, "z:work", 1)
	for reason := range rotationReasons {
		n, err := old.Rotate(testRand(5), reason)
		must(t, n, err)
		a, b := old.IDs(), n.IDs()
		if a.Zone == b.Zone || a.Body == b.Body || (a.ObjectID == b.ObjectID) != (reason == RotateRoutine) || n.Zone() != old.Zone() {
			t.Errorf("%s: %v to %v", reason, a, b)
		}
	}
	o := testOwner(t, 1)
	m, err := VerifyManifest(o.Public(), testManifest2(t, o))
	equal(t, must(t, m, err).Reason(), RotateDeviceLost)
	bad := m.o
	bad.Reason = "because"
	raw, err := signObject(o, fcp.SchemaZoneKeyManifest, &bad, &bad.Signature)
	must(t, raw, err)
	_, err = VerifyManifest(o.Public(), raw)
	wantCode(t, err, fcp.CodeMalformed)
}
