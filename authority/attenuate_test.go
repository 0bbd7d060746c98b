package authority

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"fcp"
)

// The oracle below is written without looking at the containment code: it lists
// concrete uses over a small universe and asks of each what a scope says, by the
// words of spec/wire.md section 15 alone.

// oracleLength is that of the longest prefix that is drawn.
const oracleLength = 3

var (
	oracleCapabilities = []fcp.CanonicalID{"a", "b"}
	oracleOperations   = []string{"x", "y", "never-named"}
	oracleResources    = oracleStrings(oracleLength)
	oracleCredentials  = []CredentialID{{}, {1}, {2}}
	oracleKeys         = []string{"", "k1", "k2", "never-named"}
	oracleNumbers      = []uint64{1, 2, 3, 1 << 40}
)

// oracleStrings returns every string over {p, q} of 1 to n characters, each also
// followed by a character that occurs in no prefix, and that character alone.
func oracleStrings(n int) []string {
	out := []string{"z"}
	level := []string{""}
	for range n {
		var next []string
		for _, s := range level {
			next = append(next, s+"p", s+"q")
		}
		for _, s := range next {
			out = append(out, s, s+"z")
		}
		level = next
	}
	return out
}

type oracleUse struct {
	capability   fcp.CanonicalID
	operation    string
	resource     string
	credential   CredentialID
	key          string
	calls, bytes uint64
}

func oracleNamed(s scope, u oracleUse) bool {
	for _, r := range s.rights {
		if r.Capability == u.capability && (r.Operation == "*" || r.Operation == u.operation) {
			return true
		}
	}
	return false
}

func oracleWithin(s scope, u oracleUse) bool {
	begins := func(with string) bool {
		return with == "*" || len(u.resource) >= len(with) && u.resource[:len(with)] == with
	}
	return slices.ContainsFunc(s.constraints.ResourceAllow, begins) && !slices.ContainsFunc(s.constraints.ResourceDeny, begins)
}

func oracleWith(s scope, u oracleUse) bool {
	return (u.credential == CredentialID{} || slices.Contains(s.constraints.CredentialAllow, u.credential)) &&
		(s.constraints.IdempotencyKey == "" || u.key == s.constraints.IdempotencyKey)
}

func oracleCounts(s scope, u oracleUse) bool {
	return (s.constraints.MaxCalls == 0 || u.calls <= uint64(s.constraints.MaxCalls)) && (s.constraints.MaxBytes == 0 || u.bytes <= s.constraints.MaxBytes)
}

// oraclePermits answers for one use and one scope.
func oraclePermits(s scope, u oracleUse) bool {
	return oracleNamed(s, u) && oracleWithin(s, u) && oracleWith(s, u) && oracleCounts(s, u)
}

// oracleUses calls try for every use of the universe that a scope permits, until
// try returns false.
func oracleUses(s scope, try func(oracleUse) bool) {
	var u oracleUse
	for _, u.capability = range oracleCapabilities {
		for _, u.operation = range oracleOperations {
			if !oracleNamed(s, u) {
				continue
			}
			for _, u.resource = range oracleResources {
				if !oracleWithin(s, u) {
					continue
				}
				for _, u.credential = range oracleCredentials {
					for _, u.key = range oracleKeys {
						if !oracleWith(s, u) {
							continue
						}
						for _, u.calls = range oracleNumbers {
							for _, u.bytes = range oracleNumbers {
								if oracleCounts(s, u) && !try(u) {
									return
								}
							}
						}
					}
				}
			}
		}
	}
}

