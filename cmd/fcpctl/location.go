package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine/blob"
)

const s3Scheme = "s3://"

// backupStore opens the place that a command names as DIR|s3://BUCKET/PREFIX.
// Nothing is read or written yet.
func (a *app) backupStore(where string) (blob.Store, error) {
	if !isRemote(where) {
		if st, err := os.Stat(where); err == nil && !st.IsDir() {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%s is not a directory", where).WithNext("name the folder of a backup, or a new one")
		}
		return blob.NewFiles(vfs.Default, where), nil
	}
	look := func(names ...string) string {
		for _, n := range names {
			if v, _ := a.lookupEnv(n); v != "" {
				return v
			}
		}
		return ""
	}
	c, err := blob.ParseS3URL(where, look("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
	if err != nil {
		return nil, err
	}
	if c.Region == "" {
		c.Region = look("AWS_REGION", "AWS_DEFAULT_REGION")
	}
	c.AccessKey, c.SecretKey, c.SessionToken = look("AWS_ACCESS_KEY_ID"), look("AWS_SECRET_ACCESS_KEY"), look("AWS_SESSION_TOKEN")
	if c.AccessKey == "" {
		c.CredentialsFile, c.Profile = look("AWS_SHARED_CREDENTIALS_FILE"), look("AWS_PROFILE")
		if path := filepath.Join(look("HOME"), ".aws", "credentials"); c.CredentialsFile == "" {
			if _, err := os.Stat(path); err == nil {
				c.CredentialsFile = path
			}
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	c.Owner, c.Now = "fcpctl on "+host+", process "+decimal(uint64(os.Getpid())), a.now
	return blob.NewS3(c)
}

// outside refuses a place for a backup inside the store itself: it would be lost with it.
func outside(store, where string) error {
	if isRemote(where) {
		return nil
	}
	inside, err := filepath.Rel(realPath(store), realPath(where))
	if err != nil || inside == ".." || strings.HasPrefix(inside, ".."+string(filepath.Separator)) {
		return nil
	}
	return fcp.Errorf(fcp.CodeInvalidArgument, "%s is inside the store, and would be lost with it", where).
		WithNext("name a folder outside of " + quote(store) + ", best on another disk")
}

// realPath is a path without links, as far as it exists.
func realPath(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	if abs == filepath.Dir(abs) {
		return abs
	}
	return filepath.Join(realPath(filepath.Dir(abs)), filepath.Base(abs))
}

// isRemote reports whether reading a place costs more than reading a disk.
func isRemote(where string) bool { return strings.HasPrefix(where, s3Scheme) }

func breakLockFlag(cmd *cobra.Command, v *bool) {
	cmd.Flags().BoolVar(v, "break-lock", false, "remove the lock that a process that is no more left in a bucket")
}

// breakLock removes the lock of a bucket. A directory's lock ends with its process.
func breakLock(ctx context.Context, s blob.Store, yes bool) error {
	b, ok := s.(interface{ BreakLock(context.Context) error })
	if !yes || !ok {
		return nil
	}
	return b.BreakLock(ctx)
}

// backupError adds where to look for a backup, unless the error says what to do.
func (a *app) backupError(err error, where string) error {
	if e := (*fcp.Error)(nil); isRemote(where) || errors.As(err, &e) && e.Next != "" {
		return err
	}
	return advise(err, fcp.CodeNotFound, "name a directory that `fcpctl backup create` wrote; "+quote(where)+" has no backup")
}
