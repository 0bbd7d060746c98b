package respond

import (
	"fcp"
	"fcp/authority"
)

var sealedOps = []Operation{
	{Name: "owner.key", Input: "32 bytes of entropy", Output: "the owner's signing key and recovery recipient", run: func(in []byte, _ *params) ([]byte, error) {
		k, err := authority.OwnerKeyFromEntropy(in)
		if err != nil {
			return nil, err
		}
		r, err := k.Recovery()
		if err != nil {
			return nil, err
		}
		owner, recovery := k.Public(), r.Public()
		return append(owner[:], recovery[:]...), nil
	}},
	{Name: "manifest.open", Input: "a zone key manifest", Params: manifestParams,
		Output: "zone key id, object-id key id and body key id of the opened keys", run: func(in []byte, p *params) ([]byte, error) {
			k, err := openKeys(in, p)
			if err != nil {
				return nil, err
			}
			ids := k.IDs()
			return append(append(ids.Zone[:], ids.ObjectID[:]...), ids.Body[:]...), nil
		}},
	{Name: "body.open", Input: "a sealed body", Params: append([]Param{{"manifest", "zone key manifest, hex"}, {"object", "object id, hex"}, {"salt", "16 bytes, hex"}}, manifestParams...),
		Output: "the plaintext", run: func(in []byte, p *params) ([]byte, error) {
			k, err := openKeys(p.bytes("manifest", -1), p)
			if err != nil {
				return nil, err
			}
			return k.OpenBody(nil, fcp.ObjectID(p.hash("object")), authority.Salt(p.bytes("salt", authority.SaltSize)), in)
		}},
	{Name: "segment.open", Input: "the frames of a segment, one behind the other", Params: append([]Param{{"manifest", "zone key manifest, hex"},
		{"wrapped", "wrapped segment key, hex"}, {"address", "address that key and frames are bound to, hex"}, {"frames", "plaintext length of each frame, joined by commas"}}, manifestParams...),
		Output: "the plaintext", run: openSegment},
}

var manifestParams = []Param{{"owner", "owner key, hex"}, {"node", "node secret, 96 bytes hex; empty: the recovery key opens"}, {"entropy", "the owner's entropy, hex; empty: the node opens"}}

func openKeys(manifest []byte, p *params) (*authority.ZoneKeys, error) {
	m, err := authority.VerifyManifest(p.key("owner"), manifest)
	if err != nil {
		return nil, err
	}
	if p.text("node") != "" {
		n, err := authority.NodeKeysFromSecret(p.bytes("node", -1))
		if err != nil {
			return nil, err
		}
		return m.OpenNode(n)
	}
	o, err := authority.OwnerKeyFromEntropy(p.bytes("entropy", -1))
	if err != nil {
		return nil, err
	}
	r, err := o.Recovery()
	if err != nil {
		return nil, err
	}
	return m.OpenRecovery(r)
}

func openSegment(in []byte, p *params) ([]byte, error) {
	k, err := openKeys(p.bytes("manifest", -1), p)
	if err != nil {
		return nil, err
	}
	address := p.bytes("address", -1)
	key, err := k.UnwrapSegmentKey(p.bytes("wrapped", authority.WrappedKeySize), address)
	if err != nil {
		return nil, err
	}
	cipher, err := key.Cipher(address)
	if err != nil {
		return nil, err
	}
	var out []byte
	lengths := p.list("frames")
	for i, text := range lengths {
		x := &params{values: map[string]string{"frames": text}}
		n := x.small("frames") + authority.TagSize
		if x.err != nil || n > len(in) {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "frame %d", i)
		}
		if out, err = cipher.OpenFrame(out, in[:n], uint32(i), i == len(lengths)-1); err != nil {
			return nil, err
		}
		in = in[n:]
	}
	if len(in) > 0 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "%d bytes behind the last frame", len(in))
	}
	return out, nil
}
