package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fcp/authority"
)

// authorityDemo is what the steps of the authority part share.
type authorityDemo struct {
	*demo
	store, identity, keys string // the last is where holders keep keys and tokens
	grant                 string
	refused               string // first digits of the refused request
	proof                 string
}

func (d *demo) authority() error {
	at := filepath.Join(d.dir, "authority")
	s := &authorityDemo{demo: d, store: filepath.Join(at, "store"), identity: filepath.Join(at, "identity"), keys: filepath.Join(at, "holders"),
		proof: filepath.Join(at, "refusal.proof")}
	if err := os.MkdirAll(s.keys, 0o700); err != nil {
		return inputError(err, "a temporary directory")
	}
	steps := []struct {
		title, proves string
		fn            func(*stepView) error
	}{
		{"the owner grants an agent two operations below one name", "a grant says exactly what it permits; the rest is not permitted", s.grantStep},
		{"a node mints a token from it for the agent's key", "a token is no wider than its grant, and useless without its key", s.mintStep},
		{"the agent narrows it for a helper, with no store at hand", "narrowing needs nobody's leave, and widening is refused at once", s.attenuateStep},
		{"agent and helper use their tokens", "each does what its token says", s.useStep},
		{"the helper tries what it was not given", "a refusal has its own reason, exit code 4 and the smallest grant", s.refusedStep},
		{"the owner revokes the agent's token", "revoking one link refuses everything below it", s.revokeStep},
		{"why, and what would pass", "the receipt of a refusal explains itself", s.whyStep},
		{"prove the refusal with no store at hand", "anybody can check who refused, why, and on whose revocation", s.proveStep},
		{"the smallest grant, to the letter", "exactly that grant lets exactly that use through, once", s.smallestStep},
		{"the audit trail", "every risky use and every denial is on record; plain reads are not", s.auditStep},
	}
	for _, step := range steps {
		if err := d.step(step.title, step.proves, step.fn); err != nil {
			return err
		}
	}
	return nil
}

func (s *authorityDemo) on(args ...string) []string {
	return append([]string{"--dir", s.store}, args...)
}

func (s *authorityDemo) holder(name string) string { return filepath.Join(s.keys, name) }

// use runs `cap use` as one of the holders.
func (s *authorityDemo) use(who string, stdin string, args ...string) outcome {
	return s.fcpctl(stdin, s.on(append([]string{"cap", "use", s.holder(who + ".token"), "--key", s.holder(who + ".key"), "-q"}, args...)...)...)
}

// refusedWith runs a use that must be refused with exit code 4 and the reason.
func (s *authorityDemo) refusedWith(v *stepView, o outcome, reason string) error {
	v.fact("$ %s", o.line)
	for line := range strings.Lines(strings.TrimSpace(string(o.stderr))) {
		v.fact("  %s", strings.ReplaceAll(strings.TrimRight(line, "\n"), s.dir, "$D"))
	}
	if err := o.want(exitDenied); err != nil {
		return err
	}
	if !bytes.Contains(o.stderr, []byte(reason)) {
		return broken("the refusal does not say %s", reason)
	}
	return nil
}

func (s *authorityDemo) grantStep(v *stepView) error {
	if _, err := s.must(v, "", s.on("init", "--identity", s.identity, "--no-passphrase")...); err != nil {
		return err
	}
	o, err := s.must(v, "", s.on("cap", "grant", "agent:notes", "--identity", s.identity, "--allow", "object.get,object.put", "--resource", "notes/", "--for", "1h", "-o", "json")...)
	if err != nil {
		return err
	}
	var g grantView
	if err := o.decode(&g); err != nil {
		return err
	}
	s.grant = g.Ref[:16]
	v.fact("  grant %s: %s on %s until %s", s.grant, strings.Join(g.Rights, ", "), strings.Join(g.Resources, ", "), g.Until)
	if !slices.Equal(g.Resources, []string{"notes/"}) || len(g.Rights) != 2 {
		return broken("the grant permits %v on %v", g.Rights, g.Resources)
	}
	return nil
}

