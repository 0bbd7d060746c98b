package authority

import (
	"fmt"
	"io"
	"log/slog"

	"fcp"
)

// KeySize is the length in bytes of every raw key of this package.
const KeySize = 32

const redactedText = "[redacted]"

// redacted is embedded in every type that leads to a secret. It makes each fmt
// verb and slog print "[redacted]" and each encoder fail. fmt cannot call methods
// on a value in somebody's unexported field and then prints by reflection, for a
// verb that does not fit even through pointers; so the secret itself always sits
// behind a func (see hide), which every printer shows as an address.
type redacted struct{}

// hide returns a func that returns v, for the unexported field of a key type.
func hide[T any](v *T) func() *T { return func() *T { return v } }

var errMarshalKey = fcp.Errorf(fcp.CodeInternal, "a key type was given to an encoder")

// Format prints "[redacted]" for every verb and flag.
func (redacted) Format(f fmt.State, _ rune) { io.WriteString(f, redactedText) }

// String returns "[redacted]".
func (redacted) String() string { return redactedText }

// GoString returns "[redacted]".
func (redacted) GoString() string { return redactedText }

// LogValue returns "[redacted]".
func (redacted) LogValue() slog.Value { return slog.StringValue(redactedText) }

// MarshalJSON always fails.
func (redacted) MarshalJSON() ([]byte, error) { return nil, errMarshalKey }

// MarshalText always fails.
func (redacted) MarshalText() ([]byte, error) { return nil, errMarshalKey }

// MarshalBinary always fails.
func (redacted) MarshalBinary() ([]byte, error) { return nil, errMarshalKey }

// MarshalCBOR always fails.
func (redacted) MarshalCBOR() ([]byte, error) { return nil, errMarshalKey }

// GobEncode always fails.
func (redacted) GobEncode() ([]byte, error) { return nil, errMarshalKey }

// readKey fills a new key from rand.
func readKey(rand io.Reader) (*[KeySize]byte, error) {
	k := new([KeySize]byte)
	if _, err := io.ReadFull(rand, k[:]); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a key")
	}
	return k, nil
}
