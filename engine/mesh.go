package engine

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// This file and the other mesh_*.go are what a node of a mesh needs of its store
// beyond what a person does: who belongs, what this node signs, symbols held for
// others, and bodies that come from elsewhere.

// Signer signs with the node's signing key. Sign only what begins with a schema
// hash or a purpose string.
func (e *Engine) Signer() log.Signer { return signer{e.node} }

// Member is a node that the owner enrolled.
type Member struct {
	Writer   fcp.WriterID
	Keys     authority.NodePublic
	Name     string
	Tags     []string  // what the owner says it is, strictly ascending
	Enrolled time.Time // for the first time, to the second
	Revoked  bool      // a feed of it is cut, or the device or its attestation is revoked
	Proof    []byte    // the newest enrollment as the owner signed it
}

// VerifyMember decodes an enrollment and checks that owner signed it.
func VerifyMember(owner authority.OwnerPublic, proof []byte) (Member, error) {
	d, err := authority.VerifyDevice(owner, proof)
	if err != nil {
		return Member{}, err
	}
	return memberOf(d, bytes.Clone(proof)), nil
}

func memberOf(d *authority.Device, proof []byte) Member {
	return Member{Writer: d.Writer(), Keys: d.Node(), Name: d.Name(), Tags: d.Tags(), Enrolled: d.EnrolledAt(), Proof: proof}
}

// enrollment is authority.VerifyDevice, remembered. The caller leaves body to it.
func (e *Engine) enrollment(body []byte) (*authority.Device, error) {
	if d, ok := e.mesh.enrolled.get(body); ok {
		return d, nil
	}
	d, err := authority.VerifyDevice(e.genesis.Owner, body)
	if err == nil {
		e.mesh.enrolled.put(body, d)
	}
	return d, err
}

// Members returns every enrolled node, in the order (time of its first enrollment,
// writer), revoked ones too: a member keeps its place in that order for good. One that
// was enrolled again is what its newest enrollment says.
func (e *Engine) Members() ([]Member, error) {
	revoked, err := e.revokedWriters()
	if err != nil {
		return nil, err
	}
	var out []Member
	var newest *authority.Device // of the member that is last in out
	err = e.records(fcp.ZoneOwner, projDevices, func(body []byte) error {
		d, err := e.enrollment(body)
		if err != nil {
			return err
		}
		m := memberOf(d, body)
		m.Revoked = revoked[m.Writer]
		if n := len(out); n > 0 && out[n-1].Writer == m.Writer { // records come by writer
			first := out[n-1].Enrolled
			if first.After(m.Enrolled) {
				first = m.Enrolled
			}
			if newerEnrollment(d, newest) {
				out[n-1], newest = m, d
			}
			out[n-1].Enrolled = first
			return nil
		}
		out, newest = append(out, m), d
		return nil
	})
	slices.SortFunc(out, func(a, b Member) int {
		return cmp.Or(a.Enrolled.Compare(b.Enrolled), bytes.Compare(a.Writer[:], b.Writer[:]))
	})
	return out, err
}