func (s *authorityDemo) mintStep(v *stepView) error {
	_, err := s.must(v, "", s.on("cap", "mint", s.grant, "--key", s.holder("agent.key"), "--out", s.holder("agent.token"), "--for", "10m", "--depth", "1")...)
	if err != nil {
		return err
	}
	wide := s.fcpctl("", s.on("cap", "mint", s.grant, "--key", s.holder("wide.key"), "--out", s.holder("wide.token"), "--resource", "*")...)
	if err := s.refusedWith(v, wide, string(authority.ReasonNotContained)); err != nil {
		return err
	}
	if _, err := os.Stat(s.holder("wide.key")); err == nil {
		return broken("a refused mint left a key")
	}
	return nil
}

func (s *authorityDemo) attenuateStep(v *stepView) error {
	narrow := func(out string, more ...string) outcome {
		return s.fcpctl("", append([]string{"cap", "attenuate", s.holder("agent.token"), "--key", s.holder("agent.key"), "--new-key", s.holder(out + ".key"),
			"--out", s.holder(out + ".token")}, more...)...)
	}
	o := narrow("helper", "--allow", "object.get", "--resource", "notes/today", "--for", "2m")
	v.fact("$ %s", o.line)
	if err := o.want(exitOK); err != nil {
		return err
	}
	return s.refusedWith(v, narrow("wider", "--allow", "object.remove"), string(authority.ReasonWidened))
}

func (s *authorityDemo) useStep(v *stepView) error {
	for _, u := range []struct {
		who, stdin string
		args       []string
		want       string
	}{
		{"agent", "remember this\n", []string{"put", "notes/today", "-"}, ""},
		{"agent", "", []string{"get", "notes/today"}, "remember this\n"},
		{"helper", "", []string{"get", "notes/today"}, "remember this\n"},
	} {
		o := s.use(u.who, u.stdin, u.args...)
		v.fact("$ %s", o.line)
		if err := o.want(exitOK); err != nil {
			return err
		}
		if u.want != "" && string(o.stdout) != u.want {
			return broken("%s read %d bytes, not the %d that were written", u.who, len(o.stdout), len(u.want))
		}
	}
	return nil
}

func (s *authorityDemo) refusedStep(v *stepView) error {
	if err := s.refusedWith(v, s.use("helper", "overwritten\n", "put", "notes/today", "-"), string(authority.ReasonOperation)); err != nil {
		return err
	}
	if err := s.refusedWith(v, s.use("helper", "", "get", "notes/other"), string(authority.ReasonResource)); err != nil {
		return err
	}
	// The agent's token with the helper's key.
	o := s.fcpctl("", s.on("cap", "use", s.holder("agent.token"), "--key", s.holder("helper.key"), "get", "notes/today")...)
	return s.refusedWith(v, o, "token.proof")
}

func (s *authorityDemo) revokeStep(v *stepView) error {
	_, err := s.must(v, "", s.on("cap", "revoke", s.holder("agent.token"), "--identity", s.identity, "--reason", "the agent's machine was sold")...)
	if err != nil {
		return err
	}
	if err := s.refusedWith(v, s.use("helper", "", "get", "notes/today"), string(authority.ReasonRevokedToken)); err != nil {
		return err
	}
	return s.refusedWith(v, s.use("agent", "once more\n", "put", "notes/today", "-"), string(authority.ReasonRevokedToken))
}

func (s *authorityDemo) whyStep(v *stepView) error {
	o := s.fcpctl("", s.on("audit", "tail", "--type", string(authority.AuditDenied), "-n", "1", "-o", "json")...)
	if err := o.want(exitOK); err != nil {
		return err
	}
	var tail struct{ Items []auditView }
	if err := o.decode(&tail); err != nil {
		return err
	}
	if len(tail.Items) != 1 {
		return broken("%d denials at the end of the audit trail", len(tail.Items))
	}
	s.refused = tail.Items[0].Request[:16]
	o, err := s.must(v, "", s.on("why", s.refused, "-o", "json")...)
	if err != nil {
		return err
	}
	var w refusalView
	if err := o.decode(&w); err != nil {
		return err
	}
	if w.Reason != string(authority.ReasonRevokedToken) || w.Smallest == nil {
		return broken("the receipt says %s and proposes %v", w.Reason, w.Smallest)
	}
	v.fact("  %s at %s, resting on %d references", w.Reason, w.Decided, len(w.Evidence))
	v.fact("  would pass: %s", strings.ReplaceAll(w.Smallest.Command, s.dir, "$D"))
	return nil
}