// oracleWider looks for a use that child permits and none of parents does.
func oracleWider(child scope, parents []scope) (wider oracleUse, found bool) {
	oracleUses(child, func(u oracleUse) bool {
		for _, p := range parents {
			if oraclePermits(p, u) {
				return true
			}
		}
		wider, found = u, true
		return false
	})
	return wider, found
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// randomScope draws a scope from the small universe; near gives the one it is to
// be like, or nil.
func randomScope(r *rand.Rand, near *scope) scope {
	if near != nil && r.IntN(4) > 0 {
		return mutateScope(r, *near)
	}
	var s scope
	for range 1 + r.IntN(3) {
		right := Right{pick(r, oracleCapabilities), pick(r, []string{"x", "y", "*"})}
		if !slices.Contains(s.rights, right) {
			s.rights = append(s.rights, right)
		}
	}
	c := &s.constraints
	for range 1 + r.IntN(2) {
		c.ResourceAllow = append(c.ResourceAllow, randomPrefix(r))
	}
	for range r.IntN(3) {
		c.ResourceDeny = append(c.ResourceDeny, randomPrefix(r))
	}
	c.MaxCalls = pick(r, []uint32{0, 0, 1, 2, 3})
	c.MaxBytes = pick(r, []uint64{0, 0, 1, 2, 3})
	c.IdempotencyKey = pick(r, []string{"", "", "", "k1", "k2"})
	for _, id := range oracleCredentials[1:] {
		if r.IntN(2) == 0 {
			c.CredentialAllow = append(c.CredentialAllow, id)
		}
	}
	return s
}

func randomPrefix(r *rand.Rand) string {
	if r.IntN(6) == 0 {
		return "*"
	}
	var b strings.Builder
	for range 1 + r.IntN(2) {
		b.WriteByte("pq"[r.IntN(2)])
	}
	return b.String()
}

// mutateScope changes one or two things, usually narrowing.
func mutateScope(r *rand.Rand, s scope) scope {
	s.rights = slices.Clone(s.rights)
	c := &s.constraints
	c.ResourceAllow, c.ResourceDeny, c.CredentialAllow = slices.Clone(c.ResourceAllow), slices.Clone(c.ResourceDeny), slices.Clone(c.CredentialAllow)
	for range 1 + r.IntN(2) {
		switch r.IntN(9) {
		case 0:
			c.ResourceDeny = append(c.ResourceDeny, randomPrefix(r))
		case 1:
			if len(c.ResourceDeny) > 0 {
				c.ResourceDeny = c.ResourceDeny[1:]
			}
		case 2:
			i := r.IntN(len(c.ResourceAllow))
			if c.ResourceAllow[i] == "*" {
				c.ResourceAllow[i] = ""
			}
			if len(c.ResourceAllow[i]) < oracleLength {
				c.ResourceAllow[i] += string("pq"[r.IntN(2)])
			}
		case 3:
			if len(s.rights) > 1 {
				s.rights = s.rights[1:]
			}
		case 4:
			i := r.IntN(len(s.rights))
			right := Right{s.rights[i].Capability, pick(r, []string{"x", "y", "*"})}
			if !slices.Contains(s.rights, right) {
				s.rights[i] = right
			}
		case 5:
			c.MaxCalls = pick(r, []uint32{0, 1, 2, 3})
		case 6:
			c.MaxBytes = pick(r, []uint64{0, 1, 2, 3})
		case 7:
			c.IdempotencyKey = pick(r, []string{"", "k1", "k2"})
		case 8:
			if len(c.CredentialAllow) > 0 {
				c.CredentialAllow = c.CredentialAllow[1:]
			}
		}
	}
	return s
}

func long() bool { return os.Getenv("FCP_LONG") != "" }

// TestNoChildIsWiderThanItsParent walks random chains: a first token in the union
// of some grants, then children. Whatever the containment code accepts the oracle
// must find no wider use in, and whatever it refuses must have one: the rule is
// exact. A million chains with FCP_LONG.
func TestNoChildIsWiderThanItsParent(t *testing.T) {
	chains := 10_000
	if long() {
		chains = 1_000_000
	}
	const workers = 2
	for part := range workers {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(uint64(part), 20260304))
			links, accepted := 0, 0
			for i := part; i < chains && !t.Failed(); i += workers {
				parents := []scope{randomScope(r, nil)}
				for range r.IntN(3) {
					parents = append(parents, randomScope(r, &parents[0]))
				}
				for range 1 + r.IntN(3) {
					child := randomScope(r, &parents[r.IntN(len(parents))])
					links++
					if checkAgainstOracle(t, child, parents) {
						accepted++
						parents = []scope{child}
					}
				}
			}
			if accepted < links/20 || accepted > links*19/20 {
				t.Errorf("%d of %d links were accepted: the test sees one side only", accepted, links)
			}
			t.Logf("%d links, %d accepted", links, accepted)
		})
	}
}

