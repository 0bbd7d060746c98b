package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/quic-go/quic-go"
)

// rawTransfer sends bytes over one QUIC stream on loopback, as quic-go does it, to a
// receiver that writes them to a new file and syncs it once, at the end.
func rawTransfer(size int64) Subject {
	return Subject{Name: "quic-go stream + write + fsync", NoWarmUp: true, Open: func(ctx context.Context, dirs Dirs) (Session, error) {
		from, to, err := quicPair(ctx)
		if err != nil {
			return nil, err
		}
		return &rawSession{from, to, filepath.Join(dirs.Round, "file"), size}, nil
	}}
}

type rawSession struct {
	from, to *quic.Conn
	path     string
	size     int64
}

func (s *rawSession) Close() error {
	return errors.Join(s.from.CloseWithError(0, ""), s.to.CloseWithError(0, ""))
}

func (s *rawSession) Run(ctx context.Context, _ time.Duration) (Sample, error) {
	at := time.Now()
	sent := make(chan error, 1)
	go func() { sent <- s.send(ctx) }()
	err := s.receive(ctx)
	took := time.Since(at)
	err = errors.Join(err, <-sent)
	return Sample{Value: float64(s.size) / 1e6 / took.Seconds(), Ops: 1, Bytes: s.size}, err
}

func (s *rawSession) send(ctx context.Context) error {
	out, err := s.from.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	for left := s.size; left > 0; left -= int64(len(b)) {
		b = b[:min(int64(len(b)), left)]
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	return out.Close()
}

func (s *rawSession) receive(ctx context.Context) (err error) {
	in, err := s.to.AcceptUniStream(ctx)
	if err != nil {
		return err
	}
	f, err := os.Create(s.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, in, make([]byte, 1<<20))
	if err == nil && n != s.size {
		err = fmt.Errorf("%d bytes of %d came", n, s.size)
	}
	return errors.Join(err, f.Sync())
}

// quicPair connects two sockets on loopback.
func quicPair(ctx context.Context) (from, to *quic.Conn, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		return nil, nil, err
	}
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"bench"},
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13} // of a stream to this process itself
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	client, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, errors.Join(err, server.Close())
	}
	a, b := &quic.Transport{Conn: client}, &quic.Transport{Conn: server}
	l, err := b.Listen(conf, nil)
	if err != nil {
		return nil, nil, err
	}
	if from, err = a.Dial(ctx, server.LocalAddr(), conf, nil); err != nil {
		return nil, nil, err
	}
	if to, err = l.Accept(ctx); err != nil {
		return nil, nil, err
	}
	context.AfterFunc(to.Context(), func() { a.Close(); b.Close(); client.Close(); server.Close() })
	return from, to, nil
}
