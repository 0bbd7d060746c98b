package node

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"io"
	"math/big"
	"slices"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/gossip"
	"fcp/log"
	"fcp/node/placement"
)

// protocol is the application protocol of TLS (RFC 7301).
const protocol = "fcp/2"

// oidAttestation marks the certificate extension with an attestation. It is in the
// experimental arc of RFC 1155; nobody but our own verifier reads it.
var oidAttestation = asn1.ObjectIdentifier{1, 3, 6, 1, 3, 64512, 1}

// attestation says whose a TLS key is (docs/format.md "Transport certificate").
// Signed by the node's signing key: "FCP2-TLS-KEY-V1" || TLS key[32] || u64be until.
type attestation struct {
	Enrollment []byte `cbor:"enrollment"` // as the owner signed it
	Until      uint64 `cbor:"until"`      // unix seconds
	Signature  []byte `cbor:"signature"`
}

const maxAttestation = 8 << 10

func attestationMessage(key ed25519.PublicKey, until uint64) []byte {
	b := append([]byte("FCP2-TLS-KEY-V1"), key...)
	return binary.BigEndian.AppendUint64(b, until)
}

// makeCertificate makes a TLS key and the certificate that attests it.
func makeCertificate(rand io.Reader, now time.Time, signer log.Signer, enrollment []byte) (*tls.Certificate, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a TLS key")
	}
	key := ed25519.NewKeyFromSeed(seed)
	clear(seed)
	pub := key.Public().(ed25519.PublicKey)
	a := attestation{Enrollment: enrollment, Until: uint64(now.Add(attestationLife).Unix())}
	var err error
	if a.Signature, err = signer.Sign(attestationMessage(pub, a.Until)); err != nil {
		return nil, err
	}
	value, err := fcp.Marshal(&a)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:    big.NewInt(1),
		Subject:         pkix.Name{CommonName: "fcp"},
		NotBefore:       now.Add(-time.Hour),
		NotAfter:        now.Add(attestationLife),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: oidAttestation, Value: value}},
	}
	der, err := x509.CreateCertificate(rand, template, template, pub, key)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "make a certificate")
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// parseCertificate returns who a certificate says it is, proven by the owner's
// enrollment in it and the signature of the key enrolled.
func parseCertificate(der []byte, owner authority.OwnerPublic, now time.Time) (engine.Member, error) {
	bad := func(what string) (engine.Member, error) {
		return engine.Member{}, fcp.Errorf(fcp.CodeUnauthorized, "a peer's certificate: %s", what)
	}
	if len(der) > 2*maxAttestation {
		return bad("too large")
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return bad("does not decode")
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return bad("not an Ed25519 key")
	}
	var a attestation
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidAttestation) {
			continue
		}
		if len(e.Value) > maxAttestation {
			return bad("too large")
		}
		if err := fcp.Unmarshal(e.Value, &a); err != nil {
			return engine.Member{}, err
		}
	}
	if len(a.Enrollment) == 0 {
		return bad("no attestation")
	}
	m, err := engine.VerifyMember(owner, a.Enrollment)
	if err != nil {
		return engine.Member{}, err
	}
	if !m.Keys.Signing.Verify(attestationMessage(key, a.Until), a.Signature) {
		return engine.Member{}, fcp.Errorf(fcp.CodeSignature, "the attestation of a TLS key")
	}
	if until := time.Unix(int64(min(a.Until, 1<<38)), 0); now.After(until) || until.Sub(now) > attestationLife+time.Hour {
		return bad("its attestation is out of date")
	}
	return m, nil
}

// identity makes this node's certificates and judges those of peers.
type identity struct {
	engine *engine.Engine
	now    func() time.Time
	rand   io.Reader
	self   engine.Member

	mu      sync.Mutex
	members map[fcp.WriterID]engine.Member // guarded by mu
	order   []engine.Member                // those of the state, as they were enrolled; guarded by mu
	stripes []uint32                       // of order; guarded by mu
	revoked map[fcp.WriterID]bool          // also nodes whose enrollment is not here; guarded by mu
	cert    *tls.Certificate               // guarded by mu
	made    time.Time                      // of cert; guarded by mu
}

