// Package tailnettest is a tailnet on loopback for tests: Tailscale's own test control
// server, with a relay. Nothing leaves the machine.
package tailnettest

import (
	"net/http/httptest"
	"testing"

	"tailscale.com/net/netns"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/logger"
)

// Control starts a control server and a relay, which end with the test. Its nodes are
// always online; they may ask for the tags tag:fcp-private, tag:fcp-work and tag:printer.
func Control(t *testing.T) *testcontrol.Server {
	t.Helper()
	netns.SetEnabled(false)
	t.Cleanup(func() { netns.SetEnabled(true) })
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	c := &testcontrol.Server{
		DERPMap:        integration.RunDERPAndSTUN(t, logger.Discard, "127.0.0.1"),
		DNSConfig:      &tailcfg.DNSConfig{Proxied: true},
		MagicDNSDomain: "tail-scale.ts.net",
		TagOwners:      map[string][]string{"tag:fcp-private": {}, "tag:fcp-work": {}, "tag:printer": {}},
		AllOnline:      true,
	}
	c.HTTPTestServer = httptest.NewUnstartedServer(c)
	c.HTTPTestServer.Start()
	t.Cleanup(c.HTTPTestServer.Close)
	return c
}

// Oneself makes all nodes that join from now on those of one user.
func Oneself(c *testcontrol.Server) *testcontrol.Server {
	c.AllNodesSameUser = true
	return c
}

// Environment names the variables that must be "true" for a process that is no test to
// use such a tailnet: it sees no network otherwise.
var Environment = []string{"TS_ASSUME_NETWORK_UP_FOR_TEST", "TS_DISABLE_PORTMAPPER", "TS_NO_LOGS_NO_SUPPORT", "TS_PANIC_IF_HIT_MAIN_CONTROL",
	"QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"}

// URL returns what a node's ControlURL must be.
func URL(c *testcontrol.Server) string { return c.HTTPTestServer.URL }
