package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"fcp"
	"fcp/authority"
)

// meshDemo is what the steps of the mesh part share.
type meshDemo struct {
	*demo
	store, identity, keys string
	note                  string // a small object
	blob                  []byte
	digest                [sha256.Size]byte
	at                    uint64 // position of the note's first version
	grant                 string
	second                string // the id of n2
	refused               string // first digits of the refused request
}

func (d *demo) mesh() error {
	at := filepath.Join(d.dir, "mesh")
	s := &meshDemo{demo: d, store: filepath.Join(at, "store"), identity: filepath.Join(at, "identity"), keys: filepath.Join(at, "holders"), note: "notes/today"}
	if err := os.MkdirAll(s.keys, 0o700); err != nil {
		return inputError(err, "a temporary directory")
	}
	// Whatever happens, no process stays behind.
	defer func() {
		end := *d
		end.ctx = context.WithoutCancel(d.ctx)
		end.fcpctl("", s.on("down")...)
	}()
	s.blob = make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{7}).Read(s.blob)
	s.digest = sha256.Sum256(s.blob)
	steps := []struct {
		title, proves string
		fn            func(*stepView) error
	}{
		{"a store and its daemon", "nothing to sign up for, nothing to configure", s.upStep},
		{"a note, a second version, and a third that comes too late", "what was read before writing is checked, and the past stays", s.noteStep},
		{"three nodes, any two of which are enough", "three real processes become one store", s.nodesStep},
		{"1 MiB, spread over them", "half as much again as one copy survives the loss of a node", s.spreadStep},
		{"the node that wrote it is killed", "the survivors' symbols are the object, byte for byte", s.killStep},
		{"a fourth node joins, by the word of one that is left", "a mesh goes on without the node that began it", s.fourthStep},
		{"repair onto it", "what was lost is made again of symbols never used before, at the cost of what was lost", s.repairStep},
		{"another node is killed", "what repair made is worth what the writer made", s.secondLossStep},
		{"both come back, and everybody agrees", "what was acknowledged is there after kill -9", s.returnStep},
		{"a narrow token, narrowed again with no store at hand", "the agent on n2 does what its token says, and the helper less", s.tokenStep},
		{"revoked on one node, refused on another", "one can see when a revocation arrived where, and what would pass", s.revokeStep},
		{"the refusal, proved with no store at hand", "anybody can check who refused, why, and on whose revocation", s.proveStep},
		{"a backup, then down", "no process stays behind", s.downStep},
		{"everything is wiped and restored", "the state is the same, and what was revoked stays revoked", s.restoreStep},
	}
	for _, step := range steps {
		if err := d.step(step.title, step.proves, step.fn); err != nil {
			return err
		}
	}
	return nil
}

func (s *meshDemo) on(args ...string) []string { return append([]string{"--dir", s.store}, args...) }

// upFlags and addFlags are what `up` and `node add` are told of the network.
func (s *meshDemo) upFlags() []string  { return s.opts.tailnet.asFlags() }
func (s *meshDemo) addFlags() []string { return s.opts.tailnet.keyAsFlags() }

func (s *meshDemo) node(name string, args ...string) []string {
	return s.on(append([]string{"--node", name}, args...)...)
}

func (s *meshDemo) holder(name string) string { return filepath.Join(s.keys, name) }

func (s *meshDemo) upStep(v *stepView) error {
	if _, err := s.must(v, "", s.on("init", "--identity", s.identity, "--no-passphrase", "--device", "n1")...); err != nil {
		return err
	}
	o, err := s.must(v, "", s.on(append([]string{"up", "-o", "json"}, s.upFlags()...)...)...)
	if err != nil {
		return err
	}
	var up struct{ Items []nodeView }
	if err := o.decode(&up); err != nil {
		return err
	}
	if len(up.Items) != 1 || up.Items[0].Process == 0 || !up.Items[0].Began {
		return broken("up says %+v", up.Items)
	}
	v.fact("  process %d, ready", up.Items[0].Process)
	again := s.fcpctl("", s.on("up", "-o", "json")...)
	if err := again.want(exitOK); err != nil {
		return err
	}
	pid := up.Items[0].Process
	up.Items = nil
	if err := again.decode(&up); err != nil {
		return err
	}
	if len(up.Items) != 1 || up.Items[0].Began || up.Items[0].Process != pid {
		return broken("a second `up` started another daemon")
	}
	return nil
}

