package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"fcp"
	"fcp/authority"
	"fcp/authority/keystore"
	"fcp/engine"
)

// paperView is what was put on paper, as JSON.
type paperView struct {
	Name      string   `json:"name"`
	Set       string   `json:"set,omitempty"` // shares of one set go together
	Threshold int      `json:"threshold"`
	Files     []string `json:"files"`
	DryRun    bool     `json:"dry_run,omitempty"`
}

// parseShares reads K-of-N.
func parseShares(s string) (k, n int, err error) {
	if c, _ := fmt.Sscanf(s, "%d-of-%d", &k, &n); c != 2 || fmt.Sprintf("%d-of-%d", k, n) != s || k < 1 || k > n || n > 32 {
		return 0, 0, usagef("write it like 2-of-3", "%.20q is not K-of-N with N at most 32", s)
	}
	return k, n, nil
}

func (a *app) secretPaperCommand() *cobra.Command {
	var (
		o      *useFlags
		shares string
		dir    string
		dryRun bool
	)
	cmd := &cobra.Command{
		Use: "export-paper NAME", Short: "Write paper shares of a secret: words and a QR code, for a printer", Args: args(1, 1),
		Long: `export-paper writes one text file for each share, to be printed and kept in different
places. Their sharing has nothing to do with the one among devices: any K of these
papers bring the value back, with no device. The files are as secret as a share;
write them to a memory disk, print them, remove them.`,
		Example: "  fcpctl secret export-paper api/token --shares 2-of-3 --to /dev/shm/paper --identity ~/fcp-identity",
		RunE: func(cmd *cobra.Command, args []string) error {
			k, n, err := parseShares(shares)
			if err != nil {
				return err
			}
			if dir == "" {
				return usagef("see `"+cmd.CommandPath()+" --help`", "--to names the directory for the files")
			}
			v := paperView{Name: args[0], Threshold: k, DryRun: dryRun}
			for i := range n {
				v.Files = append(v.Files, filepath.Join(dir, fmt.Sprintf("%s-share-%d-of-%d.txt", strings.ReplaceAll(args[0], "/", "-"), i+1, n)))
			}
			asOf := uint64(0)
			if !dryRun {
				if asOf, err = a.exportPaper(cmd.Context(), o, args[0], &v); err != nil {
					return err
				}
			}
			return a.record("Paper", asOf, v, v.Set, field{"secret", v.Name}, field{"set", v.Set}, field{"any", decimal(uint64(k))}, field{"files", strings.Join(v.Files, ", ")})
		},
	}
	o = useSecretOptions(cmd)
	cmd.Flags().StringVar(&shares, "shares", "2-of-3", "K-of-N: how many papers there are, and how many bring it back")
	cmd.Flags().StringVar(&dir, "to", "", "directory for the files")
	_ = cmd.MarkFlagDirname("to")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) exportPaper(ctx context.Context, o *useFlags, name string, v *paperView) (asOf uint64, err error) {
	if err := os.MkdirAll(filepath.Dir(v.Files[0]), 0o700); err != nil {
		return 0, inputError(err, "the directory for the papers")
	}
	for _, f := range v.Files { // before any is written: papers of two sets do not go together
		if _, err := os.Lstat(f); err == nil {
			return 0, fcp.Errorf(fcp.CodeNotEmpty, "%s exists already", f).WithNext("name another directory with --to")
		}
	}
	return a.useSecret(ctx, o, name, "paper", func(value []byte) error {
		shares, err := authority.SplitPaper(a.random(), value, v.Threshold, len(v.Files))
		if err != nil {
			return err
		}
		for i, s := range shares {
			v.Set = s.Set()
			page, err := paperPage(s, name)
			if err == nil {
				err = keystore.OS{}.WriteFileAtomic(v.Files[i], page)
				clear(page)
			}
			s.Wipe()
			if err != nil {
				return inputError(err, "a paper share")
			}
		}
		return nil
	})
}

// paperPage is a share as it is printed: what it is, the words, and the same as a QR
// code.
func paperPage(s *authority.PaperShare, name string) ([]byte, error) {
	code, err := qr.Encode(s.Code(), qr.M)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeTooLarge, err, "a QR code")
	}
	k, _ := s.Threshold()
	var b strings.Builder
	b.WriteString(s.Text())
	fmt.Fprintf(&b, "\nSecret: %s. Type the numbered lines into a file, or scan the code into one; any %d\npapers do: fcpctl secret recover FILE... -- COMMAND\n\n", name, k)
	// Two rows of modules to a line of text, inside the quiet zone of ISO/IEC 18004.
	const quiet = 4
	blocks := []string{" ", "▀", "▄", "█"}
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			i := 0
			if code.Black(x, y) {
				i = 1
			}
			if code.Black(x, y+1) {
				i |= 2
			}
			b.WriteString(blocks[i])
		}
		b.WriteByte('\n')
	}
	return []byte(b.String()), nil
}

// maxPaperFile bounds a file with a share, in bytes: words, or a code as text.
const maxPaperFile = 64 << 10

func (a *app) secretRecoverCommand() *cobra.Command {
	var (
		o      *secretFlags
		h      *holderFlags
		put    string
		rotate bool
	)
	cmd := &cobra.Command{
		Use: "recover FILE... [-- COMMAND [ARG...]]", Short: "Bring a secret back from paper shares, for a command or into the store", Args: cobra.ArbitraryArgs,
		Long: `recover reads paper shares, as the numbered lines of words or the text of the QR code,
and names what was mistyped by file, line and word. The value goes to a command's
stdin, which needs no store, or with --put NAME into the store as a shared secret.`,
		Example: "  fcpctl secret recover one.txt two.txt -- cat\n  fcpctl secret recover one.txt two.txt --put api/token --identity ~/fcp-identity",
		RunE: func(cmd *cobra.Command, args []string) error {
			files, command := args, []string(nil)
			if at := cmd.ArgsLenAtDash(); at >= 0 {
				files, command = args[:at], args[at:]
			}
			if len(files) == 0 || (len(command) > 0) == (put != "") {
				return usagef("see `"+cmd.CommandPath()+" --help`", "files with shares, and either a command behind -- or --put NAME")
			}
			return a.recoverPaper(files, func(value []byte) error {
				if put == "" {
					return a.runWith(cmd.Context(), value, 0, command)
				}
				return a.changeSecret(cmd.Context(), o, "a secret", func(e *engine.Engine, owner *authority.OwnerKey) (engine.SecretState, error) {
					q, err := h.request(a, e, fcp.ZoneID(*o.zone), put, o.dryRun)
					if err != nil {
						return engine.SecretState{}, err
					}
					q.Value = value
					if rotate {
						return e.RotateSecret(cmd.Context(), owner, q)
					}
					return e.PutSecret(cmd.Context(), owner, q)
				})
			})
		},
	}
	o, h = secretOptions(cmd), holderOptions(cmd)
	cmd.Flags().StringVar(&put, "put", "", "share the value again under this name")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "with --put: the secret is there and gets this value")
	return cmd
}

func (a *app) recoverPaper(files []string, use func(value []byte) error) error {
	var shares []*authority.PaperShare
	for _, f := range files {
		b, err := a.readInput(f, maxPaperFile, "a paper share")
		if err != nil {
			return err
		}
		s, err := authority.ParsePaperShare(string(b))
		clear(b)
		if err != nil {
			return fcp.Wrap(fcp.CodeMalformed, err, "%s", f)
		}
		defer s.Wipe()
		shares = append(shares, s)
	}
	return authority.CombinePaper(shares, use)
}
