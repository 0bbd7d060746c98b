package vectors

import (
	"fmt"
	"slices"
	"strings"

	"fcp"
	"fcp/authority/frost"
	"fcp/conformance/internal/catalog"
)

// shared makes the vectors of what needs several parties.
func (m *maker) shared() {
	node, second := m.c.Node.Public().Signing, m.c.Second.Public().Signing
	keys := hexed(node[:]) + "," + hexed(second[:])
	signed, proposed := m.c.Find("lease").Bytes, m.c.Find("lease-proposed").Bytes
	lease := func(name, what string, b []byte, code fcp.Code, members, seq string) {
		m.cbor("shared", name, what, "lease.verify", b, code, "zone", "z:work", "members", members, "faults", "0", "checkpoint", fcp.Hash{12}.String(), "seq", seq)
	}
	lease("lease", "a lease signed by both members", signed, 0, keys, "2")
	lease("lease-unsigned", "a lease that nobody signed", proposed, fcp.CodeDenied, keys, "2")
	lease("lease-stranger", "a signature of somebody who is no member", signed, fcp.CodeDenied, hexed(node[:]), "2")
	lease("lease-checkpoint", "the fence of another checkpoint", signed, fcp.CodeDenied, keys, "3")
	lease("lease-changed", "another request under the signatures", flip(signed, find(signed, "request")+12), fcp.CodeSignature, keys, "2")
	subject := catalog.Bytes(120, 32)
	m.add("shared", "coordinator", "who coordinates first, by rendezvous hash", "lease.coordinator", subject, 0, "zone", "z:work", "members", keys)
	m.add("shared", "coordinator-subject", "a subject that is too short", "lease.coordinator", subject[:31], fcp.CodeInvalidArgument, "zone", "z:work", "members", keys)

	for kind, name := range map[string]string{"g_counter": "crdt-g-counter", "pn_counter": "crdt-pn-counter", "lww_map": "crdt-lww-map", "or_set": "crdt-or-set"} {
		state := hexed(m.c.Find(name).Bytes)
		m.add("shared", name, "a state joined with itself is itself", "crdt.join", nil, 0, "kind", kind, "states", state+","+state)
	}
	m.add("shared", "crdt-kind", "a state of another kind", "crdt.join", nil, fcp.CodeMalformed, "kind", "g_counter", "states", hexed(m.c.Find("crdt-or-set").Bytes))
	m.secret()
	m.frost()
}

func (m *maker) secret() {
	owner := m.c.Owner.Public()
	nodes := []string{hexed(m.c.Node.Secret()), hexed(m.c.Second.Secret())}
	object := m.c.Find("secret").Bytes
	add := func(name, what string, b []byte, code fcp.Code, nodes ...string) {
		m.cbor("shared", name, what, "secret.rebuild", b, code, "owner", hexed(owner[:]), "nodes", strings.Join(nodes, ","))
	}
	add("secret", "two of two devices rebuild a secret", object, 0, nodes...)
	add("secret-few", "one of two does not", object, fcp.CodeNotEnough, nodes[0])
	add("secret-removed", "a removed secret has no shares", m.c.Find("secret-removed").Bytes, fcp.CodeNotFound, nodes...)
	add("secret-changed", "a changed box breaks the signature", flip(object, find(object, "enc")+20), fcp.CodeSignature, nodes...)
}

// frost signs a message with three of three shares of a key.
func (m *maker) frost() {
	message := []byte("what the owner signs")
	group, keys, err := frost.Deal(catalog.Random(121), catalog.Bytes(122, 32), 2, 3)
	if err != nil {
		panic(err) // repeatable
	}
	var nonces []*frost.Nonces
	var commitments []frost.Commitment
	for i, k := range keys[:2] {
		n, c, err := frost.Commit(catalog.Random(byte(123+i)), k)
		if err != nil {
			panic(err)
		}
		nonces, commitments = append(nonces, n), append(commitments, c)
	}
	var said, shares []string
	for i, k := range keys[:2] {
		s, err := frost.Sign(group, k, nonces[i], message, commitments)
		if err != nil {
			panic(err)
		}
		said, shares = append(said, hexed(commitments[i].Encode())), append(shares, hexed(s.Encode()))
	}
	add := func(name, what string, message []byte, code fcp.Code, shares []string) {
		m.add("shared", name, what, "frost.aggregate", message, code, "group", hexed(group.Encode()), "commitments", strings.Join(said, ","), "shares", strings.Join(shares, ","))
	}
	add("frost", "two of three signers make a plain Ed25519 signature", message, 0, shares)
	add("frost-message", "shares of another message", []byte("something else"), fcp.CodeSignature, shares)
	wrong := slices.Clone(shares)
	wrong[1] = fmt.Sprintf("%s%02x", wrong[1][:len(wrong[1])-2], 0)
	add("frost-share", "a wrong share", message, fcp.CodeSignature, wrong)
}
