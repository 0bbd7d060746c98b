package respond

import (
	"fcp"
	"fcp/authority"
	"fcp/authority/crdt"
	"fcp/authority/frost"
)

var sharedOps = []Operation{
	{Name: "lease.verify", Input: "a lease", Params: []Param{{"zone", "zone id"}, {"members", "signing keys of the checkpoint's members, hex, joined by commas"},
		{"faults", "number"}, {"checkpoint", "its ref, hex"}, {"seq", "its number"}}, Output: "the lease's ref", run: verifyLease},
	{Name: "lease.coordinator", Input: "the subject: 32 bytes", Params: []Param{{"zone", "zone id"}, {"members", "signing keys, hex, joined by commas"}},
		Output: "writer ids of the members in the order in which they coordinate", run: func(in []byte, p *params) ([]byte, error) {
			if len(in) != fcp.HashSize {
				return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a subject of %d bytes", len(in))
			}
			var out []byte
			for _, w := range authority.LeaseCoordinators(p.zone("zone"), fcp.ObjectID(in), members(p)) {
				out = append(out, w[:]...)
			}
			return out, nil
		}},
	{Name: "crdt.join", Input: "nothing", Params: []Param{{"kind", "g_counter, pn_counter, lww_map or or_set"}, {"states", "deltas or states, hex, joined by commas"}},
		Output: "the joined state", run: func(_ []byte, p *params) ([]byte, error) {
			kind := crdt.Kind(p.text("kind"))
			whole, err := crdt.New(kind)
			if err != nil {
				return nil, err
			}
			for _, text := range p.list("states") {
				s, err := crdt.Decode(kind, unhex(p, "states", text))
				if err != nil {
					return nil, err
				}
				if err := whole.Join(s); err != nil {
					return nil, err
				}
			}
			return whole.Encode()
		}},
	{Name: "secret.rebuild", Input: "a secret object", Params: []Param{{"owner", "owner key, hex"}, {"nodes", "node secrets of devices, hex, joined by commas"}},
		Output: "the value", run: rebuildSecret},
	{Name: "frost.aggregate", Input: "the message", Params: []Param{{"group", "hex"}, {"commitments", "of the signers, hex, joined by commas"},
		{"shares", "signature shares, hex, joined by commas"}}, Output: "the Ed25519 signature", run: aggregate},
}

// unhex reads one element of a list.
func unhex(p *params, name, text string) []byte {
	x := &params{values: map[string]string{name: text}}
	b := x.bytes(name, -1)
	if x.err != nil {
		p.bad(name, x.err)
	}
	return b
}

// members reads signing keys.
func members(p *params) (out []authority.Member) {
	for _, text := range p.list("members") {
		b := unhex(p, "members", text)
		if len(b) != 32 {
			p.bad("members", fcp.Errorf(fcp.CodeInvalidArgument, "a key of %d bytes", len(b)))
			return nil
		}
		out = append(out, authority.Member{Writer: fcp.WriterOf(b), Key: authority.SigningPublic(b)})
	}
	authority.SortMembers(out)
	return out
}

func verifyLease(in []byte, p *params) ([]byte, error) {
	l, err := authority.DecodeLease(in)
	if err != nil {
		return nil, err
	}
	e := authority.Electorate{Zone: p.zone("zone"), Checkpoint: authority.CheckpointRef{ID: p.hash("checkpoint"), Seq: p.number("seq")},
		Members: members(p), MaxFaults: p.small("faults")}
	if p.err != nil {
		return nil, p.err
	}
	if _, err := e.Verify(l, nil); err != nil {
		return nil, err
	}
	ref := l.Ref()
	return ref[:], nil
}

func rebuildSecret(in []byte, p *params) ([]byte, error) {
	u, err := authority.OpenSecret(in)
	if err != nil {
		return nil, err
	}
	s, err := u.Authorize(&authority.Authorities{Owner: p.key("owner")})
	if err != nil {
		return nil, err
	}
	var shares []*authority.SecretShare
	for _, text := range p.list("nodes") {
		n, err := authority.NodeKeysFromSecret(unhex(p, "nodes", text))
		if err != nil {
			return nil, err
		}
		share, err := s.OpenShare(n)
		if err != nil {
			return nil, err
		}
		shares = append(shares, share)
	}
	var out []byte
	err = s.Rebuild(shares, func(value []byte) error {
		out = append(out, value...)
		return nil
	})
	return out, err
}

func aggregate(in []byte, p *params) ([]byte, error) {
	g, err := frost.DecodeGroup(p.bytes("group", -1))
	if err != nil {
		return nil, err
	}
	var commitments []frost.Commitment
	for _, text := range p.list("commitments") {
		c, err := frost.DecodeCommitment(unhex(p, "commitments", text))
		if err != nil {
			return nil, err
		}
		commitments = append(commitments, c)
	}
	var shares []frost.SignatureShare
	for _, text := range p.list("shares") {
		s, err := frost.DecodeSignatureShare(unhex(p, "shares", text))
		if err != nil {
			return nil, err
		}
		shares = append(shares, s)
	}
	sig, err := frost.Aggregate(g, in, commitments, shares)
	return sig[:], err
}

func verifyLeaseRequest(in []byte, key [32]byte, _ *params) (*fcp.Hash, error) {
	_, err := authority.VerifyLeaseRequest(func(w fcp.WriterID) (authority.SigningPublic, bool) {
		return key, w == fcp.WriterOf(key[:])
	}, in)
	return nil, err
}
