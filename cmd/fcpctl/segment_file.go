package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

// segmentFileView is a segment that was exported or taken in, as JSON.
type segmentFileView struct {
	Segment string     `json:"segment"`
	Zone    fcp.ZoneID `json:"zone"`
	Plane   string     `json:"plane"`
	First   uint64     `json:"first"`
	Last    uint64     `json:"last"`
	Bytes   int        `json:"bytes"` // of the file
	Taken   bool       `json:"taken"` // false: it was here already
}

func (a *app) segmentFileCommands() []*cobra.Command {
	return []*cobra.Command{a.segmentExportCommand(), a.segmentImportCommand()}
}

func (a *app) segmentExportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export SEGMENT FILE", Short: "Write one segment into a file that another member can take in", Args: args(2, 2),
		Long: `export writes the ciphertext of a segment, its card, what members know of it and
the salts of its bodies. Only members of the zone can read the events inside. SEGMENT
is a number or the first hex digits of an id; FILE must not exist, - is stdout.`,
		ValidArgsFunction: a.completeSegments,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
				s, err := findSegment(e, args[0])
				if err != nil {
					return err
				}
				b, err := e.ExportSegment(s)
				if err != nil {
					return err
				}
				if args[1] == "-" {
					_, err := a.out.Write(b)
					return err
				}
				if err := writeNewFile(args[1], b); err != nil {
					return inputError(err, "the segment file")
				}
				r := &s.Remainder
				v := segmentFileView{s.Card.Segment.String(), r.Zone, fcp.Plane(r.Plane).String(), r.First, r.Last, len(b), false}
				return a.answer("SegmentFile", e.Position(), v, v.Segment, field{"segment", v.Segment}, field{"file", args[1]}, field{"bytes", decimal(uint64(v.Bytes))})
			})
		},
	}
}

// writeNewFile writes a file that must not be there yet, synced.
func writeNewFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func (a *app) segmentImportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "import FILE", Short: "Take in a segment that another member exported", Args: args(1, 1),
		Long: `import checks a segment file as a restore does (ciphertext, card, frames, chain,
Merkle root) and takes it in when it is the next segment of a feed of another member.
A segment that is here already is compared. - is stdin.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.readInput(args[0], engine.MaxSegmentFile, "the segment file")
			if err != nil {
				return err
			}
			return a.withStore(cmd.Context(), writing, func(e *engine.Engine) error {
				r, taken, err := e.ImportSegment(cmd.Context(), b)
				if err != nil {
					return err
				}
				v := segmentFileView{fcp.SegmentID(r.Segment).String(), r.Zone, fcp.Plane(r.Plane).String(), r.First, r.Last, len(b), taken}
				word := "taken in"
				if !taken {
					word = "was here already, whole"
				}
				asOf := e.Log().Durable()
				return a.answer("SegmentFile", asOf, v, v.Segment, field{"segment", v.Segment}, field{"result", word})
			})
		},
	}
}
