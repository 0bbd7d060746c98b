package engine

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"fcp"
	"fcp/authority"
)

// SealedShare is the share of one device on its way to where a secret is used, sealed
// to this device.
type SealedShare struct {
	Device fcp.WriterID
	Answer []byte // of its AnswerShareAsk; of this device's own share nil, which is in the secret's version
}

// GatherShares is the part of UseSecret that opens nothing: it decides, puts the use on
// record, and gathers Threshold shares. take is called with each, one after the other,
// and says whether it is a good one; for one that is not another device is asked. So the
// value can be rebuilt in another process of this device. Errors: a *Refusal of the
// decision, CodeUnauthorized without Caller, By and Sign, CodeNotFound, CodeNotEnough
// with each device's reason.
func (e *Engine) GatherShares(ctx context.Context, u SecretUse, take func(*authority.Secret, SealedShare) error) (out SecretUsed, err error) {
	q := PutSecretRequest{Zone: u.Zone}
	f, err := e.secretFacts(&q)
	if err != nil {
		return out, err
	}
	s, err := e.findSecret(f, u.Name, false)
	if err != nil {
		return out, err
	}
	out.State = ViewSecret(s)
	ask, err := e.permitUse(ctx, f, s, &u)
	if err != nil {
		return out, err
	}
	out.Request = ask.Request
	return out, e.gather(ctx, s, ask, u.Sources, take, &out)
}

// SecretDelegations returns the owner's delegations: with them, another process of this
// device judges who signed a secret (authority.VerifyDelegation).
func (e *Engine) SecretDelegations() (out [][]byte, err error) {
	err = e.records(fcp.ZoneOwner, projDelegations, func(b []byte) error {
		out = append(out, bytes.Clone(b))
		return nil
	})
	return out, err
}

// gather takes this device's share if it holds one, and as many of others as the
// threshold needs, asking another device for each that fails.
func (e *Engine) gather(ctx context.Context, s *authority.Secret, ask *authority.ShareAsk, sources ShareSource, take func(*authority.Secret, SealedShare) error, out *SecretUsed) error {
	var others []fcp.WriterID
	for _, w := range s.Holders() {
		if w != e.node.Writer() {
			others = append(others, w)
		} else if err := take(s, SealedShare{Device: w}); err != nil {
			out.Refused = append(out.Refused, Refused{w, err})
		} else {
			out.Devices = append(out.Devices, w)
		}
	}
	if sources == nil || len(out.Devices) >= s.Threshold() {
		return e.enough(s, out, len(others))
	}
	message, err := ask.Encode()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		SealedShare
		err error
	}
	answers := make(chan answer, len(others))
	running := 0
	for {
		for ; running < s.Threshold()-len(out.Devices) && len(others) > 0; running++ {
			w := others[0]
			others = others[1:]
			go func() {
				b, err := sources.AskShare(ctx, w, message)
				answers <- answer{SealedShare{w, b}, err}
			}()
		}
		if running == 0 {
			return e.enough(s, out, 0)
		}
		select {
		case <-ctx.Done():
			return interrupted(ctx)
		case a := <-answers:
			running--
			if a.err == nil {
				a.err = take(s, a.SealedShare)
			}
			if a.err == nil {
				out.Devices = append(out.Devices, a.Device)
				continue
			}
			out.Refused = append(out.Refused, Refused{a.Device, a.err})
			if err := e.noteWrongShare(ctx, s, a.Device, a.err); err != nil {
				return err
			}
		}
	}
}

// noteWrongShare puts a share that does not fit its commitment on record: the device
// is broken or lies.
func (e *Engine) noteWrongShare(ctx context.Context, s *authority.Secret, device fcp.WriterID, err error) error {
	if fcp.CodeOf(err) != fcp.CodeCorrupt {
		return nil
	}
	return e.Audit(ctx, authority.AuditEvent{Zone: s.Zone(), Type: authority.AuditSecurity, Actor: "device:" + device.String()[:16], Operation: OperationUse, Result: s.Ref()})
}

func (e *Engine) enough(s *authority.Secret, out *SecretUsed, unasked int) error {
	if len(out.Devices) >= s.Threshold() {
		return nil
	}
	why := e.refusals(out.Refused)
	if unasked > 0 {
		why += fmt.Sprintf("; %d other devices cannot be reached from here", unasked)
	}
	return fcp.Errorf(fcp.CodeNotEnough, "%d of the %d shares that rebuild %s%s", len(out.Devices), s.Threshold(), s.Name(), why).
		WithNext("bring more of the devices that hold one into reach")
}

// refusals names devices and why each did not do what it was asked for: "; n2
// (0123456789abcdef): why".
func (e *Engine) refusals(list []Refused) string {
	var why strings.Builder
	members, err := e.Members()
	for _, r := range list {
		name := "device"
		if i := slices.IndexFunc(members, func(m Member) bool { return m.Writer == r.Device }); err == nil && i >= 0 {
			name = members[i].Name
		}
		fmt.Fprintf(&why, "; %s (%.16s): %v", name, r.Device, r.Err)
	}
	return why.String()
}

// GatheredShares are the shares of one version of a secret that a use took: what
// rebuilds it. The zero value has none. Not for concurrent use.
type GatheredShares struct {
	secret *authority.Secret
	shares []*authority.SecretShare
	sealed map[fcp.WriterID][]byte
}

// Take opens a share with this device's keys and keeps it. Errors are those of
// authority.Secret.OpenShare and Receive.
func (g *GatheredShares) Take(node *authority.NodeKeys, s *authority.Secret, x SealedShare) (err error) {
	var sh *authority.SecretShare
	if x.Device == node.Writer() {
		sh, err = s.OpenShare(node)
	} else {
		sh, err = s.Receive(node, x.Device, x.Answer)
	}
	if err != nil {
		return err
	}
	if g.sealed == nil {
		g.sealed = map[fcp.WriterID][]byte{}
	}
	g.secret, g.shares, g.sealed[x.Device] = s, append(g.shares, sh), x.Answer
	return nil
}

// Sealed returns what a device answered; nil: nothing good.
func (g *GatheredShares) Sealed(device fcp.WriterID) []byte { return g.sealed[device] }

// Use rebuilds the value in memory, calls use with it and wipes it when use returns; use
// must not keep it. Errors are those of authority.Secret.Rebuild and that of use.
func (g *GatheredShares) Use(use func(value []byte) error) error {
	if g.secret == nil {
		return fcp.Errorf(fcp.CodeNotEnough, "no share of the secret is here")
	}
	return g.secret.Rebuild(g.shares, use)
}

// Wipe overwrites the shares. What other devices answered stays, sealed.
func (g *GatheredShares) Wipe() {
	for _, sh := range g.shares {
		sh.Wipe()
	}
	g.shares = nil
}
