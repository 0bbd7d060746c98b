package engine

import (
	"encoding/hex"

	"fcp"
	"fcp/authority"
)

func forgettingKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	f, err := authority.OpenForgetting(ev.Content.Body)
	if err != nil || f.Zone() != ev.From.Feed.Zone {
		return nil
	}
	ref := f.Ref()
	return append(key, ref[:]...)
}

func forgettingRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	f, err := authority.OpenForgetting(body)
	if err != nil {
		return "", nil, err
	}
	var objects []string
	for _, id := range f.Objects() {
		objects = append(objects, hex.EncodeToString(id[:]))
	}
	issuer := f.Issuer()
	return f.Ref().String(), map[string]any{"objects": objects, "issuer": fcp.WriterOf(issuer[:]).String(), "issued": f.IssuedAt()}, nil
}
