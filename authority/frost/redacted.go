package frost

import (
	"fmt"
	"io"
	"log/slog"

	"fcp"
)

// redacted makes each fmt verb and slog print "[redacted]" and each encoder fail,
// as in package authority. The secrets sit behind funcs, which printers show as
// addresses.
type redacted struct{}

const redactedText = "[redacted]"

var errMarshal = fcp.Errorf(fcp.CodeInternal, "a share or nonces were given to an encoder")

// Format prints "[redacted]" for every verb and flag.
func (redacted) Format(f fmt.State, _ rune) { io.WriteString(f, redactedText) }

// String returns "[redacted]".
func (redacted) String() string { return redactedText }

// LogValue returns "[redacted]".
func (redacted) LogValue() slog.Value { return slog.StringValue(redactedText) }

// MarshalText always fails.
func (redacted) MarshalText() ([]byte, error) { return nil, errMarshal }

// MarshalJSON always fails.
func (redacted) MarshalJSON() ([]byte, error) { return nil, errMarshal }

// MarshalBinary always fails.
func (redacted) MarshalBinary() ([]byte, error) { return nil, errMarshal }
