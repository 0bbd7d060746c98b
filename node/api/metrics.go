package api

import (
	"fmt"
	"net/http"
)

// metrics writes the counters of spec/wire.md section 17 that this build has, and
// our own. While the store is lent there are none but that.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	s.mu.Lock()
	o := s.cur
	if o != nil {
		o.users.Add(1)
		defer o.users.Done()
	}
	s.mu.Unlock()
	gauge := func(name, help string, v uint64) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", name, help, name, name, v)
	}
	if o == nil {
		gauge("fcp_store_lent", "1 while another process has the store", 1)
		return
	}
	m, d := o.node.Metrics(), o.engine.DecisionCounts()
	for _, c := range []struct {
		name, help string
		value      uint64
	}{
		{"fcps_datagrams_rx_total", "session datagrams received", m.DatagramsReceived.Load()},
		{"fcps_datagrams_mac_fail_total", "session datagrams that do not authenticate", m.MACFailed.Load()},
		{"fcps_symbols_aead_fail_total", "symbols that do not open", m.SymbolsFailed.Load()},
		{"fcps_replay_drop_total", "session datagrams seen before", m.Replayed.Load()},
		{"capability_token_verify_fail_total", "tokens that do not verify", s.tokensRefused.Load()},
		{"capability_denied_total", "uses that were denied", d.Denied},
		// This build has no egress proxy, so nothing goes out through one.
		{"egress_allowed_total", "outgoing requests of connectors that were let through", 0},
		{"egress_denied_total", "outgoing requests of connectors that were refused", 0},
		{"egress_timeout_total", "outgoing requests of connectors without an answer in time", 0},
		{"fcp_frames_refused_total", "symbol frames against the rules", m.FramesRefused.Load()},
		{"fcp_symbols_sent_total", "symbols sent", m.SymbolsSent.Load()},
		{"fcp_symbols_taken_total", "good symbols taken in", m.SymbolsTaken.Load()},
		{"fcp_symbols_false_total", "symbols that do not fit their commitment", m.SymbolsFalse.Load()},
		{"fcp_symbols_unasked_total", "symbols that nobody asked for", m.SymbolsUnasked.Load()},
		{"fcp_events_sent_total", "control events sent to peers", m.EventsSent.Load()},
		{"fcp_events_taken_total", "control events taken from peers", m.EventsTaken.Load()},
		{"fcp_segments_repaired_total", "segments whose lost shares this node made again", m.Repaired.Load()},
		{"fcp_possession_challenges_total", "claims to hold symbols that this node asked for", m.Challenges.Load()},
		{"fcp_possession_false_total", "such claims that were false", m.ClaimsFalse.Load()},
		{"fcp_shares_dropped_total", "shares that no policy asked for any more", m.SharesDropped.Load()},
		{"fcp_segments_released_total", "segments that a compaction replaced of which something was dropped here", m.Released.Load()},
		{"fcp_forgettings_carried_out_total", "orders of the owner to forget that were carried out here", m.Forgotten.Load()},
		{"fcp_repair_bytes_total", "bytes that those repairs moved", m.RepairBytes.Load()},
		{"fcp_segments_rebuilt_total", "segments rebuilt from symbols", m.Rebuilt.Load()},
		{"fcp_shares_kept_total", "shares taken in for the mesh", m.SharesKept.Load()},
		{"fcp_asks_answered_total", "votes on leases, leases coordinated and shares of secrets given to peers", m.AsksAnswered.Load()},
		{"fcp_asks_refused_total", "such asks of peers that were refused", m.AsksRefused.Load()},
		{"fcp_answers_unasked_total", "answers to asks that nobody waited for", m.AnswersUnasked.Load()},
		{"fcp_cookies_asked_total", "handshakes that had to bring a cookie", m.CookiesAsked.Load()},
	} {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s counter\n%s %d\n", c.name, c.help, c.name, c.name, c.value)
	}
	gauge("fcp_store_lent", "1 while another process has the store", 0)
	gauge("fcp_peers", "members with a session", uint64(len(o.node.Peers())))
	gauge("fcp_log_position", "last durable position", o.engine.Log().Durable())
	gauge("fcp_feeds_frozen", "feeds with two branches", uint64(len(o.node.Forks())))
	if alerts, err := o.engine.Alerts(); err == nil {
		gauge("fcp_devices_lost", "devices that the owner declared lost", uint64(len(alerts)))
	}
	sum := o.node.Summary()
	gauge("fcp_symbol_coverage_bps", "symbols at members that are there over source symbols, 10000 is one copy", uint64(sum.CoverageBPS))
	gauge("fcp_health_score", "0 (something is lost) to 100", uint64(sum.Score))
	gauge("fcp_segments_unreadable", "segments that the members that are there cannot rebuild", uint64(sum.Unreadable))
	gauge("fcp_segments_below_policy", "segments with fewer shares than the policy asks", uint64(sum.BelowPolicy))
	if _, missing, err := o.node.Spread(); err == nil {
		gauge("fcp_shares_missing", "shares of own segments that are not where they should be", uint64(missing))
	}
}