func (s *meshDemo) noteStep(v *stepView) error {
	o, err := s.must(v, "remember the milk\n", s.on("object", "put", s.note, "-", "-o", "json")...)
	if err != nil {
		return err
	}
	var first putView
	if err := o.decode(&first); err != nil {
		return err
	}
	s.at = first.Position
	if _, err := s.must(v, "remember the bread\n", s.on("object", "put", s.note, "-", "--expect", "1")...); err != nil {
		return err
	}
	late := s.fcpctl("remember nothing\n", s.on("object", "put", s.note, "-", "--expect", "1")...)
	v.fact("$ %s", late.line)
	if err := late.want(exitConflict); err != nil {
		return err
	}
	s.quote(v, late.stderr)
	for _, way := range []string{"object history", "overwrite"} {
		if !bytes.Contains(late.stderr, []byte(way)) {
			return broken("the conflict does not say how to go on")
		}
	}
	past, err := s.must(v, "", s.on("object", "get", s.note, "--at", decimal(s.at))...)
	if err != nil {
		return err
	}
	if string(past.stdout) != "remember the milk\n" {
		return broken("the past is %q", past.stdout)
	}
	tail, err := s.must(v, "", s.on("log", "tail", "-n", "3", "-o", "ndjson")...)
	if err != nil {
		return err
	}
	if !bytes.Contains(tail.stdout, []byte(`"source":"node"`)) || bytes.Count(tail.stdout, []byte("object.put")) != 2 {
		return broken("the log does not show the two versions, or not through the daemon")
	}
	return nil
}

// quote shows what a command said on stderr.
func (s *meshDemo) quote(v *stepView, text []byte) {
	for line := range strings.Lines(strings.TrimSpace(string(text))) {
		v.fact("  %s", strings.ReplaceAll(strings.TrimRight(line, "\n"), s.dir, "$D"))
	}
}

func (s *meshDemo) nodesStep(v *stepView) error {
	o, err := s.must(v, "", s.on("down")...)
	if err != nil {
		return err
	}
	if o, err = s.must(v, "", s.on(append([]string{"up", "--nodes", "3", "--policy", "any-2-of-3", "--identity", s.identity, "-o", "json"}, s.addFlags()...)...)...); err != nil {
		return err
	}
	var up struct{ Items []nodeView }
	if err := o.decode(&up); err != nil {
		return err
	}
	processes := map[int]bool{}
	for _, n := range up.Items {
		processes[n.Process] = true
		if n.Name == "n2" {
			s.second = n.Writer
		}
		v.fact("  %s: process %d on %s", n.Name, n.Process, n.Address)
	}
	if len(processes) != 3 {
		return broken("%d processes", len(processes))
	}
	if _, err := s.must(v, "", s.on("wait", "--ready", "--converged", "--timeout", "2m")...); err != nil {
		return err
	}
	there, err := s.must(v, "", s.node("n3", "object", "get", s.note)...)
	if err != nil {
		return err
	}
	if string(there.stdout) != "remember the bread\n" {
		return broken("n3 reads %q", there.stdout)
	}
	return nil
}

func (s *meshDemo) spreadStep(v *stepView) error {
	path := filepath.Join(s.keys, "blob")
	if err := os.WriteFile(path, s.blob, 0o600); err != nil {
		return inputError(err, "a temporary file")
	}
	if _, err := s.must(v, "", s.on("object", "put", "photos/sea", path, "--durable", "placed")...); err != nil {
		return err
	}
	m, err := s.coverageAt(v, "n1")
	if err != nil {
		return err
	}
	v.fact("  three copies would be 3.00x")
	if m.Survives != 1 || m.Coverage < 14500 || m.Coverage > 16000 {
		return broken("coverage %d, survives the loss of %d", m.Coverage, m.Survives)
	}
	return nil
}

