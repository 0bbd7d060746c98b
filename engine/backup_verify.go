package engine

import (
	"context"

	"fcp"
)

func verifyBackup(_ context.Context, dir string, _ VerifyBackupOptions) (BackupReport, error) {
	return BackupReport{Dir: dir}, fcp.Errorf(fcp.CodeInternal, "not in this build")
}

func (r *BackupReport) checked() []string { return nil }
