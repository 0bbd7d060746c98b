package node

import (
	"sync"
	"time"

	"fcp"
)

// Budget bounds what one peer may cost within a minute (spec/wire.md section 16).
// The zero value of a field is the default.
type Budget struct {
	Bytes      uint64        // sent to it in symbols
	Symbols    uint64        // likewise
	FailedAuth uint64        // datagrams that do not authenticate
	Decodes    int           // shares it may have us take in at once
	CPU        time.Duration // spent making symbols for it, and deciding what it asks for
	Asks       uint64        // decided for it: votes, coordination and shares of secrets
}

// DefaultBudget is the published default of the reference for bytes and symbols,
// scaled for a mesh of one owner's devices, whose backups are large.
func DefaultBudget() Budget {
	return Budget{Bytes: 16 << 30, Symbols: 16 << 20, FailedAuth: 1000, Decodes: 32, CPU: 30 * time.Second, Asks: 600}
}

// ReferenceBudget is the published default of the reference.
func ReferenceBudget() Budget {
	return Budget{Bytes: 64 << 20, Symbols: 200_000, FailedAuth: 100, Decodes: 32, CPU: 5 * time.Second, Asks: 600}
}

func (b Budget) withDefaults() Budget {
	d := DefaultBudget()
	if b.Bytes == 0 {
		b.Bytes = d.Bytes
	}
	if b.Symbols == 0 {
		b.Symbols = d.Symbols
	}
	if b.FailedAuth == 0 {
		b.FailedAuth = d.FailedAuth
	}
	if b.Decodes == 0 {
		b.Decodes = d.Decodes
	}
	if b.CPU == 0 {
		b.CPU = d.CPU
	}
	if b.Asks == 0 {
		b.Asks = d.Asks
	}
	return b
}

// budgetWindow is the length of the fixed window of a budget.
const budgetWindow = time.Minute

// budget counts what a peer cost in the present window.
type budget struct {
	now   func() time.Time
	limit Budget

	mu      sync.Mutex
	since   time.Time // guarded by mu
	spent   Budget    // of the window; Decodes: open now; guarded by mu
	serving int       // requests now; guarded by mu
	asking  int       // asks now; guarded by mu
}

func newBudget(now func() time.Time, limit Budget) *budget {
	return &budget{now: now, limit: limit.withDefaults(), since: now()}
}

// budgetOf returns the budget of a peer, one for all its sessions: a new session
// gives nothing back. Only enrolled nodes get so far, so they are few.
func (n *Node) budgetOf(peer fcp.WriterID) *budget {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.budgets[peer]
	if b == nil {
		b = newBudget(n.now, n.opt.Budget)
		n.budgets[peer] = b
	}
	return b
}

// rollLocked begins a new window when the present one is over.
func (b *budget) rollLocked() {
	if now := b.now(); now.Sub(b.since) >= budgetWindow {
		open := b.spent.Decodes
		b.since, b.spent = now, Budget{Decodes: open}
	}
}

func (b *budget) failedAuth() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rollLocked()
	b.spent.FailedAuth++
}

func errBudget(what string) error {
	return fcp.Errorf(fcp.CodeExhausted, "a peer's budget of %s", what)
}

// serve begins a request; done ends it.
func (b *budget) serve() (done func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rollLocked()
	switch {
	case b.serving >= maxServing:
		return nil, errBudget("requests at once")
	case b.spent.CPU >= b.limit.CPU:
		return nil, errBudget("processor time")
	case b.spent.FailedAuth > b.limit.FailedAuth:
		return nil, errBudget("failed authentication")
	}
	b.serving++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.serving--
	}, nil
}

// ask begins to decide what the peer asks for; done ends it. Symbols that are made for it
// meanwhile are not in the way: a vote on a lease does not wait for a rebuild.
func (b *budget) ask() (done func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rollLocked()
	switch {
	case b.asking >= maxServing:
		return nil, errBudget("asks at once")
	case b.spent.Asks >= b.limit.Asks:
		return nil, errBudget("asks")
	}
	b.asking++
	b.spent.Asks++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.asking--
	}, nil
}

// symbols takes n symbols of size bytes from the budget; fewer may be granted.
func (b *budget) symbols(n, size int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rollLocked()
	left := min(b.limit.Symbols-min(b.spent.Symbols, b.limit.Symbols), (b.limit.Bytes-min(b.spent.Bytes, b.limit.Bytes))/uint64(size))
	n = int(min(uint64(n), left))
	b.spent.Symbols += uint64(n)
	b.spent.Bytes += uint64(n * size)
	return n
}

// cpu adds processor time.
func (b *budget) cpu(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent.CPU += d
}

// decode begins taking a share in; done ends it.
func (b *budget) decode() (done func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent.Decodes >= b.limit.Decodes {
		return nil, errBudget("decodes at once")
	}
	b.spent.Decodes++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.spent.Decodes--
	}, nil
}