func (s *meshDemo) tokenStep(v *stepView) error {
	o, err := s.must(v, "", s.on("cap", "grant", "agent:notes", "--identity", s.identity, "--allow", "object.get,object.put", "--resource", "notes/", "--for", "1h",
		"--device", s.second, "-o", "json")...)
	if err != nil {
		return err
	}
	var g grantView
	if err := o.decode(&g); err != nil {
		return err
	}
	s.grant = g.Ref[:16]
	if _, err := s.must(v, "", s.on("cap", "mint", s.grant, "--key", s.holder("agent.key"), "--out", s.holder("agent.token"), "--for", "10m", "--depth", "1",
		"--holder", s.second)...); err != nil {
		return err
	}
	if _, err := s.must(v, "", "cap", "attenuate", s.holder("agent.token"), "--key", s.holder("agent.key"), "--new-key", s.holder("helper.key"),
		"--out", s.holder("helper.token"), "--allow", "object.get", "--resource", s.note); err != nil {
		return err
	}
	if _, err := s.must(v, "", s.on("wait", "--ready", "--converged", "--timeout", "2m")...); err != nil {
		return err
	}
	if _, err := s.must(v, "the agent was here\n", s.node("n2", "cap", "use", s.holder("agent.token"), "--key", s.holder("agent.key"), "put", "notes/agent", "-")...); err != nil {
		return err
	}
	o, err = s.must(v, "", s.node("n2", s.use("helper")...)...)
	if err == nil && string(o.stdout) != "remember the bread\n" {
		err = broken("the helper reads %q on n2", o.stdout)
	}
	return err
}

func (s *meshDemo) use(who string) []string {
	return []string{"cap", "use", s.holder(who + ".token"), "--key", s.holder(who + ".key"), "get", s.note}
}

func (s *meshDemo) revokeStep(v *stepView) error {
	o, err := s.must(v, "", s.on("cap", "revoke", s.holder("agent.token"), "--identity", s.identity, "--reason", "the agent's machine was sold", "--wait", "10s", "-o", "json")...)
	if err != nil {
		return err
	}
	var r revocationView
	if err := o.decode(&r); err != nil {
		return err
	}
	v.fact("  arrived: %s", arrivedText(r.Arrived))
	if len(r.Arrived) != len(everyNode)-1 {
		return broken("the revocation arrived at %d devices", len(r.Arrived))
	}
	if err := s.refusedFor(v, authority.ReasonRevokedToken, s.node("n2", s.use("helper")...)); err != nil {
		return err
	}
	// A write leaves a receipt that says what would pass.
	o = s.fcpctl("once more\n", s.node("n2", "cap", "use", s.holder("agent.token"), "--key", s.holder("agent.key"), "put", "notes/agent", "-")...)
	v.fact("$ %s", o.line)
	if err := o.want(exitDenied); err != nil {
		return err
	}
	m := regexp.MustCompile("why ([0-9a-f]{16})").FindSubmatch(o.stderr)
	if m == nil {
		return broken("the refusal of a write names no receipt")
	}
	s.refused = string(m[1])
	if o, err = s.must(v, "", s.node("n2", "why", s.refused, "-o", "json")...); err != nil {
		return err
	}
	var w refusalView
	if err := o.decode(&w); err != nil {
		return err
	}
	if w.Reason != string(authority.ReasonRevokedToken) || w.Smallest == nil {
		return broken("the receipt says %s and proposes %v", w.Reason, w.Smallest)
	}
	v.fact("  would pass: %s", strings.ReplaceAll(w.Smallest.Command, s.dir, "$D"))
	o, err = s.must(v, "", s.on("node", "ls")...)
	if err != nil {
		return err
	}
	if n := bytes.Count(o.stdout, []byte(" ms")); n != len(everyNode)-1 {
		return broken("`node ls` shows %d arrivals", n)
	}
	return nil
}

// refusedFor runs a use of a token that must be refused for a reason.
func (s *meshDemo) refusedFor(v *stepView, reason fcp.Reason, args []string) error {
	o := s.fcpctl("", args...)
	v.fact("$ %s", o.line)
	s.quote(v, o.stderr)
	if err := o.want(exitDenied); err != nil {
		return err
	}
	if !bytes.Contains(o.stderr, []byte(reason)) {
		return broken("it is refused, and not with %s: %s", reason, bytes.TrimSpace(o.stderr))
	}
	return nil
}

func (s *meshDemo) proveStep(v *stepView) error {
	o, err := s.must(v, "", s.node("n2", "prove", "--refusal", s.refused)...)
	if err != nil {
		return err
	}
	proof := filepath.Join(s.keys, "refusal.proof")
	if err := os.WriteFile(proof, o.stdout, 0o600); err != nil {
		return inputError(err, "the proof")
	}
	o, err = s.must(v, "", "prove", "--check", proof, "-o", "json")
	if err != nil {
		return err
	}
	var p provenRefusalView
	if err := o.decode(&p); err != nil {
		return err
	}
	if p.Revoked == "" {
		return broken("the proof holds no revocation")
	}
	v.fact("  %d signed objects verified, revoked by %.16s", len(p.Verified), p.Revoked)
	return nil
}
