package authority

import (
	"io"
	"strings"
	"time"

	"fcp"
)

// ApplicationType says how a credential is put into a request.
type ApplicationType string

// The closed set of applications (spec/wire.md section 15).
const (
	ApplyBearer     ApplicationType = "http_authorization_bearer"
	ApplyBasic      ApplicationType = "http_authorization_basic"
	ApplyHeader     ApplicationType = "http_header"     // Name, optionally Prefix
	ApplyQuery      ApplicationType = "query_parameter" // Name
	ApplyClientCert ApplicationType = "tls_client_certificate"
	ApplySSH        ApplicationType = "ssh_key"
	ApplyDatabase   ApplicationType = "database_connection"
	ApplyWebSocket  ApplicationType = "web_socket_auth"
	ApplyGeneric    ApplicationType = "generic" // Config
)

// Application is how and under which name a credential is applied.
type Application struct {
	Type   ApplicationType   `cbor:"type"`
	Name   string            `cbor:"name,omitempty"`
	Prefix string            `cbor:"prefix,omitempty"`
	Config map[string]string `cbor:"config,omitempty"`
}

// CredentialObject describes how a secret is applied to outgoing requests, so that
// a connector never sees it (spec/wire.md section 15). It holds no secret.
type CredentialObject struct {
	Header      fcp.ObjectHeader `cbor:"header"`
	ID          CredentialID     `cbor:"credential_id"`
	Label       string           `cbor:"label,omitempty"`
	Secret      SecretID         `cbor:"secret_id"`
	Application Application      `cbor:"application"`
	HostAllow   []string         `cbor:"host_allow,omitempty"` // exact names or "*." and a suffix
	ExpiresAt   uint64           `cbor:"expires_at,omitempty"` // unix seconds
	Description string           `cbor:"description,omitempty"`
	Tags        []string         `cbor:"tags,omitempty"`
}

// Limits of a credential object.
const (
	maxCredentialEntries = 64
	maxHost              = 253 // RFC 1035 section 2.3.4
)

// EncodeCredential returns the object payload of a credential.
func EncodeCredential(c *CredentialObject) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(fcp.SchemaCredential, c)
}

// DecodeCredential decodes the payload of a credential object. That somebody may
// define credentials in the zone is shown by the event that carries it.
func DecodeCredential(b []byte) (*CredentialObject, error) {
	var c CredentialObject
	if err := openOperation(fcp.SchemaCredential, b, &c); err != nil {
		return nil, err
	}
	return &c, c.check()
}

func (c *CredentialObject) check() error {
	a := &c.Application
	named := a.Type == ApplyHeader || a.Type == ApplyQuery
	switch {
	case c.Header.Schema != fcp.SchemaCredential.ID():
		return fcp.Errorf(fcp.CodeSchema, "a credential with a header of %s", c.Header.Schema)
	case c.ID == CredentialID{} || c.Secret == SecretID{}:
		return fcp.Errorf(fcp.CodeMissingField, "credential without an id or a secret")
	case named != (a.Name != "") || a.Prefix != "" && a.Type != ApplyHeader || a.Config != nil && a.Type != ApplyGeneric:
		return fcp.Errorf(fcp.CodeMalformed, "credential applied as %.40q with fields of another kind", string(a.Type))
	case !printable(c.Label) || !printable(c.Description) || !printable(a.Name) || !printable(a.Prefix):
		return fcp.Errorf(fcp.CodeMalformed, "a text of a credential is not at most %d bytes of printable UTF-8", MaxText)
	case len(c.HostAllow) > maxCredentialEntries || len(c.Tags) > maxCredentialEntries || len(a.Config) > maxCredentialEntries:
		return fcp.Errorf(fcp.CodeTooLarge, "credential with more than %d entries of a kind", maxCredentialEntries)
	}
	switch a.Type {
	case ApplyBearer, ApplyBasic, ApplyHeader, ApplyQuery, ApplyClientCert, ApplySSH, ApplyDatabase, ApplyWebSocket, ApplyGeneric:
	default:
		return fcp.Errorf(fcp.CodeMalformed, "credential applied as %.40q", string(a.Type))
	}
	for _, h := range c.HostAllow {
		if !validHostPattern(h) {
			return fcp.Errorf(fcp.CodeMalformed, "host pattern of a credential")
		}
	}
	return nil
}

