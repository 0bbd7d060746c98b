package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"fcp/authority"
	"fcp/node/api"
)

// repairFactor is how many bytes repair may move for each that was lost.
const repairFactor = 1.3

var fetchedFrom = regexp.MustCompile(`(\d+) symbols from (n[0-9])`)

func (s *meshDemo) killStep(v *stepView) error {
	if _, err := s.must(v, "", s.on("node", "kill", "n1", "--hard")...); err != nil {
		return err
	}
	o, err := s.readSea(v, "n3")
	if err == nil && !fetchedFrom.Match(o.stderr) {
		err = broken("n3 does not say from whom it has the symbols")
	}
	return err
}

// readSea reads the large object on a node and compares it with what was written.
func (s *meshDemo) readSea(v *stepView, node string) (outcome, error) {
	o, err := s.must(v, "", s.node(node, "object", "get", "photos/sea")...)
	if err != nil {
		return o, err
	}
	s.quote(v, o.stderr)
	if sha256.Sum256(o.stdout) != s.digest {
		return o, broken("%s reads other bytes", node)
	}
	v.fact("  SHA-256 %x, as written", s.digest[:8])
	return o, nil
}

// coverageAt reads what a node knows of coverage.
func (s *meshDemo) coverageAt(v *stepView, node string) (*meshView, error) {
	o, err := s.must(v, "", s.node(node, "status", "-o", "json")...)
	if err != nil {
		return nil, err
	}
	var st statusView
	if err := o.decode(&st); err != nil {
		return nil, err
	}
	if st.Mesh == nil {
		return nil, broken("status knows no mesh")
	}
	v.fact("  coverage %s", st.Mesh.coverage())
	return st.Mesh, nil
}

func (s *meshDemo) fourthStep(v *stepView) error {
	if _, err := s.must(v, "", s.on(append([]string{"node", "add", "n4", "--identity", s.identity}, s.addFlags()...)...)...); err != nil {
		return err
	}
	if _, err := s.must(v, "", s.on("wait", "--ready", "--converged", "--timeout", "2m")...); err != nil {
		return err
	}
	o, err := s.must(v, "", s.node("n4", "object", "get", s.note)...)
	if err == nil && string(o.stdout) != "remember the bread\n" {
		err = broken("n4 reads %q", o.stdout)
	}
	return err
}

func (s *meshDemo) repairStep(v *stepView) error {
	plan, err := s.repair(v, "--dry-run")
	if err != nil {
		return err
	}
	before, err := s.coverageAt(v, "n2")
	if err != nil {
		return err
	}
	if len(plan) == 0 || before.Survives != 0 {
		return broken("after the loss of n1 %d segments are to be repaired and %d more nodes may go", len(plan), before.Survives)
	}
	done, err := s.repair(v)
	if err != nil {
		return err
	}
	var moved, lost uint64
	for i := range done {
		if !done[i].Done || done[i].By == "n1" {
			return broken("a segment was not repaired: %+v", done[i])
		}
		moved, lost = moved+done[i].Bytes, lost+done[i].Lost
	}
	v.fact("  %d bytes lost, %d bytes moved: %.2f times", lost, moved, float64(moved)/float64(max(lost, 1)))
	if len(done) != len(plan) || moved == 0 || float64(moved) > repairFactor*float64(lost) {
		return broken("repair of %d segments moved %d bytes for %d that were lost", len(done), moved, lost)
	}
	if err := s.neverUsed(v); err != nil {
		return err
	}
	after, err := s.coverageAt(v, "n2")
	if err == nil && (after.Survives != 1 || after.Coverage <= before.Coverage) {
		err = broken("after repair the coverage is %d, it was %d, and %d more nodes may go", after.Coverage, before.Coverage, after.Survives)
	}
	return err
}

// repair runs `repair --now` on n2, which knows afterwards who has what.
func (s *meshDemo) repair(v *stepView, more ...string) ([]api.RepairStep, error) {
	o, err := s.must(v, "", s.node("n2", append([]string{"repair", "--now", "-o", "json"}, more...)...)...)
	if err != nil {
		return nil, err
	}
	var r struct{ Items []api.RepairStep }
	return r.Items, o.decode(&r)
}

