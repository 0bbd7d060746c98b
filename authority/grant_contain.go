package authority

import (
	"encoding/hex"

	"fcp"
)

// point is one concrete use as far as scopes tell uses apart.
type point struct {
	capability fcp.CanonicalID
	operation  string
	resource   string
	credential CredentialID // zero for none
	key        string       // idempotency key, "" for none
	calls      uint64       // this is call number calls
	bytes      uint64       // and byte number bytes of what the scope permits
}

// unlimited is the number that stands for every number without a limit.
const unlimited = 1<<64 - 1

// allows reports whether the scope permits the use.
func (s *scope) allows(p *point) bool {
	return s.allowsButResource(p) && s.constraints.allowsResource(p.resource)
}

func (s *scope) allowsButResource(p *point) bool {
	c := &s.constraints
	if p.calls > limit(uint64(c.MaxCalls)) || p.bytes > limit(c.MaxBytes) ||
		c.IdempotencyKey != "" && c.IdempotencyKey != p.key || !c.allowsCredential(p.credential) {
		return false
	}
	for _, r := range s.rights {
		if r.covers(p.capability, p.operation) {
			return true
		}
	}
	return false
}

func limit(n uint64) uint64 {
	if n == 0 {
		return unlimited
	}
	return n
}

// contained reports whether every use that child permits is permitted by one of
// parents, and otherwise returns a use that is not.
//
// It is exact. Scopes tell operations apart only by name, so one name that
// nobody gives stands for all others. Prefixes cut the resources into classes:
// with each string go the resources that begin with it and with no longer prefix
// that occurs, and the string itself is one of them. Limits and keys are widest
// at the child's own. So it is enough to try these finitely many uses.
func contained(child *scope, parents []*scope) (uncovered point, ok bool) {
	resources := witnessResources(child, parents)
	permits := make([][]bool, len(parents)) // by parent and resource
	for i, p := range parents {
		permits[i] = make([]bool, len(resources))
		for j, r := range resources {
			permits[i][j] = p.constraints.allowsResource(r)
		}
	}
	c := &child.constraints
	credentials := append([]CredentialID{{}}, c.CredentialAllow...)
	use := point{key: c.IdempotencyKey, calls: limit(uint64(c.MaxCalls)), bytes: limit(c.MaxBytes)}
	able := make([]int, 0, len(parents))
	for _, right := range child.rights {
		use.capability = right.Capability
		for _, use.operation = range witnessOperations(right, parents) {
			for _, use.credential = range credentials {
				able = able[:0]
				for i, p := range parents {
					if p.allowsButResource(&use) {
						able = append(able, i)
					}
				}
				for j, r := range resources {
					if c.allowsResource(r) && !anyPermits(permits, able, j) {
						use.resource = r
						return use, false
					}
				}
			}
		}
	}
	return point{}, true
}

func anyPermits(permits [][]bool, able []int, resource int) bool {
	for _, i := range able {
		if permits[i][resource] {
			return true
		}
	}
	return false
}

// witnessOperations returns the operations that tell whether a right is covered.
// The wildcard itself stands for an operation that nobody names.
func witnessOperations(r Right, parents []*scope) []string {
	ops := []string{r.Operation}
	if r.Operation != AnyOperation {
		return ops
	}
	for _, p := range parents {
		for _, other := range p.rights {
			if other.Capability == r.Capability && !contains(ops, other.Operation) {
				ops = append(ops, other.Operation)
			}
		}
	}
	return ops
}

// witnessResources returns one resource of each class, see contained.
func witnessResources(child *scope, parents []*scope) []string {
	var out []string
	add := func(list []string) {
		for _, p := range list {
			if p == AnyResource {
				p = ""
			}
			if !contains(out, p) {
				out = append(out, p)
			}
		}
	}
	add(child.constraints.ResourceAllow)
	add(child.constraints.ResourceDeny)
	for _, p := range parents {
		add(p.constraints.ResourceAllow)
		add(p.constraints.ResourceDeny)
	}
	return out
}

// String names the use for a person.
func (p *point) String() string {
	s := string(p.capability) + " " + p.operation
	if p.resource != "" {
		s += " on " + p.resource
	}
	if p.credential != (CredentialID{}) {
		s += " with credential " + hex.EncodeToString(p.credential[:])
	}
	return s
}