func validHostPattern(h string) bool {
	h = strings.TrimPrefix(h, "*.")
	return validToken(h, maxHost) && !strings.ContainsAny(h, "*/@") && h[0] != '.'
}

// AllowsHost reports whether the credential may be sent to a host, given without a
// port. Without a host list it may be sent to any: the connector's own network
// constraints are asked, too. "*.example.org" does not match example.org itself.
func (c *CredentialObject) AllowsHost(host string) bool {
	if len(c.HostAllow) == 0 {
		return true
	}
	host = strings.ToLower(host)
	for _, h := range c.HostAllow {
		h = strings.ToLower(h)
		if suffix, wild := strings.CutPrefix(h, "*"); wild && strings.HasSuffix(host, suffix) && len(host) > len(suffix) || h == host {
			return true
		}
	}
	return false
}

// Expired reports whether the credential may be applied no more.
func (c *CredentialObject) Expired(now time.Time) bool {
	return c.ExpiresAt != 0 && now.Unix() >= int64(c.ExpiresAt)
}

// SchemaSecretAccess is the schema of secret access tokens.
var SchemaSecretAccess = fcp.MustSchema("fcp.core:SecretAccessToken@1.0.0")

// MaxSecretAccess limits how long a secret access token is valid.
const MaxSecretAccess = 10 * time.Minute

// SecretAccessSpec says who may rebuild which secret, for what and until when.
type SecretAccessSpec struct {
	Zone       fcp.ZoneID
	Secret     SecretID
	Credential CredentialID // zero when the secret is not applied as a credential
	Holder     fcp.WriterID // the one node that may rebuild it
	Request    fcp.Hash     // Request.Hash of the only request it serves
	Purpose    string       // for the audit log, at most MaxText bytes of printable UTF-8
	NotBefore  time.Time
	Expires    time.Time // at most MaxSecretAccess later
}

// secretAccessObject is SecretAccessToken on the wire.
type secretAccessObject struct {
	Format     uint64        `cbor:"format"`
	ID         TokenID       `cbor:"token_id"`
	Zone       fcp.ZoneID    `cbor:"zone_id"`
	Secret     SecretID      `cbor:"secret_id"`
	Credential *CredentialID `cbor:"credential_id,omitempty"`
	Holder     fcp.WriterID  `cbor:"holder"`
	Request    fcp.Hash      `cbor:"request_hash"`
	Purpose    string        `cbor:"purpose"`
	ValidFrom  uint64        `cbor:"valid_from"` // unix seconds
	ValidUntil uint64        `cbor:"valid_until"`
	Issuer     OwnerPublic   `cbor:"issuer"` // the owner, or an admin with ActionGrant
	Signature  []byte        `cbor:"signature,omitempty"`
}

// SecretAccess is a verified secret access token, made by VerifySecretAccess.
type SecretAccess struct {
	ref  fcp.Hash
	id   TokenID
	key  OwnerPublic
	spec SecretAccessSpec
}

// Ref returns RefOf the token's bytes.
func (s *SecretAccess) Ref() fcp.Hash { return s.ref }

// ID returns the id under which the token is revoked.
func (s *SecretAccess) ID() TokenID { return s.id }

// Spec returns what the token permits.
func (s *SecretAccess) Spec() SecretAccessSpec { return s.spec }