// neverUsed compares the numbers of the symbols that the nodes keep: what n4 got, none
// of the others has.
func (s *meshDemo) neverUsed(v *stepView) error {
	type share struct {
		node, segment string
		first, count  int
	}
	var all []share
	for _, node := range []string{"n2", "n3", "n4"} {
		files, err := filepath.Glob(filepath.Join(s.store+"."+node, "shares", "*.sym"))
		if err != nil {
			return broken("list the shares of %s: %w", node, err)
		}
		for _, f := range files {
			h := share{node: node}
			parts := strings.Split(filepath.Base(f), ".")
			if len(parts) != 4 {
				return broken("%s keeps a share under the name %s", node, f)
			}
			var err1, err2 error
			h.segment = parts[0]
			h.first, err1 = strconv.Atoi(parts[1])
			h.count, err2 = strconv.Atoi(parts[2])
			if err := errors.Join(err1, err2); err != nil {
				return broken("%s keeps a share under the name %s: %w", node, f, err)
			}
			all = append(all, h)
		}
	}
	slices.SortFunc(all, func(a, b share) int { return cmp.Or(cmp.Compare(a.segment, b.segment), cmp.Compare(a.first, b.first)) })
	fourth := 0
	for i, h := range all {
		if i > 0 && all[i-1].segment == h.segment && all[i-1].first+all[i-1].count > h.first {
			return broken("%s and %s have the same symbols", all[i-1].node, h.node)
		}
		if h.node == "n4" {
			fourth++
		}
		v.fact("  %s keeps symbols %d to %d of %.8s", h.node, h.first, h.first+h.count-1, h.segment)
	}
	if fourth == 0 {
		return broken("n4 has no share")
	}
	return nil
}

func (s *meshDemo) secondLossStep(v *stepView) error {
	if _, err := s.must(v, "", s.on("node", "kill", "n2", "--hard")...); err != nil {
		return err
	}
	o, err := s.readSea(v, "n4")
	if err != nil {
		return err
	}
	if m := fetchedFrom.FindAllSubmatch(o.stderr, -1); !slices.ContainsFunc(m, func(m [][]byte) bool { return string(m[2]) == "n3" }) {
		return broken("n4 does not say that it has symbols from n3: %s", bytes.TrimSpace(o.stderr))
	}
	return nil
}

func (s *meshDemo) returnStep(v *stepView) error {
	for _, name := range []string{"n1", "n2"} {
		if _, err := s.must(v, "", s.on("node", "start", name)...); err != nil {
			return err
		}
	}
	if _, err := s.must(v, "", s.on("wait", "--ready", "--converged", "--timeout", "2m")...); err != nil {
		return err
	}
	o, err := s.must(v, "", s.on("object", "get", s.note)...)
	if err == nil && string(o.stdout) != "remember the bread\n" {
		err = broken("n1 reads %q", o.stdout)
	}
	return err
}

// everyNode are the nodes of the demonstration at its end.
var everyNode = []string{"n1", "n2", "n3", "n4"}

func (s *meshDemo) downStep(v *stepView) error {
	for _, line := range [][]string{s.on("backup", "create", s.backup()), {"backup", "verify", s.backup()}} {
		if _, err := s.must(v, "", line...); err != nil {
			return err
		}
	}
	if _, err := s.must(v, "", s.on("down")...); err != nil {
		return err
	}
	for _, name := range everyNode {
		o := s.fcpctl("", s.node(name, "verify")...)
		if err := o.want(exitOK); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := os.Stat(filepath.Join(s.storeOf(name), "fcpd.sock")); err == nil {
			return broken("%s left its socket", name)
		}
	}
	v.fact("  each store verifies")
	return nil
}

func (s *meshDemo) storeOf(name string) string {
	if name == "n1" {
		return s.store
	}
	return s.store + "." + name
}

func (s *meshDemo) backup() string { return filepath.Join(s.dir, "mesh", "backup") }

func (s *meshDemo) restoreStep(v *stepView) error {
	for _, name := range everyNode {
		if err := os.RemoveAll(s.storeOf(name)); err != nil {
			return broken("wipe %s: %w", name, err)
		}
		v.fact("$ rm -r %s", strings.ReplaceAll(s.storeOf(name), s.dir, "$D"))
	}
	o, err := s.must(v, "", s.on("restore", s.backup(), "--identity", s.identity, "-o", "json")...)
	if err != nil {
		return err
	}
	var r restoreView
	if err := o.decode(&r); err != nil {
		return err
	}
	if !r.Identical {
		return broken("the state roots differ")
	}
	v.fact("  %d events, state root %.16s IDENTICAL", r.Events, r.StateRoot)
	if _, err := s.must(v, "", s.on("replay", "--verify")...); err != nil {
		return err
	}
	o, err = s.must(v, "", s.on("object", "get", "photos/sea")...)
	if err == nil && sha256.Sum256(o.stdout) != s.digest {
		err = broken("the restored store reads other bytes")
	}
	if err != nil {
		return err
	}
	// The restored store is a new device, so a token for n2 is refused at once; that it was
	// revoked before is still on record, with the receipt that n2 gave.
	if err := s.refusedFor(v, authority.ReasonBindingDevice, s.on(s.use("helper")...)); err != nil {
		return err
	}
	o, err = s.must(v, "", s.on("why", s.refused, "-o", "json")...)
	if err != nil {
		return err
	}
	var w refusalView
	if err := o.decode(&w); err != nil {
		return err
	}
	if w.Reason != string(authority.ReasonRevokedToken) {
		return broken("the receipt says %s after the restore", w.Reason)
	}
	return nil
}
