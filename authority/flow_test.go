package authority

import (
	"fmt"
	"testing"
	"time"

	"fcp"
)

func signedApproval(w *world, by AdminKey, zone fcp.ZoneID, scope ApprovalScope, from time.Time) *Approval {
	b, err := SignApproval(testRand(w.next()), by, ApprovalSpec{Zone: zone, IssuedAt: from, Expires: from.Add(time.Minute), Scope: scope})
	must(w.t, b, err)
	a, err := VerifyApproval(b)
	return must(w.t, a, err)
}

func signedReceipt(w *world, s SanitizerSpec) *SanitizerReceipt {
	b, err := SignSanitizer(w.now, w.node, s)
	must(w.t, b, err)
	r, err := VerifySanitizer(b)
	return must(w.t, r, err)
}

// TestFlowTable makes requests whose data is of lower integrity or higher
// confidentiality, or tainted, and gives them approvals and receipts that fit, or
// nearly.
func TestFlowTable(t *testing.T) {
	public, _ := fcp.ZonePublic.StandardLevels()
	private, _ := fcp.ZonePrivate.StandardLevels()
	elevation := ApprovalScope{Kind: ApproveElevation, Operation: "mail.get", Provenance: fcp.Hash{3}, Integrity: 60}
	declass := ApprovalScope{Kind: ApproveDeclassification, From: fcp.ZonePrivate, To: fcp.ZoneWork, Objects: []fcp.ObjectID{{1}, {2}}, Confidentiality: 70}
	execution := ApprovalScope{Kind: ApproveExecution, Connector: testConnector, Method: "mail.*", Request: fcp.ObjectID{9}, InputHash: fcp.Hash{8},
		Input: []InputConstraint{{"/to/0/name", fcp.RawCBOR("\x63bob")}}}
	receipt := SanitizerSpec{"receipt-1", fcp.ZoneWork, "sanitizer.url", PublicInput | UnverifiedLink, UnverifiedLink, []string{"input-1"}}
	low := func(r *Request) { r.Data.Origin, r.Data.Levels = fcp.ZonePublic, public }
	high := func(r *Request) {
		r.Data.Origin, r.Data.Levels, r.Objects = fcp.ZonePrivate, private, []fcp.ObjectID{{1}}
	}
	run := func(r *Request) {
		r.NeedsApproval, r.InputHash = true, fcp.Hash{8}
		r.Input = map[any]any{"to": []any{map[any]any{"name": "bob"}}}
	}
	link := func(r *Request) { r.Tier, r.Data.Taint, r.Data.Inputs = TierRisky, UnverifiedLink, []string{"input-1"} }
	with := func(scope ApprovalScope, change func(*ApprovalScope)) func(*world, *Request) {
		return func(w *world, r *Request) {
			if change != nil {
				change(&scope)
			}
			r.Approvals = []*Approval{signedApproval(w, w.owner, fcp.ZoneWork, scope, w.now)}
		}
	}
	for name, c := range map[string]struct {
		reason fcp.Reason
		data   func(*Request)
		help   func(*world, *Request)
	}{
		"low input":                      {ReasonMissingElevation, low, nil},
		"low input elevated":             {ReasonAllow, low, with(elevation, nil)},
		"elevated for another operation": {ReasonMissingElevation, low, with(elevation, func(s *ApprovalScope) { s.Operation = "mail.list" })},
		"elevated not far enough":        {ReasonMissingElevation, low, with(elevation, func(s *ApprovalScope) { s.Integrity = 59 })},
		"other data elevated":            {ReasonMissingElevation, low, with(elevation, func(s *ApprovalScope) { s.Provenance = fcp.Hash{4} })},
		"approval of another kind":       {ReasonMissingElevation, low, with(execution, nil)},
		"data without a record":          {ReasonMissingElevation, func(r *Request) { low(r); r.Data.ID = fcp.Hash{} }, with(elevation, nil)},
		"secret data":                    {ReasonMissingDeclass, high, nil},
		"secret data declassified":       {ReasonAllow, high, with(declass, nil)},
		"another object declassified":    {ReasonMissingDeclass, func(r *Request) { high(r); r.Objects = []fcp.ObjectID{{1}, {3}} }, with(declass, nil)},
		"objects not named":              {ReasonMissingDeclass, func(r *Request) { high(r); r.Objects = nil }, with(declass, nil)},
		"declassified to another zone":   {ReasonMissingDeclass, high, with(declass, func(s *ApprovalScope) { s.To = fcp.ZonePublic })},
		"declassified not far enough":    {ReasonMissingDeclass, high, with(declass, func(s *ApprovalScope) { s.Confidentiality = 71 })},
		"unapproved execution":           {ReasonMissingExecution, run, nil},
		"approved execution":             {ReasonAllow, run, with(execution, nil)},
		"approved for any request":       {ReasonAllow, run, with(execution, func(s *ApprovalScope) { s.Request = fcp.ObjectID{} })},
		"another connector approved":     {ReasonExecutionScope, run, with(execution, func(s *ApprovalScope) { s.Connector = "other" })},
		"another operation approved":     {ReasonExecutionScope, run, with(execution, func(s *ApprovalScope) { s.Method = "mail.list" })},
		"another request approved":       {ReasonExecutionScope, run, with(execution, func(s *ApprovalScope) { s.Request = fcp.ObjectID{8} })},
		"another input approved":         {ReasonExecutionScope, run, with(execution, func(s *ApprovalScope) { s.InputHash = fcp.Hash{9} })},
		"another value approved":         {ReasonExecutionScope, run, with(execution, func(s *ApprovalScope) { s.Input = []InputConstraint{{"/to/0/name", fcp.RawCBOR("\x63eve")}} })},
		"a place that is not there":      {ReasonExecutionScope, run, with(execution, func(s *ApprovalScope) { s.Input = []InputConstraint{{"/to/1/name", fcp.RawCBOR("\x63bob")}} })},
		"no input":                       {ReasonExecutionScope, func(r *Request) { run(r); r.Input = nil }, with(execution, nil)},
		"approved by nobody": {ReasonApprovalInvalid, run, func(w *world, r *Request) {
			r.Approvals = []*Approval{signedApproval(w, w.device, fcp.ZoneWork, execution, w.now)}
		}},
		"approved in another zone": {ReasonApprovalZone, run, func(w *world, r *Request) {
			r.Approvals = []*Approval{signedApproval(w, w.owner, fcp.ZonePrivate, execution, w.now)}
		}},
		"approved too long ago": {ReasonApprovalExpired, run, func(w *world, r *Request) {
			r.Approvals = []*Approval{signedApproval(w, w.owner, fcp.ZoneWork, execution, w.now.Add(-time.Minute))}
		}},
		"approved too early": {ReasonApprovalExpired, run, func(w *world, r *Request) {
			r.Approvals = []*Approval{signedApproval(w, w.owner, fcp.ZoneWork, execution, w.now.Add(time.Millisecond))}
		}},
		"approval revoked": {ReasonRevokedApproval, run, func(w *world, r *Request) {
			with(execution, nil)(w, r)
			w.revokedR[r.Approvals[0].ID().Ref()] = fcp.Hash{1}
		}},
		"a bad and a good approval": {ReasonAllow, run, func(w *world, r *Request) {
			with(execution, nil)(w, r)
			r.Approvals = append([]*Approval{signedApproval(w, w.device, fcp.ZoneWork, execution, w.now)}, r.Approvals...)
		}},
		"approved by an admin": {ReasonAllow, run, func(w *world, r *Request) {
			b, err := SignDelegation(w.owner, DelegationSpec{Admin: w.device.Public().Signing, Actions: []Action{ActionApprove}, Zones: Patterns{"z:work"}, From: w.now, Until: w.now.Add(time.Hour)})
			must(w.t, b, err)
			d, err := VerifyDelegation(w.owner.Public(), b)
			w.auth.Add(must(w.t, d, err))
			r.Approvals = []*Approval{signedApproval(w, w.device, fcp.ZoneWork, execution, w.now)}
		}},
		"an unverified link": {ReasonUnverifiedLink, link, nil},
		"a sanitized link": {ReasonAllow, link, func(w *world, r *Request) {
			w.clear = UnverifiedLink
			r.Sanitized = []*SanitizerReceipt{signedReceipt(w, receipt)}
		}},
		"a sanitizer without right": {ReasonSanitizerInvalid, link, func(w *world, r *Request) { r.Sanitized = []*SanitizerReceipt{signedReceipt(w, receipt)} }},
		"a sanitizer that clears too much": {ReasonSanitizerInvalid, link, func(w *world, r *Request) {
			s := receipt
			s.Authorized, w.clear = PublicInput, UnverifiedLink
			r.Sanitized = []*SanitizerReceipt{signedReceipt(w, s)}
		}},
		"another input sanitized": {ReasonSanitizerCoverage, link, func(w *world, r *Request) {
			s := receipt
			s.Covered, w.clear = []string{"input-2"}, UnverifiedLink
			r.Sanitized = []*SanitizerReceipt{signedReceipt(w, s)}
		}},
		"sanitized in another zone": {ReasonSanitizerInvalid, link, func(w *world, r *Request) {
			s := receipt
			s.Zone, w.clear = fcp.ZonePrivate, UnverifiedLink
			r.Sanitized = []*SanitizerReceipt{signedReceipt(w, s)}
		}},
		"public input, safe":           {ReasonAllow, func(r *Request) { r.Data.Taint = PublicInput }, nil},
		"public input, dangerous":      {ReasonPublicInput, func(r *Request) { r.Data.Taint, r.Tier = PublicInput, TierDangerous }, nil},
		"malicious input, risky":       {ReasonMalicious, func(r *Request) { r.Data.Taint, r.Tier = PotentiallyMalicious, TierRisky }, nil},
		"malicious input, critical":    {ReasonMalicious, func(r *Request) { r.Data.Taint, r.Tier = PotentiallyMalicious, TierCritical }, nil},
		"unapproved crossing":          {ReasonCrossZone, func(r *Request) { r.Data.Taint, r.Tier = CrossZoneUnapproved, TierDangerous }, nil},
		"written by a machine, risky":  {ReasonAllow, func(r *Request) { r.Data.Taint, r.Tier = AIGenerated|UserGenerated|WebhookInjected, TierRisky }, nil},
		"low and dangerous, elevated":  {ReasonAllow, func(r *Request) { low(r); r.Tier = TierDangerous }, with(elevation, nil)},
		"flow forbidden by the policy": {ReasonCrossZone, func(r *Request) { high(r) }, with(declass, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, r := w.usual(1)
			c.data(r)
			if c.help != nil {
				c.help(w, r)
			}
			f := w.facts()
			if name == "flow forbidden by the policy" {
				f.Policy.FlowRules = []FlowRule{{"z:private", "*", true}}
			}
			d := Decide(f, w.prove(r))
			wantDecision(t, d, c.reason)
			if d.Allowed() && len(r.Approvals)+len(r.Sanitized) > 0 && len(d.Evidence) == 0 {
				t.Error("no evidence")
			}
			if d.Approval != nil { // what a denial proposes must cure it
				a := signedApproval(w, w.owner, d.Approval.Zone, d.Approval.Scope, d.Approval.IssuedAt)
				r.Approvals = append(r.Approvals, a)
				wantDecision(t, Decide(f, r), ReasonAllow)
			}
		})
	}
}