// SignSecretAccess returns the signed token. rand gives its id.
func SignSecretAccess(rand io.Reader, by AdminKey, spec SecretAccessSpec) ([]byte, error) {
	o := secretAccessObject{
		Format: ObjectFormat, Zone: spec.Zone, Secret: spec.Secret, Holder: spec.Holder, Request: spec.Request, Purpose: spec.Purpose, Issuer: by.adminPublic(),
	}
	if spec.Credential != (CredentialID{}) {
		o.Credential = &spec.Credential
	}
	var err error
	if o.ValidFrom, err = unixSeconds(spec.NotBefore); err != nil {
		return nil, err
	}
	if o.ValidUntil, err = unixSeconds(spec.Expires); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(rand, o.ID[:]); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a token id")
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(by, SchemaSecretAccess, &o, &o.Signature)
}

// VerifySecretAccess decodes a secret access token and checks that the key it
// names signed exactly these bytes and may grant in the zone.
func VerifySecretAccess(a *Authorities, b []byte) (*SecretAccess, error) {
	var o secretAccessObject
	s, err := decodeSigned(SchemaSecretAccess, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if !o.Issuer.Verify(s.message, s.signature) {
		return nil, fcp.Errorf(fcp.CodeSignature, "secret access token by %s", fcp.KidOf(o.Issuer[:]))
	}
	if err := a.Permit(o.Issuer, ActionGrant, o.Zone, fromUnix(o.ValidFrom)); err != nil {
		return nil, err
	}
	spec := SecretAccessSpec{
		Zone: o.Zone, Secret: o.Secret, Holder: o.Holder, Request: o.Request, Purpose: o.Purpose,
		NotBefore: fromUnix(o.ValidFrom), Expires: fromUnix(o.ValidUntil),
	}
	if o.Credential != nil {
		spec.Credential = *o.Credential
	}
	return &SecretAccess{RefOf(b), o.ID, o.Issuer, spec}, nil
}

func (o *secretAccessObject) check() error {
	if err := checkCommon(SchemaSecretAccess, o.Format, max(o.ValidFrom, o.ValidUntil)); err != nil {
		return err
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "secret access in zone %.64q", string(o.Zone))
	case o.ID == TokenID{} || o.Secret == SecretID{} || o.Holder.IsZero() || o.Request.IsZero() || o.Purpose == "" ||
		o.Credential != nil && *o.Credential == CredentialID{}:
		return fcp.Errorf(fcp.CodeMissingField, "secret access token without id, secret, holder, request or purpose")
	case o.ValidFrom >= o.ValidUntil || o.ValidUntil-o.ValidFrom > uint64(MaxSecretAccess/time.Second):
		return fcp.Errorf(fcp.CodeInvalidArgument, "secret access token that is valid never or longer than %s", MaxSecretAccess)
	case !printable(o.Purpose):
		return fcp.Errorf(fcp.CodeInvalidArgument, "the purpose is not at most %d bytes of printable UTF-8", MaxText)
	}
	return nil
}

// Permits refuses, with its reason, a use by another node, for another request or
// secret, outside its time, or of a revoked token.
func (s *SecretAccess) Permits(node fcp.WriterID, request fcp.Hash, secret SecretID, now time.Time, revoked Revocations) error {
	switch {
	case s.spec.Holder != node:
		return refuse(ReasonHolder, "secret access of node %.16s", s.spec.Holder)
	case s.spec.Request != request:
		return refuse(ReasonProofOther, "secret access")
	case s.spec.Secret != secret:
		return refuse(ReasonCredential, "secret access to another secret")
	case now.Before(s.spec.NotBefore.Add(-TokenSkew)):
		return refuse(ReasonTokenEarly, "secret access")
	case !now.Before(s.spec.Expires.Add(TokenSkew)):
		return refuse(ReasonTokenExpired, "secret access")
	case revoked == nil:
		return refuse(ReasonRevokedToken, "nothing is known of revocations")
	}
	for _, ref := range []fcp.Hash{s.ref, s.id.Ref()} {
		if _, gone := revoked.Revoked(ref, RevokeToken); gone {
			return refuse(ReasonRevokedToken, "secret access")
		}
	}
	if _, gone := revoked.Revoked(fcp.Hash(s.key), RevokeIssuerKey); gone {
		return refuse(ReasonRevokedToken, "secret access")
	}
	return nil
}