func checkAgainstOracle(t *testing.T, child scope, parents []scope) (accepted bool) {
	refs := make([]*scope, len(parents))
	for i := range parents {
		refs[i] = &parents[i]
	}
	p, ok := contained(&child, refs)
	wider, found := oracleWider(child, parents)
	if ok == found {
		t.Errorf("contained says %v (%+v), the oracle %v (%+v)\nchild   %+v\nparents %+v", ok, p, !found, wider, child, parents)
	}
	return ok
}

// TestDecideAgreesWithTheOracle signs chains without looking at what they permit
// and asks Decide for concrete uses: it permits exactly those that the last token
// permits, when every token lies within what is above it.
func TestDecideAgreesWithTheOracle(t *testing.T) {
	chains := 150
	if long() {
		chains = 20_000
	}
	r := rand.New(rand.NewPCG(7, 20260304))
	w := newWorld(t)
	w.bind(BindingSpec{Principal: testPrincipal, Devices: []fcp.WriterID{w.device.Writer()}, Zones: []fcp.ZoneID{fcp.ZoneWork},
		Capabilities: Patterns{"*"}, NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(time.Hour)})
	permitted, refused := 0, 0
	for range chains {
		clear(w.grants)
		above := []scope{randomScope(r, nil)}
		for range r.IntN(2) {
			above = append(above, randomScope(r, &above[0]))
		}
		var grants []*Grant
		for _, s := range above {
			spec := w.grantSpec()
			spec.Rights, spec.Constraints = s.rights, s.constraints
			if g := w.grant(spec); !slices.Contains(grants, g) && len(w.grants) > len(grants) {
				grants = append(grants, g)
			}
		}
		leaf := randomScope(r, &above[0])
		_, wider := oracleWider(leaf, above)
		spec := w.tokenSpec(grants...)
		spec.Rights, spec.Constraints = leaf.rights, leaf.constraints
		chain := w.mintChain(spec)
		for range r.IntN(3) {
			child := randomScope(r, &leaf)
			_, more := oracleWider(child, []scope{leaf})
			wider, leaf = wider || more, child
			chain = w.forge(chain, func(c *claims) { c.rights, c.constraints = child.rights, child.constraints })
		}
		f := w.facts()
		f.Cache = NewLinkCache(100)
		for range 4 {
			u := oracleUse{pick(r, oracleCapabilities), pick(r, oracleOperations), pick(r, oracleResources), pick(r, oracleCredentials), pick(r, oracleKeys), 1, pick(r, oracleNumbers)}
			if r.IntN(2) == 0 { // one that the last token itself permits
				n := 0
				oracleUses(leaf, func(x oracleUse) bool {
					if n++; x.calls == 1 && r.IntN(n) == 0 {
						u = x
					}
					return true
				})
			}
			req := w.request(chain)
			req.Capability, req.Operation, req.Resource = u.capability, fcp.CanonicalID(u.operation), u.resource
			req.Credential, req.IdempotencyKey, req.Bytes = u.credential, u.key, u.bytes
			d := Decide(f, w.prove(req))
			if want := !wider && oraclePermits(leaf, u); d.Allowed() != want {
				t.Fatalf("Decide says %v %s %s, the oracle %v\nuse %+v\nleaf %+v\nabove %+v", d.Allowed(), d.Reason, d.Detail, want, u, leaf, above)
			} else if want {
				permitted++
			} else {
				refused++
			}
		}
	}
	if permitted < chains/20 || refused < chains/20 {
		t.Errorf("%d permitted, %d refused: the test sees one side only", permitted, refused)
	}
}
