package authority

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"fcp"
)

func testManifest(t testing.TB, o *OwnerKey, keys *ZoneKeys, nodes ...*NodeKeys) *Manifest {
	t.Helper()
	m, err := VerifyManifest(o.Public(), testManifestBytes(t, o, keys, nodes...))
	return must(t, m, err)
}

func testManifestBytes(t testing.TB, o *OwnerKey, keys *ZoneKeys, nodes ...*NodeKeys) []byte {
	t.Helper()
	spec := ManifestSpec{Version: 1, Recovery: testRecovery(t, o).Public()}
	for _, n := range nodes {
		spec.Recipients = append(spec.Recipients, n.Public().Recipient())
	}
	b, err := SealManifest(testRand(9), testNow, o, keys, spec)
	return must(t, b, err)
}

func testGenesis(t testing.TB) *Genesis {
	g, err := MakeGenesis(testRand(8), testNow, testOwner(t, 1), testNode(t, 1), StandardGenesisZones())
	return must(t, g, err)
}

// signedSample is an encoded object and its verifier.
type signedSample struct {
	b      []byte
	verify func([]byte) error
}

// signedSamples returns one of each signed object of owner 1 and its verifier.
func signedSamples(t testing.TB) map[string]signedSample {
	o := testOwner(t, 1)
	zone, err := SignZone(testNow, o, ZoneSpec{ID: "z:work:lab", Name: "Laboratory", Levels: fcp.Levels{Integrity: 50, Confidentiality: 60}, Parent: "z:work", Version: 1})
	must(t, zone, err)
	rev, err := SignRevocation(testNow, o, testCut(41, 9), "laptop lost on a train")
	must(t, rev, err)
	out := map[string]signedSample{
		"genesis":    {testGenesis(t).Bytes, func(b []byte) error { _, err := VerifyGenesis(b); return err }},
		"zone":       {zone, func(b []byte) error { _, err := VerifyZone(o.Public(), b); return err }},
		"zone 2":     {testZone2(t, o), func(b []byte) error { _, err := VerifyZone(o.Public(), b); return err }},
		"policy":     {testPolicyBytes(t, o), func(b []byte) error { _, err := VerifyPolicy(o.Public(), b); return err }},
		"policy 2":   {testPolicy2(t, o), func(b []byte) error { _, err := VerifyPolicy(o.Public(), b); return err }},
		"manifest 2": {testManifest2(t, o), func(b []byte) error { _, err := VerifyManifest(o.Public(), b); return err }},
		"revocation": {rev, func(b []byte) error { _, err := VerifyRevocation(o.Public(), b); return err }},
		"manifest": {testManifestBytes(t, o, testZoneKeys(t, "z:work", 1), testNode(t, 1), testNode(t, 2)),
			func(b []byte) error { _, err := VerifyManifest(o.Public(), b); return err }},
	}
	maps.Copy(out, controlSamples(t, o))
	return out
}

