package api

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// The use of a shared secret over the socket: the daemon decides, puts it on record and
// relays between the devices that hold shares and the client, which is where the value is
// wanted. What crosses the socket is sealed to the device's node key, which the client
// reads itself; no share is opened in the daemon, and the value is in the client alone.
//
//	client  request, [proof: token or signature], verdict for each share
//	server  version, [access or prove], share ..., row, end

// secretCall asks for the shares of a secret.
type secretCall struct {
	Zone    fcp.ZoneID
	Name    string
	Purpose string
	Token   []byte // a capability token; nil: the client signs as the owner
}

// secretVersion is the version of the secret that is in force, as it was signed, and what
// its signer's right follows from.
type secretVersion struct {
	Body        []byte
	Delegations [][]byte
}

// secretUsed is engine.SecretUsed on its way.
type secretUsed struct {
	Request fcp.ObjectID
	Devices []fcp.WriterID
	Refused []shareRefused
}

type shareRefused struct {
	Device fcp.WriterID
	Why    failure
}

// secret gathers shares for the client.
func (c *callState) secret() error {
	q, err := asked[secretCall](c)
	if err != nil {
		return err
	}
	u := engine.SecretUse{Zone: q.Zone, Name: q.Name, Purpose: q.Purpose, Sources: c.node}
	told := false
	tell := func(s *authority.Secret) error {
		if told {
			return nil
		}
		told = true
		body, err := s.Encode()
		if err != nil {
			return err
		}
		delegations, err := c.engine.SecretDelegations()
		if err != nil {
			return err
		}
		return c.send(frameVersion, &secretVersion{body, delegations})
	}
	if q.Token != nil {
		chain, err := authority.ParseChain(q.Token)
		if err != nil {
			return err
		}
		u.Caller = c.caller(chain)
	} else {
		u.Sign = func(s *authority.Secret, spec authority.SecretAccessSpec) (token []byte, err error) {
			if err = tell(s); err == nil {
				err = c.send(frameAccess, &spec)
			}
			if err != nil {
				return nil, err
			}
			return token, c.expect(frameProof, &token)
		}
	}
	ctx, stop := context.WithCancel(c.ctx)
	defer stop()
	used, err := c.engine.GatherShares(ctx, u, func(s *authority.Secret, x engine.SealedShare) error {
		err := tell(s)
		if err == nil {
			err = c.send(frameShare, &x)
		}
		var verdict failure
		if err == nil {
			err = c.expect(frameVerdict, &verdict)
		}
		if err != nil {
			stop() // the client is gone: nobody is asked any more
			return err
		}
		if verdict.Code != 0 {
			return verdict.err()
		}
		return nil
	})
	if err != nil {
		return err
	}
	row := secretUsed{Request: used.Request, Devices: used.Devices}
	for _, r := range used.Refused {
		row.Refused = append(row.Refused, shareRefused{r.Device, failureOf(r.Err)})
	}
	return c.send(frameRow, &row)
}

// GatherShares has the daemon gather the shares of a secret for a use by u.Caller or by
// u.Sign, and opens them here with the device's node keys. The caller wipes what it
// returns. Errors are those of engine.Engine.GatherShares.
func (r *Remote) GatherShares(ctx context.Context, u engine.SecretUse, node *authority.NodeKeys) (*engine.GatheredShares, engine.SecretUsed, error) {
	if u.Purpose == "" {
		u.Purpose = "use"
	}
	g := &gathering{remote: r, u: &u, node: node, out: new(engine.GatheredShares)}
	q := &secretCall{Zone: u.Zone, Name: u.Name, Purpose: u.Purpose}
	if u.Caller != nil {
		q.Token = u.Caller.Token.Bytes()
	}
	x, err := r.client.begin(ctx, "secret", q, nil)
	if err != nil {
		return g.out, g.used, err
	}
	defer x.close()
	for err == nil {
		var kind frameKind
		var b []byte
		if kind, b, err = x.next(); err == nil {
			err = g.take(x, kind, b)
		}
	}
	if !errors.Is(err, errEnded) {
		g.out.Wipe()
		return g.out, g.used, err
	}
	r.ended(x)
	return g.out, g.used, nil
}

// gathering is the client's side of a call.
type gathering struct {
	remote  *Remote
	u       *engine.SecretUse
	node    *authority.NodeKeys
	version *authority.Secret
	out     *engine.GatheredShares
	used    engine.SecretUsed
}

func (g *gathering) take(x *exchange, kind frameKind, b []byte) error {
	switch {
	case kind == frameVersion && g.version == nil:
		return g.takeVersion(b)
	case kind == frameProve && g.u.Caller != nil:
		return answerProve(x, g.u.Caller, b)
	case kind == frameAccess && g.u.Sign != nil && g.version != nil:
		return g.sign(x, b)
	case kind == frameShare && g.version != nil:
		var share engine.SealedShare
		if err := decodeFrame(b, &share); err != nil {
			return err
		}
		var verdict failure
		if err := g.out.Take(g.node, g.version, share); err != nil {
			verdict = failureOf(err)
		}
		return x.send(frameVerdict, &verdict)
	case kind == frameRow && g.version != nil:
		var row secretUsed
		if err := decodeFrame(b, &row); err != nil {
			return err
		}
		g.used = engine.SecretUsed{State: engine.ViewSecret(g.version), Request: row.Request, Devices: row.Devices}
		for _, x := range row.Refused {
			g.used.Refused = append(g.used.Refused, engine.Refused{Device: x.Device, Err: x.Why.err()})
		}
		return nil
	}
	return fcp.Errorf(fcp.CodeMalformed, "a frame %q within a use of a secret", byte(kind))
}

// takeVersion checks that the secret is the one that was asked for and who signed it.
func (g *gathering) takeVersion(b []byte) error {
	var v secretVersion
	if err := decodeFrame(b, &v); err != nil {
		return err
	}
	s, err := authority.OpenSecret(v.Body)
	if err != nil {
		return err
	}
	authorities := authority.Authorities{Owner: g.remote.hello.Owner}
	for _, b := range v.Delegations {
		d, err := authority.VerifyDelegation(authorities.Owner, b)
		if err != nil {
			return err
		}
		authorities.Add(d)
	}
	if id := s.ID(); s.Name() != g.u.Name && hex.EncodeToString(id[:]) != g.u.Name || g.u.Zone != "" && s.Zone() != g.u.Zone {
		return fcp.Errorf(fcp.CodeInternal, "the daemon answers with another secret than %s", g.u.Name)
	}
	g.version, err = s.Authorize(&authorities)
	return err
}

// sign signs the access of this device to this secret, and nothing else.
func (g *gathering) sign(x *exchange, b []byte) error {
	var spec authority.SecretAccessSpec
	if err := decodeFrame(b, &spec); err != nil {
		return err
	}
	if spec.Secret != g.version.ID() || spec.Zone != g.version.Zone() || spec.Holder != g.node.Writer() || spec.Purpose != g.u.Purpose ||
		spec.Credential != (authority.CredentialID{}) || spec.Expires.Sub(spec.NotBefore) > maxAccess {
		return fcp.Errorf(fcp.CodeInternal, "the daemon wants another access signed than was asked for")
	}
	token, err := g.u.Sign(g.version, spec)
	if err != nil {
		return err
	}
	return x.send(frameProof, token)
}

// maxAccess is how long an access may be valid that the client signs.
const maxAccess = 5 * time.Minute