// TestSmallestGrantCuresAndIsSmallest follows each denial that proposes a grant:
// granted and minted as proposed the request passes, and with anything taken away
// it does not.
func TestSmallestGrantCuresAndIsSmallest(t *testing.T) {
	for name, change := range map[string]func(*world, *Request){
		"no token":            func(w *world, r *Request) { r.Token = nil },
		"another operation":   func(w *world, r *Request) { r.Operation = "mail.list" },
		"another capability":  func(w *world, r *Request) { r.Capability = "mail.send" },
		"another resource":    func(w *world, r *Request) { r.Resource = "mail://sent/1" },
		"a credential":        func(w *world, r *Request) { r.Credential = CredentialID{1} },
		"a key and its bytes": func(w *world, r *Request) { r.IdempotencyKey, r.Bytes, r.Operation = "k1", 17, "mail.list" },
		"another instance":    func(w *world, r *Request) { r.Instance = "mail-2" },
		"another connector":   func(w *world, r *Request) { r.Connector = "fcp.files:operational:1.0.0" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, r := w.usual(1)
			change(w, r)
			f := w.facts()
			denied := Decide(f, w.prove(r))
			if denied.Allowed() || denied.Smallest == nil {
				t.Fatalf("%s proposes nothing", denied.Reason)
			}
			try := func(s GrantSpec) Decision {
				g := w.grant(s)
				spec := w.tokenSpec(g)
				spec.Audience, spec.Instance, spec.Rights, spec.Constraints = r.Connector, r.Instance, s.Rights, s.Constraints
				again := *r
				again.Token = w.mintChain(spec)
				return Decide(f, w.prove(&again))
			}
			wantDecision(t, try(*denied.Smallest), ReasonAllow)
			for what, narrow := range map[string]func(*GrantSpec){
				"resource":   func(s *GrantSpec) { s.Constraints.ResourceAllow = []string{s.Constraints.ResourceAllow[0] + "x"} },
				"denial":     func(s *GrantSpec) { s.Constraints.ResourceDeny = []string{r.Resource} },
				"credential": func(s *GrantSpec) { s.Constraints.CredentialAllow = nil },
				"bytes":      func(s *GrantSpec) { s.Constraints.MaxBytes-- },
				"operation":  func(s *GrantSpec) { s.Rights = []Right{{r.Capability, "other"}} },
				"time": func(s *GrantSpec) {
					s.NotAfter = s.NotBefore.Add(-time.Second)
					s.NotBefore = s.NotAfter.Add(-time.Second)
				},
				"placement": func(s *GrantSpec) { s.Placement.Excluded = []fcp.WriterID{w.node.Writer()} },
			} {
				if what == "credential" && r.Credential == (CredentialID{}) || what == "bytes" && r.Bytes == 0 {
					continue
				}
				s := *denied.Smallest
				narrow(&s)
				if d := try(s); d.Allowed() {
					t.Errorf("a grant with less %s passes, too", what)
				}
			}
		})
	}
}