func TestSignedObjectsRefuseEveryFlippedByte(t *testing.T) {
	for name, s := range signedSamples(t) {
		if err := s.verify(s.b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range s.b {
			bad := bytes.Clone(s.b)
			bad[i] ^= 1 << (i % 8)
			if s.verify(bad) == nil {
				t.Fatalf("%s: byte %d does not matter", name, i)
			}
		}
		for _, bad := range [][]byte{nil, s.b[:31], s.b[:32], s.b[:len(s.b)-1], append(bytes.Clone(s.b), 0), make([]byte, MaxSignedObject+1)} {
			if s.verify(bad) == nil {
				t.Errorf("%s: %d bytes pass", name, len(bad))
			}
		}
	}
}

func TestSignedObjectsAreNotEachOther(t *testing.T) {
	samples := signedSamples(t)
	for name, s := range samples {
		for other, o := range samples {
			if bytes.Equal(s.b[:fcp.HashSize], o.b[:fcp.HashSize]) {
				continue
			}
			wantCode(t, s.verify(o.b), fcp.CodeSchema)
			grafted := append(bytes.Clone(s.b[:32]), o.b[32:]...)
			if s.verify(grafted) == nil {
				t.Errorf("%s with the schema of %s passes", other, name)
			}
		}
	}
}

func TestSignatureCoversSchemaAndAllOtherFields(t *testing.T) {
	o := testOwner(t, 1)
	seq := uint64(5)
	obj := revocationObject{Format: 1, Zone: "z:work", Feed: &revocationFeed{Zone: "z:work", Plane: 1}, Seq: &seq, Hash: &fcp.Hash{1}, Reason: "r", Issuer: o.Public()}
	want, err := fcp.MarshalPayload(fcp.SchemaRevocation, &obj)
	must(t, want, err)
	b, err := signObject(o, fcp.SchemaRevocation, &obj, &obj.Signature)
	must(t, b, err)
	s, err := cutSignature(b)
	if err != nil || !bytes.Equal(s.message, want) || !bytes.Equal(s.signature, obj.Signature) {
		t.Fatalf("cut: %v\n%x\n%x", err, s.message, want)
	}
}

func TestCutSignatureOfBrokenMaps(t *testing.T) {
	prefix := make([]byte, fcp.HashSize)
	sig := "\x69signature\x58\x40" + strings.Repeat("s", 64)
	for name, c := range map[string]struct {
		body string
		ok   bool
	}{
		"only a signature":    {"\xa1" + sig, true},
		"signature as value":  {"\xa1\x61a\x69signature", false},
		"nested signature":    {"\xa1\x61a\xa1" + sig, false},
		"after nested":        {"\xa2\x61a\x82\x01\xa1\x02\x03" + sig, true},
		"before others":       {"\xa2" + sig + "\x6aabcdefghij\x01", true},
		"bytes as key":        {"\xa1\x49signature\x58\x40" + strings.Repeat("s", 64), false},
		"short signature":     {"\xa1\x69signature\x43abc", false},
		"text signature":      {"\xa1\x69signature\x78\x40" + strings.Repeat("s", 64), false},
		"no map":              {"\x81\x01", false},
		"empty map":           {"\xa0", false},
		"empty":               {"", false},
		"huge count":          {"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x61a\x01", false},
		"huge array":          {"\xa1\x61a\x9b\xff\xff\xff\xff\xff\xff\xff\xff", false},
		"huge string":         {"\xa1\x61a\x5b\xff\xff\xff\xff\xff\xff\xff\xff", false},
		"indefinite":          {"\xa1\x61a\x5f\xff", false},
		"truncated head":      {"\xa1\x61a\x19\x01", false},
		"truncated signature": {"\xa1" + sig[:60], false},
	} {
		s, err := cutSignature(append(bytes.Clone(prefix), c.body...))
		if (err == nil) != c.ok || c.ok && len(s.signature) != 64 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnotherOwnerIsRefused(t *testing.T) {
	stranger := testOwner(t, 2).Public()
	s := signedSamples(t)
	_, err := VerifyZone(stranger, s["zone"].b)
	wantCode(t, err, fcp.CodeWrongKey)
	_, err = VerifyRevocation(stranger, s["revocation"].b)
	wantCode(t, err, fcp.CodeWrongKey)
	_, err = VerifyManifest(stranger, s["manifest"].b)
	wantCode(t, err, fcp.CodeWrongKey)
	g := testGenesis(t)
	wantCode(t, g.Facts.CheckOwner(stranger), fcp.CodeWrongKey)
	wantCode(t, g.Facts.CheckNode(testNode(t, 2).Public()), fcp.CodeWrongKey)
	if err := g.Facts.CheckOwner(testOwner(t, 1).Public()); err != nil {
		t.Error(err)
	}
	if err := g.Facts.CheckNode(testNode(t, 1).Public()); err != nil {
		t.Error(err)
	}
	// A stranger who puts the owner's name on an object signs with his own key.
	o := revocationObject{Format: 1, Zone: "z:work", Feed: &revocationFeed{Zone: "z:work", Plane: 1}, Seq: new(uint64), Hash: &fcp.Hash{}, Issuer: testOwner(t, 1).Public()}
	b, err := signObject(testOwner(t, 2), fcp.SchemaRevocation, &o, &o.Signature)
	must(t, b, err)
	_, err = VerifyRevocation(testOwner(t, 1).Public(), b)
	wantCode(t, err, fcp.CodeSignature)
}

func TestGenesisSaysWhatItWasGiven(t *testing.T) {
	g := testGenesis(t)
	f, err := VerifyGenesis(g.Bytes)
	must(t, f, err)
	o, n := testOwner(t, 1), testNode(t, 1)
	equal(t, f.Owner, o.Public())
	equal(t, f.Recovery, testRecovery(t, o).Public())
	equal(t, f.Node, n.Public())
	equal(t, f.Writer, n.Writer())
	equal(t, f.CreatedAt, testNow)
	equal(t, f.ID, g.Facts.ID)
	equal(t, f.ID, GenesisID(g.Bytes))
	equal(t, len(f.Zones), 5)
	for i, z := range f.Zones {
		l, ok := z.Zone.StandardLevels()
		if !ok || l != z.Levels || i > 0 && f.Zones[i-1].Zone >= z.Zone {
			t.Errorf("zone %d: %+v", i, z)
		}
	}
	other, err := MakeGenesis(testRand(7), testNow, o, n, StandardGenesisZones())
	must(t, other, err)
	if other.Facts.ID == f.ID || other.Facts.StoreID == f.StoreID {
		t.Error("two stores of one owner are the same")
	}
}

func TestGenesisThatCannotBeMade(t *testing.T) {
	o, n := testOwner(t, 1), testNode(t, 1)
	z := GenesisZone{Zone: "z:work", Levels: fcp.Levels{Integrity: 1}}
	for name, c := range map[string]struct {
		zones []GenesisZone
		at    time.Time
		code  fcp.Code
	}{
		"no zone":     {nil, testNow, fcp.CodeMalformed},
		"zone twice":  {[]GenesisZone{z, z}, testNow, fcp.CodeMalformed},
		"bad zone":    {[]GenesisZone{{Zone: "work"}}, testNow, fcp.CodeZone},
		"level 101":   {[]GenesisZone{{Zone: "z:work", Levels: fcp.Levels{Confidentiality: 101}}}, testNow, fcp.CodeInvalidArgument},
		"too many":    {make([]GenesisZone, MaxGenesisZones+1), testNow, fcp.CodeMalformed},
		"before 1970": {[]GenesisZone{z}, time.Unix(-1, 0), fcp.CodeInvalidArgument},
		"year 10000":  {[]GenesisZone{z}, time.Unix(maxUnixSeconds+1, 0), fcp.CodeInvalidArgument},
	} {
		if _, err := MakeGenesis(testRand(1), c.at, o, n, c.zones); fcp.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGenesisWithOneKeyInTwoRolesIsRefused(t *testing.T) {
	o := testOwner(t, 1)
	var g genesisObject
	if err := fcp.UnmarshalPayload(fcp.SchemaZoneCheckpoint, testGenesis(t).Bytes, &g); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*genesisObject){
		"issuance is signing":    func(g *genesisObject) { g.Node.Issuance = IssuancePublic(g.Node.Signing) },
		"issuance is owner":      func(g *genesisObject) { g.Node.Issuance = IssuancePublic(g.Owner) },
		"recovery is encryption": func(g *genesisObject) { g.Node.Encryption = EncryptionPublic(g.Recovery) },
		"other writer":           func(g *genesisObject) { g.Node.Writer[0] ^= 1 },
		"checkpoint 1":           func(g *genesisObject) { g.CheckpointSeq = 1 },
		"format 2":               func(g *genesisObject) { g.Format = 2 },
		"zones unsorted":         func(g *genesisObject) { g.Zones = []GenesisZone{g.Zones[1], g.Zones[0]} },
	} {
		bad := g
		change(&bad)
		b, err := signObject(o, fcp.SchemaZoneCheckpoint, &bad, &bad.Signature)
		must(t, b, err)
		if _, err := VerifyGenesis(b); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestZoneRules(t *testing.T) {
	o := testOwner(t, 1)
	define := func(s ZoneSpec) (*Zone, error) {
		b, err := SignZone(testNow, o, s)
		if err != nil {
			return nil, err
		}
		return VerifyZone(o.Public(), b)
	}
	parent, err := define(ZoneSpec{ID: "z:work", Name: "Work", Levels: fcp.Levels{Integrity: 60, Confidentiality: 70}, Version: 1})
	must(t, parent, err)
	equal(t, parent.CreatedAt(), testNow)
	for _, c := range []struct {
		spec ZoneSpec
		ok   bool
	}{
		{ZoneSpec{ID: "z:work:a", Levels: fcp.Levels{Integrity: 60, Confidentiality: 70}, Parent: "z:work", Version: 1}, true},
		{ZoneSpec{ID: "z:work:a", Levels: fcp.Levels{Integrity: 61, Confidentiality: 70}, Parent: "z:work", Version: 1}, false},
		{ZoneSpec{ID: "z:work:a", Levels: fcp.Levels{Integrity: 60, Confidentiality: 71}, Parent: "z:work", Version: 1}, false},
		{ZoneSpec{ID: "z:work:a", Levels: fcp.Levels{}, Parent: "z:owner", Version: 1}, false},
		{ZoneSpec{ID: "z:work:a", Levels: fcp.Levels{}, Version: 1}, false},
	} {
		z, err := define(c.spec)
		must(t, z, err)
		equal(t, z.Spec(), c.spec)
		if err := z.CheckParent(parent); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.spec, err)
		}
	}
	for _, bad := range []ZoneSpec{
		{ID: "work", Version: 1}, {ID: "z:work", Version: 0}, {ID: "z:work", Version: 1, Parent: "z:work"},
		{ID: "z:work", Version: 1, Parent: "x"}, {ID: "z:work", Version: 1, Name: "a\x1b[31m"},
		{ID: "z:work", Version: 1, Name: strings.Repeat("a", MaxText+1)}, {ID: "z:work", Version: 1, Name: "\xff"},
		{ID: "z:work", Version: 1, Levels: fcp.Levels{Integrity: 101}},
	} {
		if _, err := define(bad); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}

func TestManifestOpensForItsRecipientsOnly(t *testing.T) {
	o, keys := testOwner(t, 1), testZoneKeys(t, "z:work", 1)
	a, b, c := testNode(t, 1), testNode(t, 2), testNode(t, 3)
	m := testManifest(t, o, keys, a, b)
	for _, n := range []*NodeKeys{a, b} {
		got, err := m.OpenNode(n)
		must(t, got, err)
		equal(t, got.p().keys, keys.p().keys)
		equal(t, got.Zone(), keys.Zone())
	}
	got, err := m.OpenRecovery(testRecovery(t, o))
	must(t, got, err)
	equal(t, got.p().keys, keys.p().keys)
	_, err = m.OpenNode(c)
	wantCode(t, err, fcp.CodeWrongKey)
	_, err = m.OpenRecovery(testRecovery(t, testOwner(t, 2)))
	wantCode(t, err, fcp.CodeWrongKey)
	equal(t, len(m.Recipients()), 3)
	equal(t, m.IDs(), keys.IDs())
	equal(t, m.Version(), 1)
	equal(t, m.Zone(), "z:work")
	equal(t, m.IssuedAt(), testNow)
	if _, ok := m.Prev(); ok {
		t.Error("version 1 has a previous key")
	}
}

func TestManifestRotation(t *testing.T) {
	o, old, next := testOwner(t, 1), testZoneKeys(t, "z:work", 1), testZoneKeys(t, "z:work", 2)
	b, err := SealManifest(testRand(3), testNow, o, next, ManifestSpec{Version: 2, Prev: old.IDs().Zone, Recovery: testRecovery(t, o).Public()})
	must(t, b, err)
	m, err := VerifyManifest(o.Public(), b)
	must(t, m, err)
	if prev, ok := m.Prev(); !ok || prev != old.IDs().Zone || m.IDs() == old.IDs() {
		t.Errorf("prev %s %v", prev, ok)
	}
	_, err = SealManifest(testRand(3), testNow, o, next, ManifestSpec{Recovery: testRecovery(t, o).Public()})
	wantCode(t, err, fcp.CodeMissingField)
	twice := testNode(t, 1).Public().Recipient()
	_, err = SealManifest(testRand(3), testNow, o, next, ManifestSpec{Version: 1, Recovery: testRecovery(t, o).Public(), Recipients: []Recipient{twice, twice}})
	wantCode(t, err, fcp.CodeMalformed)
}

// TestManifestBoxesCannotBeMoved lets the owner sign manifests whose boxes stand
// in the wrong place: the binding of each box must refuse, not the signature.
func TestManifestBoxesCannotBeMoved(t *testing.T) {
	o, keys := testOwner(t, 1), testZoneKeys(t, "z:work", 1)
	a, b := testNode(t, 1), testNode(t, 2)
	good := testManifest(t, o, keys, a, b).o
	other := testManifest(t, o, testZoneKeys(t, "z:work", 2), a, b).o
	at := func(m *manifestObject, n *NodeKeys) *wrappedEntry {
		for i := range m.Wrapped {
			if m.Wrapped[i].Recipient == n.Writer().String() {
				return &m.Wrapped[i]
			}
		}
		panic("no such recipient")
	}
	for name, change := range map[string]func(*manifestObject){
		"other recipient":  func(m *manifestObject) { at(m, a).ZoneKey = at(m, b).ZoneKey },
		"purposes swapped": func(m *manifestObject) { e := at(m, a); e.ZoneKey, e.BodyKey = e.BodyKey, e.ZoneKey },
		"other zone":       func(m *manifestObject) { m.Zone = "z:private" },
		"other time":       func(m *manifestObject) { m.IssuedAt++ },
		"other key":        func(m *manifestObject) { at(m, a).ZoneKey = at(&other, a).ZoneKey },
		"other key id":     func(m *manifestObject) { m.BodyKeyID[0] ^= 1 },
		"other enc": func(m *manifestObject) {
			b := &at(m, a).ZoneKey
			b.Enc = bytes.Clone(b.Enc)
			b.Enc[0] ^= 1
		},
		"zero enc": func(m *manifestObject) { at(m, a).ZoneKey.Enc = make([]byte, KeySize) },
	} {
		m := good
		m.Wrapped = append([]wrappedEntry(nil), good.Wrapped...)
		change(&m)
		raw, err := signObject(o, fcp.SchemaZoneKeyManifest, &m, &m.Signature)
		must(t, raw, err)
		v, err := VerifyManifest(o.Public(), raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := v.OpenNode(a); fcp.CodeOf(err) != fcp.CodeWrongKey && fcp.CodeOf(err) != fcp.CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestManifestShapesThatAreRefused(t *testing.T) {
	o := testOwner(t, 1)
	good := testManifest(t, o, testZoneKeys(t, "z:work", 1), testNode(t, 1)).o
	for name, change := range map[string]func(*manifestObject){
		"no recovery":                   func(m *manifestObject) { m.Wrapped = m.Wrapped[:1] },
		"no recipients":                 func(m *manifestObject) { m.Wrapped = nil },
		"unsorted":                      func(m *manifestObject) { m.Wrapped[0], m.Wrapped[1] = m.Wrapped[1], m.Wrapped[0] },
		"recipient twice":               func(m *manifestObject) { m.Wrapped[1] = m.Wrapped[0] },
		"odd recipient":                 func(m *manifestObject) { m.Wrapped[0].Recipient = "laptop" },
		"upper-case hex":                func(m *manifestObject) { m.Wrapped[0].Recipient = strings.ToUpper(m.Wrapped[0].Recipient) },
		"other kem":                     func(m *manifestObject) { m.Wrapped[0].BodyKey.KEM = 0x10 },
		"other kdf":                     func(m *manifestObject) { m.Wrapped[0].BodyKey.KDF = 2 },
		"export-only aead":              func(m *manifestObject) { m.Wrapped[0].BodyKey.AEAD = 0xffff },
		"long ciphertext":               func(m *manifestObject) { m.Wrapped[0].BodyKey.CT = make([]byte, 49) },
		"other algorithm":               func(m *manifestObject) { m.Algorithm = "none" },
		"version 0":                     func(m *manifestObject) { m.Version = 0 },
		"version 1 with a previous key": func(m *manifestObject) { m.PrevZoneKeyID = make([]byte, 8) },
		"version 2 without one":         func(m *manifestObject) { m.Version = 2 },
		"version 2 with a short one":    func(m *manifestObject) { m.Version, m.PrevZoneKeyID = 2, make([]byte, 7) },
		"bad zone":                      func(m *manifestObject) { m.Zone = "work" },
		"too many":                      func(m *manifestObject) { m.Wrapped = make([]wrappedEntry, MaxRecipients+1) },
	} {
		m := good
		m.Wrapped = append([]wrappedEntry(nil), good.Wrapped...)
		change(&m)
		raw, err := signObject(o, fcp.SchemaZoneKeyManifest, &m, &m.Signature)
		must(t, raw, err)
		if _, err := VerifyManifest(o.Public(), raw); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestRevocationSaysWhatItWasGiven(t *testing.T) {
	o := testOwner(t, 1)
	b, err := SignRevocation(testNow, o, testCut(41, 9), "lost")
	must(t, b, err)
	r, err := VerifyRevocation(o.Public(), b)
	must(t, r, err)
	equal(t, r.Cuts()[0], testCut(41, 9))
	equal(t, r.Zone(), fcp.ZoneWork)
	equal(t, r.Reason(), "lost")
	equal(t, r.IssuedAt(), testNow)
	local := testCut(1, 1)
	local.Feed.Plane = fcp.PlaneLocal
	noZone := testCut(1, 1)
	noZone.Feed.Zone = "work"
	for name, c := range map[string]struct {
		cut    Cut
		reason string
	}{
		"local plane": {local, ""}, "bad zone": {noZone, ""}, "0 with a hash": {testCut(0, 1), ""},
		"1 without a hash": {testCut(1, 0), ""}, "control characters": {testCut(1, 1), "a\nb"},
		"long reason": {testCut(1, 1), strings.Repeat("a", MaxText+1)},
	} {
		if _, err := SignRevocation(testNow, o, c.cut, c.reason); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	other := revocationObject{Format: 1, Zone: "z:work", Feed: &revocationFeed{Zone: "z:private", Plane: 1}, Seq: new(uint64), Hash: &fcp.Hash{}, Issuer: o.Public()}
	b, err = signObject(o, fcp.SchemaRevocation, &other, &other.Signature)
	must(t, b, err)
	_, err = VerifyRevocation(o.Public(), b)
	wantCode(t, err, fcp.CodeZone)
}

func revocationOf(c Cut) *Revocation {
	feed := feedObject(c.Feed)
	return &Revocation{UnverifiedRevocation: UnverifiedRevocation{o: revocationObject{Zone: c.Feed.Zone, Seq: &c.Seq, Hash: &c.Hash, Feed: &feed}}}
}

func TestLowestCutWins(t *testing.T) {
	var c Cuts
	f := testFeed(1)
	if c.Void(f, 1) || c.Touched(f) {
		t.Error("an empty set cuts")
	}
	for _, step := range []struct {
		seq     uint64
		hash    byte
		changed bool
		void    uint64 // the first void number
	}{{10, 1, true, 11}, {20, 1, false, 11}, {10, 1, false, 11}, {10, 2, true, 10}, {10, 1, false, 10}, {7, 1, true, 8}, {10, 3, false, 8}, {0, 0, true, 1}} {
		changed := c.Add(revocationOf(testCut(step.seq, step.hash)))
		if (len(changed) == 1 && changed[0] == f) != step.changed || !c.Void(f, step.void) || step.void > 1 && c.Void(f, step.void-1) {
			t.Errorf("%+v: changed %v", step, changed)
		}
	}
	if c.Void(testFeed(2), 99) || c.Touched(testFeed(2)) || !c.Touched(f) {
		t.Error("a cut reaches another feed")
	}
	if cut, forked, ok := c.Lowest(f); !ok || forked || cut.Seq != 0 {
		t.Errorf("lowest: %+v", cut)
	}
}

func TestCutsDoNotDependOnOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var revs []*Revocation
		for range 1 + r.IntN(12) {
			cut := testCut(uint64(1+r.IntN(4)), byte(1+r.IntN(3)))
			cut.Feed.Writer[0] = byte(r.IntN(2))
			revs = append(revs, revocationOf(cut))
		}
		var a, b Cuts
		for _, x := range revs {
			a.Add(x)
		}
		twice := append(append([]*Revocation(nil), revs...), revs...)
		r.Shuffle(len(twice), func(i, j int) { twice[i], twice[j] = twice[j], twice[i] })
		for _, x := range twice {
			b.Add(x)
		}
		for w := range byte(2) {
			f := testFeed(w)
			ca, fa, oa := a.Lowest(f)
			cb, fb, ob := b.Lowest(f)
			if ca != cb || fa != fb || oa != ob {
				t.Fatalf("order matters: %+v %v / %+v %v", ca, fa, cb, fb)
			}
			for seq := range uint64(6) {
				void := false
				for _, x := range revs {
					for _, y := range revs {
						cx, cy := x.Cuts()[0], y.Cuts()[0]
						void = void || cx.Feed == f && (seq > cx.Seq || seq == cx.Seq && cy.Feed == f && cy.Seq == cx.Seq && cy.Hash != cx.Hash)
					}
				}
				if a.Void(f, seq) != void || b.Void(f, seq) != void {
					t.Fatalf("void of %d: %v, want %v", seq, a.Void(f, seq), void)
				}
			}
		}
	}
}
