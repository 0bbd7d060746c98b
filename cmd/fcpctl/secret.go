package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/authority/keystore"
)

// maxPassphrase bounds a passphrase file, in bytes.
const maxPassphrase = 4 << 10

// identityOptions are the flags that name an identity file and its passphrase.
// There is no flag for the passphrase itself: arguments are seen by others.
type identityOptions struct {
	path           string
	passphraseFile string
}

func identityFlags(cmd *cobra.Command, usage string) *identityOptions {
	o := &identityOptions{}
	cmd.Flags().StringVar(&o.path, "identity", "", usage)
	cmd.Flags().StringVar(&o.passphraseFile, "passphrase-file", "", "file with the passphrase of the identity, - for stdin")
	return o
}

// passphrase returns the passphrase of an existing identity file, from a file or,
// on a terminal, by asking.
func (a *app) passphrase(o *identityOptions) (string, error) {
	if o.passphraseFile != "" {
		return a.passphraseFrom(o.passphraseFile)
	}
	if !a.stdinTTY || !a.stderrTTY {
		return "", fcp.Errorf(fcp.CodeUnauthorized, "the identity file %s needs its passphrase, and there is no terminal to ask on", o.path).
			WithNext("give it with --passphrase-file FILE or FCP_PASSPHRASE_FILE")
	}
	return a.ask("Passphrase of " + o.path + ": ")
}

func (a *app) passphraseFrom(path string) (string, error) {
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", inputError(err, "the passphrase file")
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPassphrase+1))
	defer clear(b)
	if err != nil {
		return "", inputError(err, "the passphrase file")
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(b) > maxPassphrase || len(line) == 0 {
		return "", fcp.Errorf(fcp.CodeInvalidArgument, "the first line of the passphrase file is empty or too long")
	}
	return string(line), nil
}

// newPassphrase returns the passphrase for a new identity file.
func (a *app) newPassphrase(o *identityOptions) (string, error) {
	if o.passphraseFile != "" {
		return a.passphraseFrom(o.passphraseFile)
	}
	if !a.stdinTTY || !a.stderrTTY {
		return "", usagef("say --no-passphrase, or give --passphrase-file FILE", "the identity file needs a passphrase, and there is no terminal to ask on")
	}
	p, err := a.ask("New passphrase for " + o.path + ": ")
	if err != nil {
		return "", err
	}
	q, err := a.ask("Once more: ")
	if err == nil && p != q {
		err = fcp.Errorf(fcp.CodeInvalidArgument, "the two passphrases differ").WithNext("run the same command again")
	}
	if err == nil && p == "" {
		err = usagef("say --no-passphrase to leave the identity file unprotected", "an empty passphrase")
	}
	return p, err
}

func (a *app) ask(question string) (string, error) {
	fmt.Fprint(a.stderr, question)
	b, err := a.readPassword()
	fmt.Fprintln(a.stderr)
	defer clear(b)
	if err != nil {
		return "", fcp.Errorf(fcp.CodeInterrupted, "no passphrase was typed")
	}
	return string(b), nil
}

// loadOwner opens an identity file, asking for the passphrase when it has one.
func (a *app) loadOwner(o *identityOptions) (*authority.OwnerKey, error) {
	info, err := keystore.ReadIdentityInfo(keystore.OS{}, o.path)
	if err != nil {
		return nil, err
	}
	phrase := ""
	if info.Encrypted {
		if phrase, err = a.passphrase(o); err != nil {
			return nil, err
		}
	}
	return keystore.LoadIdentity(keystore.OS{}, o.path, phrase, nil)
}

// confirm asks for a yes on a terminal. Without one, --yes must have been said.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	refused := fcp.Errorf(fcp.CodeGuess, "%s", question).WithNext("say --yes to go on, or --dry-run to see what would happen")
	if !a.stdinTTY || !a.stderrTTY {
		return refused
	}
	fmt.Fprintf(a.stderr, "%s Go on? [y/N] ", printable(question))
	line, _ := bufio.NewReader(a.stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return refused
}

func yesFlag(cmd *cobra.Command, v *bool) {
	cmd.Flags().BoolVarP(v, "yes", "y", false, "do not ask")
}
