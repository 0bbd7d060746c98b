package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
)

// secretRows rebuild a secret of 32 bytes from three of five shares in one process:
// two holders open their boxes and seal their shares to the one that rebuilds, which
// opens its own and theirs, checks all three against their commitments and combines
// them. The limit is the HPKE alone, five opens and two seals by crypto/hpke.
func secretRows() []Row {
	const k, n = 3, 5
	limit := Subject{Name: "hpke", Open: func(context.Context, Dirs) (Session, error) { return hpkeSession(k, 2*(k-1)+1) }}
	return []Row{{Name: fmt.Sprintf("secret/rebuild/%d-of-%d", k, n), Unit: "rebuilds/s", Limit: &limit,
		Subjects: []Subject{{Name: "authority", Open: func(context.Context, Dirs) (Session, error) { return sharesSession(k, n) }}}}}
}

func sharesSession(k, n int) (Session, error) {
	owner, err := authority.NewOwnerKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	spec := authority.SecretSpec{Zone: fcp.ZoneWork, ID: authority.SecretID{1}, Name: "bench", Version: 1, Value: 1, Threshold: k, Reason: authority.SecretPut}
	var nodes []*authority.NodeKeys
	for range n {
		node, err := authority.NewNodeKeys(rand.Reader)
		if err != nil {
			return nil, err
		}
		nodes, spec.Recipients = append(nodes, node), append(spec.Recipients, node.Public().Recipient())
	}
	value := bytes.Repeat([]byte{7}, 32)
	body, err := authority.SealSecret(rand.Reader, now, owner, spec, value)
	if err != nil {
		return nil, err
	}
	unverified, err := authority.OpenSecret(body)
	if err != nil {
		return nil, err
	}
	secret, err := unverified.Authorize(&authority.Authorities{Owner: owner.Public()})
	if err != nil {
		return nil, err
	}
	asker, holders := nodes[0], nodes[1:k]
	return timed(func() error {
		own, err := secret.OpenShare(asker)
		if err != nil {
			return err
		}
		shares := []*authority.SecretShare{own}
		for _, h := range holders {
			held, err := secret.OpenShare(h)
			if err != nil {
				return err
			}
			answer, err := secret.Release(rand.Reader, now, held, asker.Public().Recipient())
			if err != nil {
				return err
			}
			got, err := secret.Receive(asker, h.Writer(), answer)
			if err != nil {
				return err
			}
			held.Wipe()
			shares = append(shares, got)
		}
		defer func() {
			for _, s := range shares {
				s.Wipe()
			}
		}()
		return secret.Rebuild(shares, func(got []byte) error {
			if !slices.Equal(got, value) {
				return fmt.Errorf("the secret came back as %d other bytes", len(got))
			}
			return nil
		})
	}), nil
}

// hpkeSession seals k-1 times and opens as often as said.
func hpkeSession(k, opens int) (Session, error) {
	priv, err := hpke.DHKEM(ecdh.X25519()).GenerateKey()
	if err != nil {
		return nil, err
	}
	plain := make([]byte, 96)
	enc, sender, err := hpke.NewSender(priv.PublicKey(), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), nil)
	if err != nil {
		return nil, err
	}
	box, err := sender.Seal(nil, plain)
	if err != nil {
		return nil, err
	}
	return timed(func() error {
		for range k - 1 {
			_, s, err := hpke.NewSender(priv.PublicKey(), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), nil)
			if err != nil {
				return err
			}
			if _, err := s.Seal(nil, plain); err != nil {
				return err
			}
		}
		for range opens {
			r, err := hpke.NewRecipient(enc, priv, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), nil)
			if err != nil {
				return err
			}
			if _, err := r.Open(nil, box); err != nil {
				return err
			}
		}
		return nil
	}), nil
}