func TestDecisionReceipts(t *testing.T) {
	w := newWorld(t)
	_, r := w.usual(1)
	for _, tier := range []Tier{TierSafe, TierRisky, TierDangerous, TierCritical} {
		for _, deny := range []bool{false, true} {
			x := *r
			x.Tier = tier
			if deny {
				x.Resource = "mail://sent/1"
			}
			d := Decide(w.facts(), w.prove(&x))
			equal(t, d.Allowed(), !deny)
			equal(t, d.NeedsReceipt(tier), deny && tier != TierSafe)
			b, err := SignDecision(w.now, w.node, &x, &d)
			got, err2 := VerifyDecision(w.node.Public().Signing, must(t, b, err))
			must(t, got, err2)
			if got.Allowed() == deny || got.Reason() != d.Reason || fmt.Sprint(got.Evidence()) != fmt.Sprint(d.Evidence) || got.Request() != x.ID ||
				got.Zone() != x.Zone || !got.DecidedAt().Equal(w.now) || got.Node() != w.node.Writer() {
				t.Errorf("%+v of %+v", got, d)
			}
			if _, err := VerifyDecision(w.device.Public().Signing, b); fcp.CodeOf(err) != fcp.CodeWrongKey {
				t.Errorf("another node: %v", err)
			}
			if _, err := SignDecision(w.now, w.node, r, &d); deny && fcp.CodeOf(err) != fcp.CodeInvalidArgument {
				t.Errorf("a decision about another request: %v", err)
			}
		}
	}
}

