// Command fcp-responder answers the requests of the conformance runner on its
// standard input with this product. conformance/README.md has the protocol.
package main

import (
	"fmt"
	"os"

	"fcp/conformance/internal/respond"
)

func main() {
	if err := respond.Serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fcp-responder:", err)
		os.Exit(1)
	}
}
