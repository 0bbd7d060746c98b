package node

import "time"

// Limits of a node. Those of a message are checked before it is decoded.
const (
	maxMessage      = 1 << 20   // bytes of one control message; fits a control frame
	maxBatchBytes   = 256 << 10 // bytes of events in one message
	maxBatchEvents  = 1024      // events in one message
	maxQueued       = 8 << 20   // bytes waiting for one peer; above it the session ends
	bulkQueued      = 1 << 20   // above it event batches wait
	maxWanted       = 256       // symbols of one request over datagrams
	maxStreamFrame  = 1<<16 - 1 // bytes of a session datagram on a stream
	maxShares       = 16        // shares of a segment that one answer describes
	maxServing      = 8         // requests of one peer that are served at once
	maxHandshakes   = 64        // handshakes under way at once
	cookieAbove     = 16        // handshakes under way above which a cookie is asked for
	maxAnnounced    = 4096      // segments not known yet whose salts are kept
	maxEarlyBytes   = 32 << 20  // bytes of those salts
	sourcesChecked  = 64        // new connections within a second above which addresses are validated first
	handshakeWait   = 10 * time.Second
	helloWait       = 5 * time.Second
	tickEvery       = 100 * time.Millisecond // while gossip has something to do
	tickIdle        = time.Second            // else
	headsEvery      = 5 * time.Second
	placeEvery      = 2 * time.Second  // while shares are missing
	placeRest       = time.Minute      // else
	dialWait        = 5 * time.Second  // of one attempt to reach a member
	dialsAtOnce     = 3                // attempts to reach one member under way
	findEvery       = 30 * time.Second // between looks for peers that the network knows
	redialFirst     = 100 * time.Millisecond
	redialMost      = 2 * time.Second       // while few members are away
	redialEach      = 50 * time.Millisecond // times the members that are away, at least
	redialKnown     = 15 * time.Second      // to an address whose member is looked for by name too
	idleTimeout     = 15 * time.Second
	keepAlive       = 2 * time.Second
	silentAfter     = 4 * time.Second // a session that is silent for so long is not waited for
	attestationLife = 30 * 24 * time.Hour
	attestationUse  = 24 * time.Hour
)