// certificate returns the present certificate, a new one each day.
func (i *identity) certificate() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.now()
	if i.cert != nil && now.Sub(i.made) < attestationUse {
		return i.cert, nil
	}
	c, err := makeCertificate(i.rand, now, i.engine.Signer(), i.self.Proof)
	if err == nil {
		i.cert, i.made = c, now
	}
	return c, err
}

// peer returns the member that a connection is with. The local record of a member
// wins over what the peer brought, so a revocation counts at once.
func (i *identity) peer(state *tls.ConnectionState) (engine.Member, error) {
	if len(state.PeerCertificates) != 1 || state.Version != tls.VersionTLS13 {
		return engine.Member{}, fcp.Errorf(fcp.CodeUnauthorized, "a peer without a certificate of its own")
	}
	m, err := parseCertificate(state.PeerCertificates[0].Raw, i.engine.Genesis().Owner, i.now())
	if err != nil {
		return engine.Member{}, err
	}
	if m.Writer == i.self.Writer {
		return engine.Member{}, fcp.Errorf(fcp.CodeConflict, "the peer has this node's own key")
	}
	if i.isRevoked(m.Writer) {
		return engine.Member{}, fcp.Errorf(fcp.CodeVoided, "node %.16s was revoked", m.Writer)
	}
	return m, nil
}

func (i *identity) isRevoked(w fcp.WriterID) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.revoked[w]
}

func (i *identity) member(w fcp.WriterID) (engine.Member, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	m, ok := i.members[w]
	return m, ok
}

// refresh reads the members from the state. One that proved itself before its
// enrollment arrived stays.
func (i *identity) refresh() error {
	list, err := i.engine.Members()
	if err != nil {
		return err
	}
	revoked, err := i.engine.RevokedNodes()
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	next := map[fcp.WriterID]engine.Member{}
	ids := make([]fcp.WriterID, len(list))
	for at, m := range list {
		next[m.Writer], ids[at] = m, m.Writer
	}
	if !slices.EqualFunc(list, i.order, func(a, b engine.Member) bool { return a.Writer == b.Writer }) {
		i.stripes = placement.Stripes(ids)
	}
	for w, m := range i.members {
		if _, ok := next[w]; !ok {
			m.Revoked = revoked[w]
			next[w] = m
		}
	}
	i.members, i.order, i.revoked = next, list, revoked
	return nil
}

// enrolled returns the members of the state in the order of their enrollment. The
// caller must not change it.
func (i *identity) enrolled() []engine.Member {
	members, _ := i.placed()
	return members
}

// placed returns those that enrolled does, and the first symbol of the stripe of each.
func (i *identity) placed() ([]engine.Member, []uint32) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.order, i.stripes
}

// admit remembers a member that proved itself by its own enrollment, before the
// event of that enrollment is here.
func (i *identity) admit(m engine.Member) (fresh bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.members[m.Writer]; ok {
		return false
	}
	if i.members == nil {
		i.members = map[fcp.WriterID]engine.Member{}
	}
	i.members[m.Writer] = m
	return true
}

// told is what the core is told of the members.
func (i *identity) told() (out gossip.Members) {
	i.mu.Lock()
	defer i.mu.Unlock()
	out.Known = len(i.members)
	for w, m := range i.members {
		if !m.Revoked {
			out.Writers = append(out.Writers, w)
		}
	}
	return out
}

// tlsConfig returns the configuration for both sides of a connection.
func (i *identity) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocol},
		ServerName:             "fcp",
		Time:                   i.now,
		Rand:                   i.rand,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // there is no authority but the owner: VerifyConnection decides
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.certificate() },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.certificate() },
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := i.peer(&s)
			return err
		},
	}
}
