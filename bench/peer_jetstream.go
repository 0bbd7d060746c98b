package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStream is a NATS server in this process with one file stream that is synced
// before each acknowledgement, and a client over an in-process connection.
type jetStream struct {
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
}

// jetStreamStart bounds how long the server may take to be ready.
const jetStreamStart = 10 * time.Second

func openJetStream(ctx context.Context, dir string, _ Workload) (a Appender, err error) {
	s, err := server.NewServer(&server.Options{ServerName: "bench", DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: true, NoLog: true, NoSigs: true})
	if err != nil {
		return nil, err
	}
	p := &jetStream{server: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	s.Start()
	if !s.ReadyForConnections(jetStreamStart) {
		return nil, fmt.Errorf("the NATS server is not ready after %v", jetStreamStart)
	}
	if p.conn, err = nats.Connect("", nats.InProcessServer(s)); err != nil {
		return nil, err
	}
	if p.js, err = jetstream.New(p.conn); err != nil {
		return nil, err
	}
	_, err = p.js.CreateStream(ctx, jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"events"}, Storage: jetstream.FileStorage})
	return p, err
}

func (p *jetStream) Append(ctx context.Context, _ int, payload []byte) error {
	_, err := p.js.Publish(ctx, "events", payload)
	return err
}

func (p *jetStream) Close() error {
	if p.conn != nil {
		p.conn.Close()
	}
	p.server.Shutdown()
	p.server.WaitForShutdown()
	return nil
}