func (s *authorityDemo) proveStep(v *stepView) error {
	o, err := s.must(v, "", s.on("prove", "--refusal", s.refused)...)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.proof, o.stdout, 0o600); err != nil {
		return inputError(err, "the proof")
	}
	o, err = s.must(v, "", "prove", "--check", s.proof, "-o", "json") // no --dir: there is nothing to ask
	if err != nil {
		return err
	}
	var p provenRefusalView
	if err := o.decode(&p); err != nil {
		return err
	}
	if p.Revoked == "" || p.Reason != string(authority.ReasonRevokedToken) || !strings.HasPrefix(p.Request, s.refused) {
		return broken("the proof shows %s without a revocation", p.Reason)
	}
	v.fact("  %s, by the owner's revocation %s; %d signed objects checked", p.Reason, p.Revoked[:16], len(p.Verified))
	b, err := os.ReadFile(s.proof)
	if err != nil {
		return inputError(err, "the proof")
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(s.proof+".bad", b, 0o600); err != nil {
		return inputError(err, "the proof")
	}
	bad := s.fcpctl("", "prove", "--check", s.proof+".bad")
	v.fact("  one bit changed: exit code %d", bad.exit)
	if bad.exit == exitOK {
		return broken("a changed proof passes")
	}
	return nil
}

func (s *authorityDemo) smallestStep(v *stepView) error {
	o := s.fcpctl("", s.on("why", s.refused, "-o", "json")...)
	var w refusalView
	if err := o.decode(&w); err != nil {
		return err
	}
	grant := s.on("cap", "grant", w.Smallest.Principal, "--identity", s.identity, "-o", "json", "--calls", decimal(uint64(w.Smallest.MaxCalls)),
		"--bytes", decimal(w.Smallest.MaxBytes), "--for", "5m")
	for _, r := range w.Smallest.Rights {
		_, operation, _ := strings.Cut(r, " ")
		grant = append(grant, "--allow", operation)
	}
	for _, r := range w.Smallest.Resources {
		grant = append(grant, "--resource", r)
	}
	o, err := s.must(v, "", grant...)
	if err != nil {
		return err
	}
	var g grantView
	if err := o.decode(&g); err != nil {
		return err
	}
	if _, err := s.must(v, "", s.on("cap", "mint", g.Ref[:16], "--key", s.holder("once.key"), "--out", s.holder("once.token"))...); err != nil {
		return err
	}
	o = s.use("once", "once more\n", "put", "notes/today", "-")
	v.fact("$ %s", o.line)
	if err := o.want(exitOK); err != nil {
		return err
	}
	again := s.use("once", "once more\n", "put", "notes/today", "-")
	v.fact("  a second time: exit code %d", again.exit)
	if !bytes.Contains(again.stderr, []byte(authority.ReasonLimitCalls)) {
		return broken("the second use of a grant for one: %s", again.stderr)
	}
	return again.want(exitRate)
}

func (s *authorityDemo) auditStep(v *stepView) error {
	o, err := s.must(v, "", s.on("audit", "tail", "--zone", "z:private", "-o", "json")...)
	if err != nil {
		return err
	}
	var tail struct{ Items []auditView }
	if err := o.decode(&tail); err != nil {
		return err
	}
	count := map[string]int{}
	for _, x := range tail.Items {
		count[x.Type]++
	}
	v.fact("  %d uses, %d denials, %d revocations", count[string(authority.AuditInvoke)], count[string(authority.AuditDenied)], count[string(authority.AuditRevocation)])
	if count[string(authority.AuditInvoke)] != 2 || count[string(authority.AuditDenied)] != 6 || count[string(authority.AuditRevocation)] != 1 {
		return broken("the audit trail has %v", count)
	}
	_, err = s.must(v, "", s.on("audit", "verify")...)
	return err
}