func TestProofsThatProveNothing(t *testing.T) {
	w := newWorld(t)
	c, r := w.usual(2)
	sig := w.holders[1].Prove(testChallenge, c.Leaf(), r.Hash())
	other := *r
	other.Resource += "1"
	for name, err := range map[string]error{
		"no challenge":      err1(VerifyProof(c, Challenge{}, r.Hash(), sig)),
		"zero challenge":    err1(VerifyProof(c, Challenge{Kind: ChallengeNonce}, r.Hash(), sig)),
		"another challenge": err1(VerifyProof(c, Challenge{ChallengeNonce, [32]byte{9}}, r.Hash(), sig)),
		"another kind":      err1(VerifyProof(c, Challenge{ChallengeExporter, testChallenge.Value}, r.Hash(), sig)),
		"another request":   err1(VerifyProof(c, testChallenge, other.Hash(), sig)),
		"the parent":        err1(VerifyProof(mustChain(t, c.b[0]), testChallenge, r.Hash(), sig)),
		"the first holder":  err1(VerifyProof(c, testChallenge, r.Hash(), w.holders[0].Prove(testChallenge, c.Leaf(), r.Hash()))),
		"no signature":      err1(VerifyProof(c, testChallenge, r.Hash(), nil)),
	} {
		if ReasonOf(err) != ReasonProof {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretAccess(t *testing.T) {
	w := newWorld(t)
	b := tokenSamples(t, w)["secret access token"].b
	s, err := VerifySecretAccess(&w.auth, b)
	must(t, s, err)
	node, request, secret := w.node.Writer(), fcp.Hash{5}, SecretID{1}
	for name, c := range map[string]struct {
		reason fcp.Reason
		err    error
	}{
		"as meant":        {"", s.Permits(node, request, secret, w.now, w)},
		"another node":    {ReasonHolder, s.Permits(w.device.Writer(), request, secret, w.now, w)},
		"another request": {ReasonProofOther, s.Permits(node, fcp.Hash{6}, secret, w.now, w)},
		"another secret":  {ReasonCredential, s.Permits(node, request, SecretID{2}, w.now, w)},
		"too early":       {ReasonTokenEarly, s.Permits(node, request, secret, w.now.Add(-TokenSkew-time.Second), w)},
		"too late":        {ReasonTokenExpired, s.Permits(node, request, secret, w.now.Add(time.Minute+TokenSkew), w)},
		"nothing known":   {ReasonRevokedToken, s.Permits(node, request, secret, w.now, nil)},
	} {
		if ReasonOf(c.err) != c.reason || (c.err == nil) != (c.reason == "") {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	w.revokedR[s.ID().Ref()] = fcp.Hash{1}
	if err := s.Permits(node, request, secret, w.now, w); ReasonOf(err) != ReasonRevokedToken {
		t.Errorf("revoked: %v", err)
	}
	if _, err := VerifySecretAccess(&Authorities{Owner: testOwner(t, 9).Public()}, b); ReasonOf(err) != ReasonNotOwner {
		t.Errorf("of another owner: %v", err)
	}
}

func TestCredentialHosts(t *testing.T) {
	c := CredentialObject{HostAllow: []string{"api.example.org", "*.example.net"}}
	for host, want := range map[string]bool{"api.example.org": true, "API.Example.ORG": true, "example.org": false, "x.api.example.org": false,
		"a.example.net": true, "a.b.example.net": true, "example.net": false, "evilexample.net": false, ".example.net": false, "": false} {
		if got := c.AllowsHost(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
	equal(t, (&CredentialObject{}).AllowsHost("anything"), true)
	equal(t, (&CredentialObject{ExpiresAt: 100}).Expired(time.Unix(100, 0)), true)
	equal(t, (&CredentialObject{ExpiresAt: 100}).Expired(time.Unix(99, 0)), false)
}
