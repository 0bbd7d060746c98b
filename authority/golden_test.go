package authority

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"fcp"
)

var update = flag.Bool("update", false, "write the golden files again: a change of any line is a change of format")

// TestGoldenBytes pins every byte format of the package: with one seed each value
// has one encoding for ever (docs/format.md "Authority").
func TestGoldenBytes(t *testing.T) {
	o, n, z := testOwner(t, 1), testNode(t, 1), testZoneKeys(t, "z:work", 1)
	key, err := NewSegmentKey(testRand(5))
	must(t, key, err)
	wrapped, err := z.WrapSegmentKey(testRand(6), key, []byte("address"))
	must(t, wrapped, err)
	c, err := key.Cipher([]byte("address"))
	must(t, c, err)
	frame := c.SealFrame(nil, []byte("segment frame"), 258, true)
	id := testGenesis(t).Facts.ID
	ids := z.IDs()
	pub, rec, np := o.Public(), testRecovery(t, o).Public(), n.Public()
	lines := map[string][]byte{
		"body: 'hello', object id 01 00.., salt 02 00..": z.SealBody(nil, fcp.ObjectID{1}, Salt{2}, []byte("hello")),
		"body: empty":               z.SealBody(nil, fcp.ObjectID{1}, Salt{2}, nil),
		"genesis id":                id[:],
		"key id: zone key":          ids.Zone[:],
		"key id: object-id key":     ids.ObjectID[:],
		"key id: body key":          ids.Body[:],
		"owner: public key":         pub[:],
		"owner: recovery recipient": rec[:],
		"node: signing key":         np.Signing[:],
		"node: encryption key":      np.Encryption[:],
		"node: issuance key":        np.Issuance[:],
		"segment key wrapped: nonce, key, tag; address 'address'": wrapped[:],
		"segment frame 258, last, address 'address'":              frame,
	}
	for name, s := range signedSamples(t) {
		lines["signed: "+name] = s.b
	}
	auditEvent, err := EncodeAuditEvent(testAuditEvent())
	lines["audit event"] = must(t, auditEvent, err)
	head, err := testHead(t, n, 9, "a").Encode()
	lines["audit head"] = must(t, head, err)
	lines["fork proof"] = testForkProof(t)
	world := newZoneWorld(t, 3, 0)
	checkpoint, err := world.sign(t, world.checkpoint(t, func(*ZoneCheckpointSpec) {}), 0, 1).SignOwner(world.owner).Encode()
	lines["zone checkpoint"] = must(t, checkpoint, err)
	hybrid, err := n.Hybrid()
	lines["node: hybrid key"] = must(t, hybrid, err)
	var names []string
	for name := range lines {
		names = append(names, name)
	}
	sort.Strings(names)
	var out strings.Builder
	for _, name := range names {
		fmt.Fprintf(&out, "%s\n\t%s\n", name, hex.EncodeToString(lines[name]))
	}
	const path = "testdata/golden.txt"
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	must(t, want, err)
	if out.String() != string(want) {
		t.Errorf("bytes changed; got\n%s", out.String())
	}
}
